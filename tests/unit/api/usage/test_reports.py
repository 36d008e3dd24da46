"""Pages of usage: what a query selects, and how buckets are shown."""

from __future__ import annotations

import csv

import pytest
from werkzeug.datastructures import MultiDict

from api.usage import reports
from gateway.account.ledger import Sums, UsageBucket, UsageRow
from gateway.errors import InvalidRequest

DAY = 86_400
NOW = 20_000 * DAY + 5_000  # in the second hour of a day
TODAY = 20_000 * DAY
SUMS = Sums(requests=2, input=10, cache_read=4, cache_write=2, output=5, cost_nano=1_234_567)


def select(report=reports.USAGE, **args):
    return reports.selection(report, MultiDict(args), NOW)


def test_by_default_the_last_seven_days_are_shown():
    query = select().query
    assert (query.start, query.end) == (TODAY - 6 * DAY, NOW + 1)
    assert query.bucket_width == "1d"


@pytest.mark.parametrize(("width", "count"), [("1d", 7), ("1h", 24), ("1m", 60)])
def test_a_page_has_as_many_buckets_as_openai_s(width, count):
    selected = select(bucket_width=width)
    assert len(reports.page(selected, [])["data"]) == count


def test_a_bucket_counts_whole():
    selected = select(start_time=str(TODAY + 100), end_time=str(TODAY + 200))
    (bucket,) = reports.page(selected, [])["data"]
    assert (bucket["start_time"], bucket["end_time"]) == (TODAY, TODAY + DAY)


@pytest.mark.parametrize("text", ["2024-10-04", "2024-10-04T00:00:00Z", "2024-10-04T02:00+02:00"])
def test_times_may_be_iso_8601(text):
    assert select(start_time=text).query.start == TODAY


def test_lists_are_read_with_and_without_brackets():
    args = {"models": ["a", "b"], "models[]": ["b", "c"], "api_key_ids[]": "k", "group_by": "model"}
    query = select(**args).query
    assert (query.models, query.api_key_ids) == (("a", "b", "c"), ("k",))
    assert query.group_by == ("model",)


def test_pages_follow_each_other_without_a_gap_until_the_end():
    starts, page = [], None
    while True:
        args = {
            "start_time": str(TODAY - 9 * DAY),
            "limit": "4",
            **({"page": page} if page else {}),
        }
        selected = select(**args)
        shown = reports.page(selected, [])
        starts += [bucket["start_time"] for bucket in shown["data"]]
        page = shown["next_page"]
        assert shown["has_more"] == (page is not None)
        if page is None:
            break
    assert starts == [TODAY - day * DAY for day in range(9, -1, -1)]


def test_a_result_names_its_groups_and_is_null_where_it_is_not_grouped():
    selected = select(group_by="project_id")
    rows = (UsageRow(SUMS, owner="team"),)
    page = reports.page(selected, [UsageBucket(TODAY, TODAY + DAY, rows)])
    (result,) = page["data"][-1]["results"]
    assert (result["project_id"], result["owner"], result["model"]) == ("team", None, None)
    assert (result["input_tokens"], result["input_uncached_tokens"]) == (16, 10)
    assert (result["num_model_requests"], result["cost"]) == (2, 0.001234567)


@pytest.mark.parametrize(
    ("args", "param"),
    [
        ({"model": "m"}, "model"),
        ({"bucket_width": "2d"}, "bucket_width"),
        ({"limit": "32"}, "limit"),
        ({"limit": "0"}, "limit"),
        ({"limit": "many"}, "limit"),
        ({"group_by": "user_id"}, "group_by"),
        ({"start_time": "yesterday"}, "start_time"),
        ({"start_time": "20", "end_time": "20"}, "end_time"),
        ({"models": ""}, "models"),
        ({"models": ["m"] * 2 + [f"m{i}" for i in range(100)]}, "models"),
        ({"start_time": ["1", "2"]}, "start_time"),
        ({"format": "xml"}, "format"),
    ],
)
def test_a_wrong_parameter_is_named(args, param):
    with pytest.raises(InvalidRequest) as caught:
        select(**args)
    assert caught.value.param == param


def test_costs_are_of_days_only():
    with pytest.raises(InvalidRequest):
        select(reports.COSTS, bucket_width="1h")


def rows_of(text):
    return list(csv.reader(text.splitlines()))


def test_csv_has_a_line_for_each_result():
    selected = select(format="csv", group_by=["api_key_id", "model"])
    rows = (UsageRow(SUMS, "k1", None, "m1"), UsageRow(Sums(requests=1), "k2", None, "m2"))
    names, first, second = rows_of(
        reports.as_csv(selected, [UsageBucket(TODAY, TODAY + DAY, rows)])
    )
    assert names[:4] == ["start_time", "end_time", "api_key_id", "model"]
    row = dict(zip(names, first, strict=True))
    assert row["start_time"] == "2024-10-04T00:00:00Z"
    assert (row["api_key_id"], row["model"], row["num_model_requests"]) == ("k1", "m1", "2")
    assert row["cost"] == "0.001234567"
    assert dict(zip(names, second, strict=True))["cost"] == "0"


def test_csv_has_a_whole_month_by_default():
    assert select(format="csv", start_time="2024-08-01").query.end >= 20_000 * DAY - 33 * DAY


def test_a_cell_is_never_a_formula():
    selected = select(format="csv", group_by="owner")
    rows = (UsageRow(SUMS, owner="=1+1"),)
    _, row = rows_of(reports.as_csv(selected, [UsageBucket(TODAY, TODAY + DAY, rows)]))
    assert row[2] == "'=1+1"
