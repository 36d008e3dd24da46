"""Circuit breakers: which routes fail, so that calls go straight to a target that can answer.

A route is a provider and its name for a model. Consecutive failures, counted over all workers, open
its breaker; after a cool-down, one call is let through as a probe. The first token of a stream, or
the head of a whole response, of a call made after the last failure closes the breaker and begins
the count again; so does a refusal of the call. The state that workers share is one hash in Redis.
Each worker reads it once a second, writes it when a call fails, and checks it before a probe. A
healthy route costs Redis nothing. Without Redis, each worker goes by the calls that it made itself.

Failures are counted by API key too. The failures of one key, whichever has most, do not count for
the calls of another: a key whose calls fail by themselves diverts nobody else.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from redis import Redis
from redis.exceptions import RedisError

from gateway.errors import (
    GatewayError,
    ModelNotFound,
    UpstreamError,
    UpstreamRejected,
    UpstreamThrottled,
)
from gateway.queue import keys, scripts

WINDOW_SECONDS = 30.0  # failures further apart are not consecutive
UNREAD_SECONDS = 3.0  # a failure that was written may be missing in what is read for so long
MAX_ROUTES = 256
MAX_KEYS = 16  # of a route, whose failures are counted; those of more count for all

Command = tuple[Any, ...]


@dataclass(slots=True)
class Record:
    """The consecutive failures of a route; times are on the monotonic clock."""

    failures: int
    last: float
    open_until: float = 0.0
    by_key: dict[str, int] = field(default_factory=dict)  # of `failures`, by the call's API key

    def count(self, key: str) -> int:
        """Return the failures that count for a call by `key`; for an unknown key, all."""
        if not key:
            return self.failures
        return self.failures - max((n for k, n in self.by_key.items() if k != key), default=0)

    def add(self, key: str) -> None:
        """Count a failure of a call by `key`."""
        self.failures += 1
        if key and (key in self.by_key or len(self.by_key) < MAX_KEYS):
            self.by_key[key] = self.by_key.get(key, 0) + 1


class Breakers:
    """One worker's view of all breakers; `troubled` is empty while no route fails."""

    def __init__(
        self,
        failures: int = 5,
        cooldown: float = 10.0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.troubled: dict[str, Record] = {}
        self._failures, self._cooldown, self._clock = failures, cooldown, clock
        self._put: Callable[[Command], None] | None = None
        self._redis: Redis | None = None

    def share(self, put: Callable[[Command], None], redis: Redis) -> None:
        """From now on, write through `put` and check `redis` before a probe."""
        self._put, self._redis = put, redis

    def blocks(self, route: str, key: str = "") -> bool:
        """Return whether a call by `key` should go elsewhere; False may make it a probe."""
        record = self.troubled.get(route)
        if record is None or not self._opened(record, key):
            return False
        now = self._clock()
        if now < record.open_until:
            return True
        # Before Redis is checked: calls that come meanwhile must not check it as well.
        record.open_until = now + self._cooldown
        return not self._may_probe(route, key)

    def is_open(self, route: str, key: str = "") -> bool:
        """Return whether calls by `key` skip this route now; unlike `blocks`, start no probe."""
        record = self.troubled.get(route)
        return (
            record is not None and self._opened(record, key) and self._clock() < record.open_until
        )

    def failed(self, route: str, error: GatewayError, age: float = 0.0, key: str = "") -> None:
        """Count the failure of an attempt made `age` seconds ago, if it is the route's fault."""
        if isinstance(error, UpstreamRejected | ModelNotFound):
            self.answered(route, age)  # a provider that refuses a call works
        if not counts(error):
            return
        now = self._clock()
        record = self.troubled.get(route)
        if record is None:
            self._make_room()
            record = self.troubled[route] = Record(0, now)
        blocked = self._opened(record, key) and now < record.open_until
        if now - record.last > WINDOW_SECONDS and not self._opened(record):
            record.failures, record.by_key = 0, {}
        record.add(key)
        record.last = now
        if self._opened(record, key) and now >= record.open_until:
            record.open_until = now + self._cooldown
        if not blocked:  # Redis need not hear of calls that were running when it opened
            self._share("failed", route, key=key)

    def answered(self, route: str, age: float = 0.0) -> None:
        """Close the breaker once a call made `age` seconds ago begins to be answered.

        A call that was made before the last failure changes nothing.
        """
        record = self.troubled.get(route)
        if record is not None and record.last <= self._clock() - age:
            del self.troubled[route]
            self._share("answered", route, int(age * 1000))

    def learn(self, rows: Mapping[bytes, bytes], redis_now: float) -> None:
        """Take over the rows of Redis, read at `redis_now` in its time (seconds since 1970)."""
        now = self._clock()
        records = {}
        for name, value in rows.items():
            record = _read(value, now - redis_now)
            if record is not None:
                # A Redis whose clock was wrong for a while must not keep a route closed for long.
                record.last = min(record.last, now)
                record.open_until = min(record.open_until, now + self._cooldown)
                records[name.decode("utf-8", "replace")] = record
        for route, own in self.troubled.items():
            record = records.get(route)
            if record is not None:
                record.failures = max(record.failures, own.failures)
                record.open_until = max(record.open_until, own.open_until)
                record.last = max(record.last, own.last)
                for key, failures in own.by_key.items():
                    record.by_key[key] = max(record.by_key.get(key, 0), failures)
            elif now - own.last < UNREAD_SECONDS:
                records[route] = own
        self.troubled = records

    def _make_room(self) -> None:
        """Forget the oldest route, rather one that is not open: callers make up names of models."""
        if len(self.troubled) >= MAX_ROUTES:
            rows = self.troubled.items()
            del self.troubled[min(rows, key=lambda row: (self._opened(row[1]), row[1].last))[0]]

    def _opened(self, record: Record, key: str = "") -> bool:
        return record.count(key) >= self._failures

    def _may_probe(self, route: str, key: str) -> bool:
        if self._redis is None:
            return True
        try:
            return bool(scripts.run(self._redis, self._command("probe", route, key=key)) == 1)
        except RedisError:
            return True

    def _share(self, event: str, route: str, age: int = 0, key: str = "") -> None:
        if self._put is not None:
            self._put(self._command(event, route, age, key))

    def _command(self, event: str, route: str, age: int = 0, key: str = "") -> Command:
        args = [
            event,
            route,
            self._failures,
            int(WINDOW_SECONDS * 1000),
            int(self._cooldown * 1000),
            MAX_ROUTES,
            keys.BREAKER_SECONDS,
            age,
            key,
            MAX_KEYS,
        ]
        return scripts.BREAKER.command([keys.BREAKERS], args)


def counts(error: GatewayError) -> bool:
    """Return whether a failure is the route's fault: not the caller's, and not a rate limit."""
    return isinstance(error, UpstreamError) and not isinstance(
        error, UpstreamRejected | UpstreamThrottled
    )


def _read(value: bytes, offset: float) -> Record | None:
    """Return a record from Redis, its times moved by `offset` seconds; None if it is malformed."""
    numbers, by_key = value.split(b" ")[:3], value.split(b" ")[3:]
    try:
        failures, last, open_until = map(int, numbers)
        pairs = (each.decode().split("=") for each in by_key)
        failures_by_key = {key: int(number) for key, number in pairs}
    except ValueError:
        return None
    return Record(failures, last / 1000 + offset, open_until / 1000 + offset, failures_by_key)
