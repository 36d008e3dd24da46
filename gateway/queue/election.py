"""Lets one of many processes do a task: the one that holds a lease in Redis."""

from __future__ import annotations

import time

from redis import Redis
from redis.exceptions import RedisError

TTL_MS = 10_000  # as the lease of a process
RENEW_SECONDS = 2.0  # between two renewals


class Election:
    """The candidacy of the process `name` for the task whose lease is the Redis key `lease`.

    Two processes may hold it for a moment, when Redis or the first of them stood still. The task
    must bear that.
    """

    def __init__(self, redis: Redis, lease: str, name: str) -> None:
        self._redis, self._lease, self._name = redis, lease, name.encode()
        self._renewed = -RENEW_SECONDS

    def won(self) -> bool:
        """Return whether this process is the one; call it before each step. Raises RedisError."""
        now = time.monotonic()
        if now - self._renewed < RENEW_SECONDS:
            return True
        holder = self._redis.set(self._lease, self._name, nx=True, px=TTL_MS, get=True)
        if holder not in (None, self._name):
            return False
        if holder is not None:
            self._redis.pexpire(self._lease, TTL_MS)
        self._renewed = now
        return True

    def resign(self) -> None:
        """Let another process be elected at once, if Redis answers."""
        self._renewed = -RENEW_SECONDS
        try:
            if self._redis.get(self._lease) == self._name:
                self._redis.delete(self._lease)
        except RedisError:
            pass  # the lease expires by itself
