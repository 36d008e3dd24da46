"""The usage of keys over time, as OpenAI's pages of buckets and as CSV."""

from __future__ import annotations

import csv
import io
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from api.schemas import query as read
from api.schemas.errors import invalid
from api.schemas.query import Args
from gateway.account.ledger import BUCKET_SECONDS, Sums, UsageBucket, UsageQuery, UsageRow
from gateway.account.pricing import usd

# Width of a bucket -> buckets of a page: by default, and at most (OpenAI's numbers).
PAGES = {"1d": (7, 31), "1h": (24, 168), "1m": (60, 1440)}
COSTS_PAGES = {"1d": (7, 180)}
# Name in the query and in results -> name of the ledger. An owner is what OpenAI calls a project.
GROUPS = {
    "api_key_id": "api_key_id",
    "model": "model",
    "owner": "owner",
    "project_id": "owner",
    "kind": "kind",
}
COSTS_GROUPS = {"api_key_id": "api_key_id", "line_item": "model", "project_id": "owner"}
CHAT = ("chat", "count_tokens")
FORMULA = ("=", "+", "-", "@", "\t", "\r")  # spreadsheets calculate text that begins with these

Json = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Report:
    """One view of the usage.

    `result` makes a result of sums, without the names of its group. `kinds` are the kinds of calls
    that count; empty: all. `models` is what the query calls its list of models.
    """

    result: Callable[[Sums], Json]
    kinds: tuple[str, ...] = ()
    pages: Mapping[str, tuple[int, int]] = field(default_factory=lambda: PAGES)
    groups: Mapping[str, str] = field(default_factory=lambda: GROUPS)
    models: str = "models"
    formats: tuple[str, ...] = ("json",)

    @property
    def parameters(self) -> tuple[str, ...]:
        """The names of the query's parameters."""
        names = ("start_time", "end_time", "bucket_width", "group_by", self.models, "api_key_ids")
        return (*names, "project_ids", "limit", "page", "format")


@dataclass(frozen=True, slots=True)
class Selection:
    """One page of a report: what the ledger is to return, and how it is shown.

    `end` is where the last page ends, in Unix seconds. `groups` are names of the report.
    """

    report: Report
    query: UsageQuery
    end: int
    groups: tuple[str, ...]
    format: str


def selection(report: Report, args: Args, now: int) -> Selection:
    """The page that a query describes; by default, the last buckets up to `now`.

    Buckets count whole: the first is the one that `start_time` falls into. Raises InvalidRequest.
    """
    read.refuse_unknown(args, report.parameters)
    width = read.choice(args, "bucket_width", report.pages) or "1d"
    seconds, (default, most) = BUCKET_SECONDS[width], report.pages[width]
    form = read.choice(args, "format", report.formats) or "json"
    limit = read.number(args, "limit", default if form == "json" else most, most)
    start, end, page = (read.time(args, name) for name in ("start_time", "end_time", "page"))
    if end is None:
        end = now + 1
    if start is None:
        start = max(end - 1 - (limit - 1) * seconds, 0)
    if start >= end:
        raise invalid("wrong.value", "end_time", reason="it must be after start_time")
    groups = read.choices(args, "group_by", report.groups)
    first = max(start, page or 0)
    first -= first % seconds
    query = UsageQuery(
        start=first,
        end=min(end, first + limit * seconds),
        bucket_width=width,
        group_by=tuple(dict.fromkeys(report.groups[name] for name in groups)),
        api_key_ids=read.items(args, "api_key_ids", read.ID),
        owners=read.items(args, "project_ids", read.ID),
        models=read.items(args, report.models, read.MODEL),
        kinds=report.kinds,
    )
    return Selection(report, query, end, groups, form)


def page(selected: Selection, buckets: Sequence[UsageBucket]) -> Json:
    """OpenAI's page: every bucket of it, in the order of time, those without usage too."""
    query = selected.query
    has_more = query.end < selected.end
    width = BUCKET_SECONDS[query.bucket_width]
    rows = {bucket.start: bucket.rows for bucket in buckets}
    return {
        "object": "page",
        "data": [
            {
                "object": "bucket",
                "start_time": start,
                "end_time": start + width,
                "results": [_result(selected, row) for row in rows.get(start, ())],
            }
            for start in range(query.start, query.end, width)
        ],
        "has_more": has_more,
        "next_page": str(query.end) if has_more else None,
    }


def as_csv(selected: Selection, buckets: Sequence[UsageBucket]) -> str:
    """A row for each result of the page, with a line of names; times are ISO 8601 in UTC."""
    text = io.StringIO()
    names = columns(selected.report)
    writer = csv.writer(text, lineterminator="\r\n")  # RFC 4180
    writer.writerow(["start_time", "end_time", *selected.groups, *names])
    for bucket in buckets:
        for row in bucket.rows:
            result = _result(selected, row)
            times = [_day_or_time(moment) for moment in (bucket.start, bucket.end)]
            groups = [cell(result[name]) for name in selected.groups]
            writer.writerow([*times, *groups, *(number(result[name]) for name in names)])
    return text.getvalue()


def columns(report: Report) -> list[str]:
    """The names of what a report counts, as columns."""
    return [name for name in report.result(Sums()) if name != "object"]


def _result(selected: Selection, row: UsageRow) -> Json:
    report = selected.report
    groups = {
        name: (getattr(row, source) or None) if name in selected.groups else None
        for name, source in report.groups.items()
    }
    return {**report.result(row.sums), **groups}


def _day_or_time(seconds: int) -> str:
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def cell(value: str | None) -> str:
    """A text that no spreadsheet takes for a formula."""
    text = value or ""
    return f"'{text}" if text.startswith(FORMULA) else text


def number(value: float) -> str:
    """Digits without an exponent, which spreadsheets read as text in some languages."""
    return str(value) if isinstance(value, int) else f"{value:.9f}".rstrip("0").rstrip(".")


def _input(sums: Sums) -> int:
    return sums.input + sums.cache_read + sums.cache_write + sums.cache_write_1h


def _completions(sums: Sums) -> Json:
    return {
        "object": "organization.usage.completions.result",
        "input_tokens": _input(sums),
        "input_cached_tokens": sums.cache_read,
        "input_cache_write_tokens": sums.cache_write + sums.cache_write_1h,
        "input_uncached_tokens": sums.input,
        "output_tokens": sums.output,
        "output_reasoning_tokens": sums.reasoning,
        "input_audio_tokens": sums.input_audio,
        "output_audio_tokens": sums.output_audio,
        "num_model_requests": sums.requests,
        "cost": usd(sums.cost_nano),
        "saved": usd(sums.saved_nano),
    }


def _embeddings(sums: Sums) -> Json:
    return {
        "object": "organization.usage.embeddings.result",
        "input_tokens": _input(sums),
        "num_model_requests": sums.requests,
        "cost": usd(sums.cost_nano),
    }


def _costs(sums: Sums) -> Json:
    return {
        "object": "organization.costs.result",
        "amount": {"value": usd(sums.cost_nano), "currency": "usd"},
    }


USAGE = Report(_completions, formats=("json", "csv"))
COMPLETIONS = Report(_completions, kinds=CHAT)
EMBEDDINGS = Report(_embeddings, kinds=("embeddings",))
COSTS = Report(_costs, pages=COSTS_PAGES, groups=COSTS_GROUPS, models="line_items")
