"""Liveness: each process renews a key of its own, and others take its absence for death.

A native thread with its own connection renews the key, so that a process with a busy event loop
counts as alive. A process whose event loop has not turned for LOOP_SECONDS counts as dead.

Time is Redis' clock (`TIME`) wherever two processes compare it. Each renewal reads it, so
`Lease.redis_time` needs no round trip; it is as exact as half of that renewal's round trip.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from typing import Any

import gevent
from redis import Redis
from redis.exceptions import RedisError

from gateway.queue import commands, keys
from gateway.stalls import Stalls

# Shorter than the 0.5 s between two looks of LostProcesses: a lease that Redis lost is back then.
RENEW_SECONDS = 0.3
LOOP_SECONDS = 10.0  # without a turn of the event loop: the process is no longer alive
STEADY_SECONDS = 4.0  # of own renewals, before the absence of others means anything


class Lease:
    """This process' lease. `connect` makes a client that only the lease uses.

    `slots` is how many calls the process takes at once; other processes read it in the lease.
    `stalls` tells whether the event loop turns.
    """

    def __init__(
        self,
        connect: Callable[[], Redis],
        process: str,
        slots: int = 0,
        stalls: Stalls | None = None,
    ) -> None:
        self.process = process
        self.slots = slots
        self._connect = connect
        self._stalls = stalls or Stalls()
        self._renewed = 0.0
        self._steady_since: float | None = None
        self._clock = 0.0  # how far Redis' clock is ahead of our monotonic one
        self._stopping = False
        self._thread: Any = None

    def start(self) -> None:
        """Take the lease; return once Redis has it or has failed to answer."""
        redis = self._connect()
        self.renew(redis)
        redis.connection_pool.disconnect()
        self._thread = gevent.get_hub().threadpool.spawn(self._run)

    def renew(self, redis: Redis) -> None:
        """Renew the lease for LEASE_MS and read Redis' clock, in one round trip.

        Where Redis does not answer, the lease is no longer steady.
        """
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

    def steady(self) -> bool:
        """Return whether this process has renewed for STEADY_SECONDS without a gap until now.

        Only then does the absence of another lease mean a death: Redis was not away.
        """
        now = time.monotonic()
        return (
            self._steady_since is not None
            and now - self._steady_since >= STEADY_SECONDS
            and now - self._renewed < 3 * RENEW_SECONDS
        )

    def redis_time(self, seconds: float) -> float:
        """Return what Redis' clock will show in `seconds`, in seconds since 1970; 0 if unknown."""
        return time.monotonic() + self._clock + seconds if self._clock else 0.0

    def release(self) -> bool:
        """Give the lease up; wait at most two seconds for Redis.

        Returns whether the renewing has ended.
        """
        self._stopping = True
        if self._thread is not None:
            self._thread.wait(timeout=2)
        return self._thread is None or bool(self._thread.ready())

    def _run(self) -> None:
        redis = self._connect()  # a gevent socket belongs to the thread that made it
        while not self._stopping:
            time.sleep(RENEW_SECONDS)
            if self._stalls.silence() < LOOP_SECONDS:
                self.renew(redis)
        try:
            redis.delete(keys.lease(self.process))
        except RedisError:
            pass  # it expires by itself
        redis.connection_pool.disconnect()


class LostProcesses:
    """Finds out which processes are lost: without a lease at two looks running.

    Nobody is lost while this process' own `lease` is not steady: Redis may have been away.
    """

    def __init__(self, redis: Redis, lease: Lease) -> None:
        self._redis, self._lease = redis, lease
        self._absent: set[str] = set()

    def look(self, processes: Iterable[str]) -> set[str]:
        """Return which of these processes are lost; call it twice a second. Raises RedisError."""
        names = sorted(set(processes))
        alive = commands.alive(self._redis, names)
        absent = {name for name, lives in zip(names, alive, strict=True) if not lives}
        lost = absent & self._absent if self._lease.steady() else set()
        self._absent = absent
        return lost
