"""gateway/account/counters.py: calendar windows, and what is left of a limit."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.account import counters
from gateway.account.counters import Counters, Spend, window
from gateway.account.key_fields import Limits
from gateway.queue import keys

MOMENTS = st.datetimes(datetime(1971, 1, 1), datetime(2200, 1, 1)).map(
    lambda moment: moment.replace(tzinfo=UTC)
)


def at(text: str) -> float:
    return datetime.fromisoformat(text).replace(tzinfo=UTC).timestamp()


@pytest.mark.parametrize(
    ("name", "moment", "following"),
    [
        ("daily", "2026-11-26T23:59:59", "2026-11-27"),
        ("daily", "2026-11-27T00:00:00", "2026-11-28"),
        ("weekly", "2026-11-29T23:59:59", "2026-11-30"),  # a Sunday
        ("weekly", "2026-11-30T00:00:00", "2026-12-07"),  # a Monday
        ("monthly", "2026-12-31T23:59:59", "2027-01-01"),
        ("monthly", "2028-02-29T12:00:00", "2028-03-01"),
        ("monthly", "2027-01-31T12:00:00", "2027-02-01"),
    ],
)
def test_windows_begin_at_midnight_utc(name, moment, following):
    assert window(name, at(moment))[1] == at(following)


@given(MOMENTS)
def test_a_day_a_week_and_a_month_are_those_of_the_calendar(moment):
    def numbers(other):
        return {name: window(name, other.timestamp())[0] for name in counters.WINDOWS}

    midnight = moment.replace(hour=0, minute=0, second=0, microsecond=0)
    monday = midnight - timedelta(days=midnight.weekday())
    first = midnight.replace(day=1)
    for name, begin in {"daily": midnight, "weekly": monday, "monthly": first}.items():
        assert numbers(begin)[name] == numbers(moment)[name]
        assert numbers(begin - timedelta(seconds=1))[name] == numbers(moment)[name] - 1


def test_counters_of_windows_that_have_ended_are_zero(redis):
    seconds, _ = redis.time()
    day, week, month = (window(name, seconds)[0] for name in counters.WINDOWS)
    used = {"usd": 900, "tokens": 90, "requests": 9}
    for prefix, number, factor in (("d", day - 1, 1), ("w", week, 2), ("m", month, 3)):
        used[prefix] = number
        used |= {f"{prefix}_usd": 100 * factor, f"{prefix}_tokens": 10, f"{prefix}_requests": 1}
    redis.hset(keys.spend("one"), mapping=used)
    redis.hset(keys.held("one"), mapping={"usd": 5, "tokens": 7, "call": "5 7"})
    redis.zadd(keys.flight("one"), {"ended": 1, "runs": (seconds + 600) * 1000})
    redis.zadd(keys.parked("one"), {"waits": 1.5})
    one, unknown = counters.read(redis, ["one", "owner:unknown"])
    assert one == Counters(
        {
            "": Spend(900, 90, 9),
            "daily": Spend(),
            "weekly": Spend(200, 10, 1),
            "monthly": Spend(300, 10, 1),
        },
        reserved=Spend(5, 7),
        in_flight=1,
        waiting=1,
    )
    assert unknown.spent == dict.fromkeys(("", *counters.WINDOWS), Spend())
    assert (unknown.reserved, unknown.in_flight, unknown.waiting) == (Spend(), 0, 0)


USED = Counters(
    {"": Spend(100, 10), "daily": Spend(30, 3), "weekly": Spend(), "monthly": Spend()},
    reserved=Spend(5, 1),
)


@pytest.mark.parametrize(
    ("limits", "left"),
    [
        ({}, None),
        ({"limit": 200}, 95),
        ({"limit": 200, "limit_reset": "daily"}, 165),
        ({"limit": 20, "limit_unit": "tokens", "limit_reset": "daily"}, 16),
        ({"limit": 50}, 0),
        ({"limit": 0}, 0),
        ({"limit": 100, "limit_extra": 50}, 45),
        ({"limit": 100, "limit_extra": 50, "limit_extra_until": 1_001}, 45),
        ({"limit": 100, "limit_extra": 50, "limit_extra_until": 1_000}, 0),
    ],
)
def test_what_is_left_is_neither_used_nor_reserved(limits, left):
    assert counters.left(Limits(**limits), USED, now=1_000) == left
