"""What the requests of one web process share: the waiting calls, and the way to Redis and back."""

from __future__ import annotations

import logging
import time
import uuid

import gevent
from redis import Redis
from redis.exceptions import RedisError

from api.backlog import Backlog
from api.inbox import InboxReader
from api.monitor import Monitor
from api.submitter import Submission, Submitter
from api.waiter import Buffers, Waiter
from gateway import connections, dispatch, keyspace
from gateway.channel import Event, Plan
from gateway.errors import (
    CallCancelled,
    Overloaded,
    ShuttingDown,
    WorkerStopped,
)
from gateway.keys import KeyRecord
from gateway.lease import Lease
from gateway.settings import Settings

log = logging.getLogger(__name__)

SHUTDOWN_SECONDS = 1  # to wait before the next try: another process has taken over by then
CANCEL_RETRY_SECONDS = 0.5


class Exchange:
    """Sends calls to the queue and brings their answers to the requests that wait for them."""

    def __init__(self, settings: Settings, redis: Redis) -> None:
        self.settings = settings
        self.redis = redis
        self.web = f"web-{uuid.uuid4().hex[:12]}"
        self.waiters: dict[str, Waiter] = {}
        self.draining = False
        self.backlog = Backlog()
        self.buffers = Buffers()
        self._started = False
        self._lease = Lease(lambda: connections.commands(settings, 1), self.web)
        self._submitter = Submitter(
            connections.commands(settings, 1), self._cancel, self.backlog.seconds
        )
        self._reader = InboxReader(connections.blocking(settings), self.web, self._on_event)
        self._monitor = Monitor(
            redis, self.web, self._lease, self.waiters, self._reader, settings, self.backlog
        )

    def start(self) -> None:
        """Begin to live: lease, reader and monitor. Called again it does nothing."""
        if not self._started:
            self._started = True
            self._lease.start()
            gevent.spawn(self._submitter.run)
            gevent.spawn(self._reader.run)
            gevent.spawn(self._monitor.run)

    def submit(self, plan: Plan, body: bytes, key: KeyRecord, budget: float) -> Waiter:
        """Queue a call that may live `budget` seconds; give the waiter back to `leave` in the end.

        Raises ShuttingDown and Overloaded. What Redis says against it ends the waiter: Overloaded,
        QueueUnavailable, or AuthenticationFailed for a key revoked a moment ago.
        """
        self.start()
        if self.draining:
            raise ShuttingDown(retry_after=SHUTDOWN_SECONDS)
        if len(self.waiters) >= self.settings.max_in_flight:
            raise Overloaded(retry_after=self.backlog.seconds())
        waiter = Waiter(plan.call_id, budget, self._cancel, self.buffers)
        self.waiters[plan.call_id] = waiter
        expiry = self._lease.redis_time(connections.IMPATIENT_SECONDS)
        command = dispatch.submit_command(self.settings, plan, body, key, budget, expiry)
        self._submitter.put(Submission(command, waiter, key))
        return waiter

    def leave(self, waiter: Waiter) -> None:
        """The request has its answer, or has gone: forget the call, and stop it if it runs."""
        if self.waiters.pop(waiter.call_id, None) is None:
            return
        waiter.drop()
        if waiter.outcome is None:
            waiter.fail(CallCancelled())
            self._cancel(waiter)
        else:
            self.backlog.ended(waiter.outcome)
            self._monitor.delivered.append(waiter.call_id)

    def abandon(self, waiter: Waiter) -> None:
        """The client has gone: end the call, and have its worker stop it.

        Its outcome is left to be read: nobody else tells what it has used.
        """
        if waiter.outcome is None:
            self.waiters.pop(waiter.call_id, None)
            waiter.fail(CallCancelled())
            self._cancel(waiter)

    def drain(self) -> None:
        """Admit nothing new from now on."""
        self.draining = True

    def end_all(self) -> None:
        """End every call that still waits: queued ones may be sent again, started ones not."""
        jobs = [gevent.spawn(self._end, waiter) for waiter in list(self.waiters.values())]
        gevent.joinall(jobs, timeout=0.5)
        for waiter in list(self.waiters.values()):
            waiter.fail(WorkerStopped())

    def close(self) -> None:
        """Give up the lease, last of all."""
        if self._started:
            self._lease.release()

    def _on_event(self, event: Event) -> None:
        waiter = self.waiters.get(event.call_id)
        if waiter is not None:
            waiter.offer(event)

    def _cancel(self, waiter: Waiter) -> None:
        gevent.spawn(self._cancel_until_done, waiter.call_id)

    def _end(self, waiter: Waiter) -> None:
        try:
            removed = dispatch.cancel(self.redis, waiter.call_id) == b"removed"
        except RedisError:
            return
        waiter.fail(ShuttingDown(retry_after=SHUTDOWN_SECONDS) if removed else WorkerStopped())

    def _cancel_until_done(self, call_id: str) -> None:
        """Keep giving the call up until Redis has heard it, as long as a late submit may come."""
        end = time.monotonic() + keyspace.CANCEL_SECONDS
        while time.monotonic() < end:
            try:
                dispatch.cancel(self.redis, call_id)
                return
            except RedisError:
                gevent.sleep(CANCEL_RETRY_SECONDS)
        log.warning("call %s could not be cancelled: Redis is away", call_id)
