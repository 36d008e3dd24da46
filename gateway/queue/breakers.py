"""Reads the circuit breakers that workers share, for people who look at them."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import cast

from redis import Redis

from gateway.queue import keys

ROW = re.compile(rb"(\d+) (\d+) (\d+)")  # as lua/breaker.lua writes it

HEALTHY, FAILING, OPEN, PROBING = "healthy", "failing", "open", "probing"


@dataclass(frozen=True, slots=True)
class Breaker:
    """The state of a route that has failed: one of FAILING, OPEN and PROBING, and its failures.

    Times are in milliseconds since 1970. Calls go to a fallback until `open_until_ms`; then one
    call tries the route again.
    """

    state: str
    failures: int
    last_ms: int
    open_until_ms: int


def read(redis: Redis, failures: int) -> dict[str, Breaker]:
    """Return the breakers of all routes that have failed lately, by route. Others are healthy.

    `failures` is the number that opens one. Raises RedisError.
    """
    with redis.pipeline(transaction=False) as pipeline:
        pipeline.time()
        pipeline.hgetall(keys.BREAKERS)
        (seconds, _), rows = pipeline.execute()
    breakers = {}
    for route, row in cast("dict[bytes, bytes]", rows).items():
        match = ROW.match(row)
        if match is None:
            continue
        count, last, until = (int(each) for each in match.groups())
        state = FAILING if count < failures else OPEN if seconds * 1000 < until else PROBING
        breakers[route.decode("utf-8", "replace")] = Breaker(state, count, last, until)
    return breakers
