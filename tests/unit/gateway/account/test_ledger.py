"""What every ledger keeps of the records, in Redis, SQLite and Postgres."""

import dataclasses
import threading
from datetime import UTC, datetime

import pytest

from gateway.account.ledger import Spend, Sums, UnknownCursor, UsageQuery, Windows
from gateway.account.records import Record

NOW = int(datetime(2026, 11, 26, 12, 0, tzinfo=UTC).timestamp())  # a Thursday
DAY = 86_400


def record(number, settled=NOW, **fields):
    """A record of a call that was settled at a time in seconds."""
    values = {
        "id": f"call-{number:04}",
        "key_id": "key1",
        "owner": "team1",
        "model": "openai/gpt-5",
        "usage": {"input": 10, "output": 5},
        "cost_nano": 1_000,
        "settled_ms": settled * 1000,
        "created_ms": settled * 1000 - 500,
    }
    return Record(**(values | fields))


def ids(page):
    return [record.id for record in page.records]


class TestRecords:
    def test_a_record_is_read_as_it_was_written(self, ledger):
        call = record(
            1,
            prices={"version": "1", "input": "0.15"},
            attempts=({"provider_name": "openai", "status": 500},),
            error_code="upstream_error",
            user_agent="x\0y\u2028 \N{PILE OF POO}",
        )
        ledger.write([call])
        assert ledger.generation(call.id) == call

    def test_a_call_without_a_record_has_none(self, ledger):
        assert ledger.generation("call-0001") is None

    def test_no_records_change_nothing(self, ledger):
        ledger.write([])
        assert ledger.generations().records == ()

    def test_the_latest_settled_record_comes_first(self, ledger):
        ledger.write([record(1, NOW - 20), record(3, NOW), record(2, NOW - 10)])
        assert ids(ledger.generations()) == ["call-0003", "call-0002", "call-0001"]

    def test_pages_follow_one_another_without_gap_or_repetition(self, ledger):
        # Many were settled in the same millisecond, and more than Redis' chunk are there.
        ledger.write([record(number, NOW - number // 100) for number in range(450)])
        seen, after = [], None
        while True:
            page = ledger.generations(limit=70, after=after)
            seen += ids(page)
            after = seen[-1]
            if not page.has_more:
                break
        expected = sorted(range(450), key=lambda n: (NOW - n // 100, n), reverse=True)
        assert seen == [f"call-{number:04}" for number in expected]

    def test_records_that_come_while_pages_are_read_are_not_in_them(self, ledger):
        ledger.write([record(number, NOW - number) for number in range(4)])
        first = ledger.generations(limit=2)
        ledger.write([record(number, NOW + number) for number in range(10, 20)])
        assert ids(ledger.generations(limit=2, after=ids(first)[-1])) == ["call-0002", "call-0003"]

    def test_a_page_after_an_unknown_record_is_refused(self, ledger):
        with pytest.raises(UnknownCursor):
            ledger.generations(after="call-9999")

    @pytest.mark.parametrize(
        ("filters", "expected"),
        [
            ({"key_id": "key2"}, [2]),
            ({"owner": "team2"}, [3]),
            ({"model": "anthropic/claude"}, [4]),
            ({"status": "failed"}, [5]),
            ({"key_id": "key1", "status": "failed"}, [5]),
            ({"key_id": "key2", "status": "failed"}, []),
            ({"start_ms": (NOW + 4) * 1000}, [5, 4]),
            ({"end_ms": (NOW + 3) * 1000}, [2, 1]),
            ({"start_ms": (NOW + 2) * 1000, "end_ms": (NOW + 4) * 1000}, [3, 2]),
            ({"model": "openai/gpt-5", "end_ms": (NOW + 4) * 1000, "limit": 2}, [3, 2]),
        ],
    )
    def test_filters_choose_records(self, ledger, filters, expected):
        ledger.write(
            [
                record(1, NOW + 1),
                record(2, NOW + 2, key_id="key2"),
                record(3, NOW + 3, owner="team2"),
                record(4, NOW + 4, model="anthropic/claude"),
                record(5, NOW + 5, status="failed"),
            ]
        )
        page = ledger.generations(**filters)
        assert ids(page) == [f"call-{number:04}" for number in expected]


class TestSums:
    def test_a_record_written_twice_counts_once(self, ledger):
        ledger.write([record(1), record(2)])
        ledger.write([record(2), record(3), record(3)])
        assert ledger.totals("key1", NOW).all_time == Sums(3, 30, output=15, cost_nano=3_000)

    def test_the_first_record_of_a_call_stands(self, ledger):
        ledger.write([record(1, cost_nano=5)])
        ledger.write([record(1, cost_nano=7), record(2, cost_nano=1), record(2, cost_nano=2)])
        assert ledger.generation("call-0001").cost_nano == 5
        assert ledger.totals("key1", NOW).all_time.cost_nano == 6

    def test_every_unit_is_summed_up(self, ledger):
        units = {
            name: number * 3 + 1
            for number, name in enumerate(vars(Sums)["__slots__"])
            if name not in ("requests", "cost_nano", "saved_nano")
        }
        ledger.write([record(n, usage=units, cost_nano=4, saved_nano=9) for n in range(2)])
        expected = {name: 2 * count for name, count in units.items()}
        total = ledger.totals("key1", NOW).all_time
        assert total == Sums(requests=2, cost_nano=8, saved_nano=18, **expected)

    def test_large_amounts_stay_exact(self, ledger):
        ledger.write([record(n, cost_nano=2**50 + n) for n in range(3)])
        assert ledger.totals("key1", NOW).all_time.cost_nano == 3 * 2**50 + 3

    def test_a_correction_is_money_and_no_request(self, ledger):
        ledger.write([record(1), record(2, correction=True, usage={}, cost_nano=-1_500)])
        assert ledger.totals("key1", NOW).all_time == Sums(1, 10, output=5, cost_nano=-500)

    def test_an_owner_has_the_sums_of_its_keys(self, ledger):
        ledger.write([record(1), record(2, key_id="key2"), record(3, owner="team2")])
        assert ledger.totals("owner:team1", NOW).all_time.requests == 2
        assert ledger.totals("owner:nobody", NOW) == Spend()

    def test_totals_are_by_the_calendar_windows_of_utc(self, ledger):
        monday, first = NOW - 3 * DAY, int(datetime(2026, 11, 1, tzinfo=UTC).timestamp())
        times = [NOW - NOW % DAY, NOW - NOW % DAY - 1, monday - NOW % DAY, first, first - 1]
        ledger.write([record(number, settled) for number, settled in enumerate(times)])
        spend = ledger.totals("key1", NOW)
        counts = [each.requests for each in (spend.day, spend.week, spend.month, spend.all_time)]
        assert counts == [1, 3, 4, 5]

    def test_a_week_may_begin_in_the_month_before(self, ledger):
        tuesday = int(datetime(2026, 12, 1, tzinfo=UTC).timestamp())
        ledger.write([record(1, tuesday - 1), record(2, tuesday)])
        spend = ledger.totals("key1", tuesday)
        assert (spend.week.requests, spend.month.requests) == (2, 1)

    def test_writers_at_the_same_time_count_each_record_once(self, ledger):
        records = [record(number) for number in range(60)]
        writers = [
            threading.Thread(
                target=lambda: [ledger.write(records[i : i + 10]) for i in range(0, 60, 5)]
            )
            for _ in range(4)
        ]
        for writer in writers:
            writer.start()
        for writer in writers:
            writer.join()
        assert ledger.totals("key1", NOW).all_time.requests == 60


class TestUsage:
    def test_buckets_are_of_the_width_and_those_without_usage_are_left_out(self, ledger):
        hour = NOW - NOW % 3_600
        ledger.write([record(1, hour), record(2, hour + 59), record(3, hour + 7_200)])
        for width, seconds, expected in (
            ("1m", 60, [(hour, 2), (hour + 7_200, 1)]),
            ("1h", 3_600, [(hour, 2), (hour + 7_200, 1)]),
            ("1d", DAY, [(hour - hour % DAY, 3)]),
        ):
            buckets = ledger.usage(UsageQuery(NOW - DAY, NOW + DAY, width))
            assert [(b.start, b.rows[0].sums.requests) for b in buckets] == expected
            assert all(bucket.end == bucket.start + seconds for bucket in buckets)

    def test_a_bucket_counts_in_which_the_query_begins_and_none_at_its_end(self, ledger):
        day = NOW - NOW % DAY
        ledger.write([record(1, day), record(2, day + DAY)])
        buckets = ledger.usage(UsageQuery(day + 100, day + DAY, "1d"))
        assert [bucket.start for bucket in buckets] == [day]

    def test_rows_are_grouped(self, ledger):
        ledger.write(
            [
                record(1),
                record(2, key_id="key2"),
                record(3, model="other", kind="embeddings"),
                record(4, key_id="key2", owner="team2"),
            ]
        )

        def rows(*group_by):
            [bucket] = ledger.usage(UsageQuery(NOW - DAY, NOW + DAY, "1d", group_by))
            return [
                (*(getattr(row, name) for name in group_by), row.sums.requests)
                for row in bucket.rows
            ]

        assert rows() == [(4,)]
        assert rows("api_key_id") == [("key1", 2), ("key2", 2)]
        assert rows("owner") == [("team1", 3), ("team2", 1)]
        assert rows("kind", "model") == [("chat", "openai/gpt-5", 3), ("embeddings", "other", 1)]

    def test_names_that_are_not_grouped_by_are_none(self, ledger):
        ledger.write([record(1)])
        [bucket] = ledger.usage(UsageQuery(NOW, NOW + 1, "1d", ("model",)))
        [row] = bucket.rows
        assert (row.api_key_id, row.owner, row.model, row.kind) == (
            None,
            None,
            "openai/gpt-5",
            None,
        )

    @pytest.mark.parametrize(
        ("filters", "expected"),
        [
            ({"api_key_ids": ("key2", "key9")}, 1),
            ({"owners": ("team1",)}, 2),
            ({"models": ("other",)}, 1),
            ({"kinds": ("embeddings",)}, 1),
            ({"api_key_ids": ("key1",), "kinds": ("chat",)}, 1),
            ({"models": ("nothing",)}, 0),
        ],
    )
    def test_filters_choose_rows(self, ledger, filters, expected):
        ledger.write(
            [
                record(1),
                record(2, key_id="key2", owner="team2"),
                record(3, model="other", kind="embeddings"),
            ]
        )
        buckets = ledger.usage(UsageQuery(NOW - DAY, NOW + DAY, "1d", **filters))
        assert sum(row.sums.requests for bucket in buckets for row in bucket.rows) == expected


def test_names_that_no_provider_has_answered_are_one_row_of_the_sums(ledger):
    family = {"family": "any/*", "status": "failed", "usage": {}, "usage_source": "none"}
    ledger.write([record(number, model=f"any/{number}", **family) for number in range(5)])
    query = UsageQuery(NOW - DAY, NOW + DAY, "1d", ("model",))
    (bucket,) = ledger.usage(query)
    assert [(row.model, row.sums.requests) for row in bucket.rows] == [("any/*", 5)]
    assert ledger.generation("call-0003").model == "any/3"


def test_the_windows_of_a_moment_begin_at_midnight_monday_and_the_first():
    windows = Windows.at(NOW)
    moments = [datetime.fromtimestamp(each, UTC) for each in dataclasses.astuple(windows)]
    assert [f"{moment:%Y-%m-%d %H:%M}" for moment in moments] == [
        "2026-11-26 00:00",
        "2026-11-23 00:00",
        "2026-11-01 00:00",
    ]
