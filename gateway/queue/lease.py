"""Liveness: each process renews a key of its own, and others take its absence for death.

The renewing is done by a native thread with its own connection, so that a busy event loop is not a
dead process; one that has not turned for LOOP_SECONDS is.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import gevent
from redis import Redis
from redis.exceptions import RedisError

from gateway.queue import keys

RENEW_SECONDS = 0.3  # less than between two looks: a lease lost with the rest of Redis is back
LOOP_SECONDS = 10.0  # without a turn of the event loop: no longer alive
STEADY_SECONDS = 4.0  # of own renewals, before the absence of others means anything


class Lease:
    """This process' lease; `connect` makes a client for it alone.

    `slots` is how many calls the process takes at once, which others read there.
    """

    def __init__(self, connect: Callable[[], Redis], process: str, slots: int = 0) -> None:
        self.process = process
        self.slots = slots
        self._connect = connect
        self._loop_turned = time.monotonic()
        self._renewed = 0.0
        self._steady_since: float | None = None
        self._clock = 0.0  # how far Redis' clock is ahead of our monotonic one
        self._stopping = False
        self._thread: Any = None
        self._ticker: Any = None

    def start(self) -> None:
        """Take the lease; returns once Redis has it or has failed to answer."""
        redis = self._connect()
        self._renew(redis)
        redis.connection_pool.disconnect()
        self._ticker = gevent.spawn(self._tick)
        self._thread = gevent.get_hub().threadpool.spawn(self._run)

    def steady(self) -> bool:
        """Whether this process has renewed for STEADY_SECONDS without a gap until now.

        Only then does the absence of another lease tell of a death: Redis was not away.
        """
        now = time.monotonic()
        return (
            self._steady_since is not None
            and now - self._steady_since >= STEADY_SECONDS
            and now - self._renewed < 3 * RENEW_SECONDS
        )

    def redis_time(self, seconds: float) -> float:
        """What Redis' clock, seconds since 1970, will show in `seconds`; 0 where not known."""
        return time.monotonic() + self._clock + seconds if self._clock else 0.0

    def release(self) -> None:
        """Give the lease up; waits at most two seconds for Redis."""
        self._stopping = True
        if self._ticker is not None:
            self._ticker.kill(block=False)
        if self._thread is not None:
            self._thread.wait(timeout=2)

    def _tick(self) -> None:
        while True:
            self._loop_turned = time.monotonic()
            gevent.sleep(RENEW_SECONDS)

    def _run(self) -> None:
        redis = self._connect()  # a gevent socket belongs to the thread that made it
        while not self._stopping:
            time.sleep(RENEW_SECONDS)
            if time.monotonic() - self._loop_turned < LOOP_SECONDS:
                self._renew(redis)
        try:
            redis.delete(keys.lease(self.process))
        except RedisError:
            pass  # it expires by itself
        redis.connection_pool.disconnect()

    def _renew(self, redis: Redis) -> None:
        now = time.monotonic()
        try:
            with redis.pipeline(transaction=False) as pipeline:
                pipeline.set(keys.lease(self.process), self.slots, px=keys.LEASE_MS)
                pipeline.time()
                _, (seconds, microseconds) = pipeline.execute()
        except RedisError:
            self._steady_since = None
            return
        self._clock = seconds + microseconds / 1e6 - (now + time.monotonic()) / 2
        if self._steady_since is None or now - self._renewed > keys.LEASE_MS / 1000:
            self._steady_since = now
        self._renewed = now
