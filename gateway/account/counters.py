"""Reads what keys and owners have used: the counters that the scripts enforce limits with."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

from redis import Redis

from gateway.account.key_fields import Limits
from gateway.queue import keys

DAY = 86_400  # seconds
WINDOWS = ("daily", "weekly", "monthly")


@dataclass(frozen=True, slots=True)
class Spend:
    """What was used in one window: 1e-9 USD, tokens and requests."""

    usd: int = 0
    tokens: int = 0
    requests: int = 0

    def of(self, unit: str) -> int:
        """Return the amount that counts for a limit in this unit."""
        return self.usd if unit == "usd" else self.tokens


@dataclass(frozen=True, slots=True)
class Counters:
    """What a scope has used, and what its calls hold now.

    `spent` has the windows of WINDOWS, and "" for all time. `reserved` is what running calls have
    reserved. `in_flight` calls are queued or running; `waiting` ones are over the limit of those.
    """

    spent: dict[str, Spend] = field(default_factory=dict)
    reserved: Spend = Spend()
    in_flight: int = 0
    waiting: int = 0


def window(name: str, seconds: float) -> tuple[int, int]:
    """Return the number of the calendar window of a moment, and when the next one begins.

    Days, weeks from Monday, and months, in UTC; both in seconds since 1970.
    """
    day = int(seconds) // DAY
    if name == "daily":
        return day, (day + 1) * DAY
    if name == "weekly":  # 1970 began on a Thursday
        week = (day + 3) // 7
        return week, ((week + 1) * 7 - 3) * DAY
    date = datetime.fromtimestamp(seconds, UTC)
    month = date.year * 12 + date.month - 1
    following = date.replace(day=1, hour=0, minute=0, second=0, microsecond=0) + timedelta(days=31)
    return month, int(following.replace(day=1).timestamp())


def read(redis: Redis, scopes: Sequence[str]) -> list[Counters]:
    """Return the counters of these scopes, in one round trip. Raises RedisError."""
    now_ms = int(time.time() * 1000)
    with redis.pipeline(transaction=False) as pipeline:
        pipeline.time()
        for scope in scopes:
            pipeline.hgetall(keys.spend(scope))
            pipeline.hmget(keys.held(scope), "usd", "tokens")
            pipeline.zcount(keys.flight(scope), f"({now_ms}", "+inf")
            pipeline.zcard(keys.parked(scope))
        (now, _), *rows = pipeline.execute()
    groups = zip(*(iter(rows),) * 4, strict=True)
    return [
        Counters(_spent(spend, now), Spend(*(int(value or 0) for value in held)), flight, parked)
        for spend, held, flight, parked in groups
    ]


def left(record: Limits, counters: Counters, now: float) -> int | None:
    """Return what is left of a budget, in 1e-9 USD or tokens; None if there is none.

    What running calls have reserved is not left.
    """
    if record.limit is None:
        return None
    extra = record.limit_extra or 0
    if 0 < record.limit_extra_until <= now:
        extra = 0
    used = counters.spent[record.limit_reset].of(record.limit_unit)
    reserved = counters.reserved.of(record.limit_unit)
    return max(0, record.limit + extra - used - reserved)


def _spent(stored: dict[bytes, bytes], now: int) -> dict[str, Spend]:
    """The counters of windows that have ended count as 0."""
    spent = {}
    for name in ("", *WINDOWS):
        prefix = f"{name[0]}_" if name else ""
        current = not name or int(stored.get(name[0].encode(), -1)) == window(name, now)[0]
        values = (
            int(stored.get(f"{prefix}{each}".encode(), 0)) for each in ("usd", "tokens", "requests")
        )
        spent[name] = Spend(*values) if current else Spend()
    return spent
