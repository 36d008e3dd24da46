"""Circuit breakers: which routes fail, so that calls go straight to a target that can answer.

A route is a provider and its name for a model. Consecutive failures, counted over all workers, open
its breaker; after a cool-down, one call is let through as a probe. A response to a call made after
the last failure closes the breaker, and so does a refusal of the call. The state that workers share
is one hash in Redis. Each worker reads it once a second, writes it when a call fails, and checks it
before a probe. A healthy route costs Redis nothing. Without Redis, each worker goes by the calls
that it made itself.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
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

Command = tuple[Any, ...]


@dataclass(slots=True)
class Record:
    """The failures of a route; times are on the monotonic clock."""

    failures: int
    last: float
    open_until: float = 0.0


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

    def blocks(self, route: str) -> bool:
        """Whether a call should go elsewhere; False lets it through, perhaps as a probe."""
        record = self.troubled.get(route)
        if record is None or not self._opened(record):
            return False
        now = self._clock()
        if now < record.open_until:
            return True
        # Before Redis is checked: calls that come meanwhile must not check it as well.
        record.open_until = now + self._cooldown
        return not self._may_probe(route)

    def is_open(self, route: str) -> bool:
        """Whether calls are kept from this route now; unlike `blocks`, it never starts a probe."""
        record = self.troubled.get(route)
        return record is not None and self._opened(record) and self._clock() < record.open_until

    def failed(self, route: str, error: GatewayError, age: float = 0.0) -> None:
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
        blocked = self._opened(record) and now < record.open_until
        if now - record.last > WINDOW_SECONDS and not self._opened(record):
            record.failures = 0
        record.failures += 1
        record.last = now
        if self._opened(record) and not blocked:
            record.open_until = now + self._cooldown
        if not blocked:  # Redis need not hear of calls that were running when it opened
            self._share("failed", route)

    def began(self, route: str, age: float = 0.0) -> None:
        """A stream's first token came: that is enough for a probe, whose rest may take minutes."""
        record = self.troubled.get(route)
        if record is not None and self._opened(record):
            self.answered(route, age)

    def answered(self, route: str, age: float = 0.0) -> None:
        """Close the breaker after a response to a call made `age` seconds ago.

        A call that was made before the last failure changes nothing.
        """
        record = self.troubled.get(route)
        if record is not None and record.last <= self._clock() - age:
            del self.troubled[route]
            self._share("answered", route, int(age * 1000))

    def learn(self, rows: Mapping[bytes, bytes], redis_now: float) -> None:
        """Take over the rows of Redis, read at `redis_now` in its time (seconds since 1970)."""
        now = self._clock()
        known = {}
        for name, value in rows.items():
            record = _read(value, now - redis_now)
            if record is not None:
                # A Redis whose clock was wrong for a while must not keep a route closed for long.
                record.last = min(record.last, now)
                record.open_until = min(record.open_until, now + self._cooldown)
                known[name.decode("utf-8", "replace")] = record
        for route, own in self.troubled.items():
            record = known.get(route)
            if record is not None:
                record.failures = max(record.failures, own.failures)
                record.open_until = max(record.open_until, own.open_until)
                record.last = max(record.last, own.last)
            elif now - own.last < UNREAD_SECONDS:
                known[route] = own
        self.troubled = known

    def _make_room(self) -> None:
        """Forget the oldest route, rather one that is not open: callers make up names of models."""
        if len(self.troubled) >= MAX_ROUTES:
            rows = self.troubled.items()
            del self.troubled[min(rows, key=lambda row: (self._opened(row[1]), row[1].last))[0]]

    def _opened(self, record: Record) -> bool:
        return record.failures >= self._failures

    def _may_probe(self, route: str) -> bool:
        if self._redis is None:
            return True
        try:
            return bool(scripts.run(self._redis, self._command("probe", route)) == 1)
        except RedisError:
            return True

    def _share(self, event: str, route: str, age: int = 0) -> None:
        if self._put is not None:
            self._put(self._command(event, route, age))

    def _command(self, event: str, route: str, age: int = 0) -> Command:
        args = [
            event,
            route,
            self._failures,
            int(WINDOW_SECONDS * 1000),
            int(self._cooldown * 1000),
            MAX_ROUTES,
            keys.BREAKER_SECONDS,
            age,
        ]
        return scripts.BREAKER.command([keys.BREAKERS], args)


def counts(error: GatewayError) -> bool:
    """Whether a failure is the route's fault: not the caller's, and not a rate limit."""
    return isinstance(error, UpstreamError) and not isinstance(
        error, UpstreamRejected | UpstreamThrottled
    )


def _read(value: bytes, offset: float) -> Record | None:
    """A record from Redis, its times moved by `offset` seconds; None for a malformed one."""
    try:
        failures, last, open_until = (int(text) for text in value.split(b" "))
    except ValueError:
        return None
    return Record(failures, last / 1000 + offset, open_until / 1000 + offset)
