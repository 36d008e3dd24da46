"""Usage: tokens and cost over time, by model, key, owner or kind, as charts with their tables."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any
from urllib.parse import urlencode

from flask import Response, request, url_for
from werkzeug.datastructures import MultiDict

from api.console import charts, formats
from api.console.names import key_names
from api.console.page import console, page
from api.console.session import signed_in
from api.schemas import query as read
from api.services import services
from api.usage import reports
from gateway.account.api_keys import KeyRecord
from gateway.account.key_fields import NANO
from gateway.account.ledger import BUCKET_SECONDS, Sums, UsageQuery

# Value -> label, width of a bucket, number of buckets.
RANGES = {
    "24h": ("24 hours", "1h", 24),
    "7d": ("7 days", "1d", 7),
    "30d": ("30 days", "1d", 30),
    "90d": ("90 days", "1d", 90),
}
GROUPS = {"model": "Model", "api_key_id": "Key", "owner": "Owner", "kind": "Kind"}
NONE = "none"
NAMES_OF_NONE = {"model": "corrections", "owner": "no owner"}


@dataclass(frozen=True, slots=True)
class Measure:
    """What bars show: the value of sums, and how it is written."""

    label: str
    value: Callable[[Sums], float]
    text: Callable[[float], str]


MEASURES = {
    "cost": Measure("Cost", lambda sums: sums.cost_nano / NANO, formats.money),
    "tokens": Measure("Tokens", lambda sums: sums.tokens, formats.short),
    "requests": Measure("Requests", lambda sums: sums.requests, formats.short),
}


@console.get("/console/usage")
@signed_in
def usage(key: KeyRecord) -> Response:
    """One query of the ledger as chart, tables and totals."""
    chosen, by, shown = _choices()
    label, width, number = RANGES[chosen]
    now, seconds = int(time.time()), BUCKET_SECONDS[width]
    last = now - now % seconds
    starts = range(last - (number - 1) * seconds, last + 1, seconds)
    query = UsageQuery(
        start=starts[0],
        end=now + 1,
        bucket_width=width,
        group_by=(by,),
        api_key_ids=() if key.operator else (key.public_id,),
    )
    names = key_names(key) if by == "api_key_id" else {NONE: NAMES_OF_NONE.get(by, NONE)}
    by_time: dict[int, Sums] = {}
    by_group: dict[str, Sums] = {}
    values: dict[str, list[float]] = {}
    measure = MEASURES[shown]
    for bucket in services().ledger.usage(query):
        for row in bucket.rows:
            name = getattr(row, by) or NONE
            by_time[bucket.start] = by_time.get(bucket.start, Sums()) + row.sums
            by_group[name] = by_group.get(name, Sums()) + row.sums
            series = values.setdefault(names.get(name, name), [0.0] * number)
            if bucket.start in starts:
                series[starts.index(bucket.start)] += measure.value(row.sums)
    labels = [_label(start, width) for start in starts]
    groups = sorted(by_group.items(), key=lambda group: -measure.value(group[1]))
    return page(
        "usage.html",
        total=sum(by_group.values(), Sums()),
        chart=charts.stacked(labels, values, measure.text),
        groups=groups,
        most=max([0.0, *(measure.value(sums) for _, sums in groups)]) or 1,
        measure=measure,
        times=[(_label(start, width), by_time.get(start, Sums())) for start in reversed(starts)],
        names=names,
        range=chosen,
        range_label=label,
        by=by,
        shown=shown,
        ranges=RANGES,
        groupings=GROUPS if key.operator else {each: GROUPS[each] for each in ("model", "kind")},
        measures=MEASURES,
        link=_link,
        csv=_csv_address(starts[0], width, by),
    )


@console.get("/console/usage.csv")
@signed_in
def usage_csv(key: KeyRecord) -> Response:
    """What `GET /usage?format=csv` returns, for the session's key."""
    args = MultiDict([*request.args.items(multi=True), ("format", "csv")])
    selected = reports.selection(reports.USAGE, args, int(time.time()))
    if not key.operator:
        query = replace(selected.query, api_key_ids=(key.public_id,))
        selected = replace(selected, query=query)
    text = reports.as_csv(selected, services().ledger.usage(selected.query))
    response = Response(text, mimetype="text/csv")
    response.headers["Content-Disposition"] = 'attachment; filename="usage.csv"'
    response.headers["Cache-Control"] = "no-store"
    return response


def _choices() -> tuple[str, str, str]:
    """Range, grouping and measure of the query. Raises InvalidRequest."""
    args = request.args
    return (
        read.choice(args, "range", RANGES) or "7d",
        read.choice(args, "by", GROUPS) or "model",
        read.choice(args, "show", MEASURES) or "cost",
    )


def _link(**changes: Any) -> str:
    """This page with another choice."""
    chosen, by, shown = _choices()
    return url_for("console.usage", **{"range": chosen, "by": by, "show": shown, **changes})


def _csv_address(start: int, width: str, by: str) -> str:
    query = {"start_time": start, "bucket_width": width, "group_by": by}
    if width == "1d":
        query["limit"] = 31  # the most that a page of days has
    return f"{url_for('console.usage_csv')}?{urlencode(query)}"


def _label(start: int, width: str) -> str:
    return datetime.fromtimestamp(start, UTC).strftime("%H:%M" if width == "1h" else "%d %b")
