"""Liveness: each process renews a key of its own, and others take its absence for death.

A native thread with its own connection renews the key, so that a process with a busy event loop
counts as alive. A process whose event loop has not turned for LOOP_SECONDS counts as dead.

A lease lives long enough for a process that was paused. A process that died is found sooner: its
system closed the connection that renews the lease, while that of a paused process stays open.

Time is Redis' clock (`TIME`) wherever two processes compare it. Each renewal reads it, so
`Lease.redis_time` needs no round trip; it is as exact as half of that renewal's round trip.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, cast

import gevent
from redis import Redis
from redis.exceptions import RedisError

from gateway.queue import keys
from gateway.stalls import Stalls

# Shorter than the 0.5 s between two looks of LostProcesses: a lease that Redis lost is back then.
RENEW_SECONDS = 0.3
GAP_SECONDS = 2.0  # without a renewal: this process stood still, or Redis was away
LEASE_LOOKS = 2  # looks running that find no lease: the process is lost
CONNECTION_LOOKS = 4  # that find its connection closed and no other; a living one opens it again
# After so long without a renewal, others may find the lease gone before a command arrives.
LAPSE_SECONDS = keys.LEASE_MS / 1000 - 2.0
LOOP_SECONDS = 10.0  # without a turn of the event loop: the process is no longer alive
STEADY_SECONDS = 4.0  # of own renewals, before the absence of others means anything


@dataclass(frozen=True, slots=True)
class LeaseState:
    """A lease that is held: the process' calls at once, and the connection that renews it."""

    slots: int = 0
    connection: int = 0  # Redis' id of it; 0: unknown

    def encode(self) -> bytes:
        return b"%d %d" % (self.slots, self.connection)

    @staticmethod
    def decode(value: bytes) -> LeaseState:
        """Read a lease's value; what is not there or not ours counts as 0."""
        slots, _, connection = value.partition(b" ")
        return LeaseState(*(int(word) if word.isdigit() else 0 for word in (slots, connection)))


def leases(
    redis: Redis, processes: Sequence[str], connections: Sequence[int] = ()
) -> tuple[dict[str, LeaseState], set[int]]:
    """Return the leases that are held, and which of these connections Redis has.

    One round trip. A Redis that does not list connections (a proxy, an ACL) has none. Raises
    RedisError.
    """
    with redis.pipeline(transaction=False) as pipeline:
        pipeline.mget([keys.lease(process) for process in processes])
        if connections:
            pipeline.client_list(client_id=list(connections))
        values, *listed = pipeline.execute(raise_on_error=False)
    if isinstance(values, Exception):
        raise values
    held = {
        process: LeaseState.decode(value)
        for process, value in zip(processes, values, strict=True)
        if value is not None
    }
    if not listed or isinstance(listed[0], Exception):
        return held, set()
    return held, {int(client["id"]) for client in listed[0]}


def registered_workers(redis: Redis) -> list[str]:
    """Return the names of all registered workers. Raises RedisError."""
    members = cast("set[bytes]", redis.smembers(keys.RQ_WORKERS))
    return [member.decode().rpartition(":")[2] for member in members]


def live_workers(redis: Redis) -> dict[str, LeaseState]:
    """Return the leases of the registered workers that hold one. Raises RedisError."""
    names = registered_workers(redis)
    return leases(redis, names)[0] if names else {}


class Lease:
    """This process' lease. `connect` makes a client that only the lease uses.

    `slots` is how many calls the process takes at once; other processes read it in the lease.
    `stalls` tells whether the event loop turns. While `useful()` returns False, the lease is not
    renewed: others take the process' calls for lost. The renewing thread calls it.
    """

    def __init__(
        self,
        connect: Callable[[], Redis],
        process: str,
        slots: int = 0,
        stalls: Stalls | None = None,
        useful: Callable[[], bool] = lambda: True,
    ) -> None:
        self.process = process
        self.slots = slots
        self._connect = connect
        self.connection = 0  # Redis' id of the connection that renews; 0: unknown
        self._stalls = stalls or Stalls()
        self._useful = useful
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

        The first renewal over a connection takes two, to write the connection's id. Where Redis
        does not answer, the lease is no longer steady.
        """
        now = time.monotonic()
        try:
            with redis.pipeline(transaction=False) as pipeline:
                state = LeaseState(self.slots, self.connection)
                pipeline.set(keys.lease(self.process), state.encode(), px=keys.LEASE_MS)
                pipeline.time()
                pipeline.client_id()
                _, (seconds, microseconds), connection = pipeline.execute()
        except RedisError:
            self._steady_since = None
            return
        if connection != self.connection:
            self.connection = connection
            self.renew(redis)
            return
        self._clock = seconds + microseconds / 1e6 - (now + time.monotonic()) / 2
        if self._steady_since is None or now - self._renewed > GAP_SECONDS:
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

    def lapsed(self) -> bool:
        """Return whether others may take this process for lost, until it has renewed the lease."""
        return self._renewed > 0 and time.monotonic() - self._renewed > LAPSE_SECONDS

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
            if self._stalls.silence() < LOOP_SECONDS and self._useful():
                self.renew(redis)
            time.sleep(RENEW_SECONDS)
        try:
            redis.delete(keys.lease(self.process))
        except RedisError:
            pass  # it expires by itself
        redis.connection_pool.disconnect()


class LostProcesses:
    """Finds out which processes are lost: several looks running found no sign of life.

    A sign of life is a lease, and that Redis has the connection that renews it. Closed connections
    count only while Redis lists this process' own. Nobody is lost while this process' own `lease`
    is not steady: Redis may have been away, or this process stood still.
    """

    def __init__(self, redis: Redis, lease: Lease) -> None:
        self._redis, self._lease = redis, lease
        self._leases: dict[str, LeaseState] = {}  # at the last look
        self._silent: dict[str, int] = {}  # looks running without a sign of life

    def look(self, processes: Iterable[str]) -> set[str]:
        """Return which of these processes are lost; call it twice a second. Raises RedisError."""
        names = sorted(set(processes))
        if not names:
            self._leases, self._silent = {}, {}
            return set()
        own = self._lease.connection
        before = self._leases
        connections = {lease.connection for lease in before.values()} | {own}
        self._leases, open_ = leases(self._redis, names, sorted(connections - {0}))
        silent = {}
        for name in names:
            lease = self._leases.get(name)
            if lease is None or (
                own in open_  # Redis does list connections
                and lease == before.get(name)
                and lease.connection not in (0, *open_)
            ):
                silent[name] = self._silent.get(name, 0) + 1
        self._silent = silent
        if not self._lease.steady():
            return set()
        return {
            name
            for name, looks in silent.items()
            if looks >= (CONNECTION_LOOKS if name in self._leases else LEASE_LOOKS)
        }
