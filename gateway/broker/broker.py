"""What the requests of one web process share: the waiting calls, and the way to Redis and back."""

from __future__ import annotations

import logging
import time
import uuid

import gevent
from redis import Redis
from redis.exceptions import RedisError

from gateway.account.api_keys import KeyRecord
from gateway.broker.backlog import Backlog
from gateway.broker.inbox import InboxReader
from gateway.broker.monitor import Monitor
from gateway.broker.pending_call import Buffers, PendingCall
from gateway.broker.submitter import Submission, Submitter
from gateway.errors import (
    CallCancelled,
    Overloaded,
    ShuttingDown,
    WorkerStopped,
)
from gateway.queue import clients, commands, keys
from gateway.queue.lease import Lease
from gateway.queue.protocol import CallSpec, Event
from gateway.settings import Settings

log = logging.getLogger(__name__)

SHUTDOWN_SECONDS = 1  # to wait before the next try: another process has taken over by then
CANCEL_RETRY_SECONDS = 0.5


class Broker:
    """Sends calls to the queue and brings their answers to the requests that wait for them."""

    def __init__(self, settings: Settings, redis: Redis) -> None:
        self.settings = settings
        self.redis = redis
        self.web = f"web-{uuid.uuid4().hex[:12]}"
        self.pending_calls: dict[str, PendingCall] = {}
        self.draining = False
        self.backlog = Backlog()
        self.buffers = Buffers()
        self._started = False
        self._lease = Lease(lambda: clients.commands(settings, 1), self.web)
        self._submitter = Submitter(
            clients.commands(settings, 1), self._cancel, self.backlog.seconds
        )
        self._reader = InboxReader(clients.blocking(settings), self.web, self._on_event)
        self._monitor = Monitor(
            redis, self.web, self._lease, self.pending_calls, self._reader, settings, self.backlog
        )

    def start(self) -> None:
        """Begin to live: lease, reader and monitor. Called again it does nothing."""
        if not self._started:
            self._started = True
            self._lease.start()
            gevent.spawn(self._submitter.run)
            gevent.spawn(self._reader.run)
            gevent.spawn(self._monitor.run)

    def submit(self, spec: CallSpec, body: bytes, key: KeyRecord, budget: float) -> PendingCall:
        """Queue a call that may live `budget` seconds; pass the result to `leave` in the end.

        Raises ShuttingDown and Overloaded. A refusal by Redis ends the call with Overloaded,
        QueueUnavailable, or AuthenticationFailed for a key that was revoked a moment ago.
        """
        self.start()
        if self.draining:
            raise ShuttingDown(retry_after=SHUTDOWN_SECONDS)
        if len(self.pending_calls) >= self.settings.max_in_flight:
            raise Overloaded(retry_after=self.backlog.seconds())
        pending = PendingCall(spec.call_id, budget, self._cancel, self.buffers)
        self.pending_calls[spec.call_id] = pending
        expiry = self._lease.redis_time(clients.IMPATIENT_SECONDS)
        command = commands.submit_command(
            self.settings, spec, body, key.public_id, key.hmac, budget, expiry
        )
        self._submitter.put(Submission(command, pending, key))
        return pending

    def leave(self, pending: PendingCall) -> None:
        """The request has its answer, or has gone: forget the call, and stop it if it runs."""
        if self.pending_calls.pop(pending.call_id, None) is None:
            return
        pending.drop()
        if pending.outcome is None:
            pending.fail(CallCancelled())
            self._cancel(pending)
        else:
            self.backlog.ended(pending.outcome)
            self._monitor.delivered.append(pending.call_id)

    def abandon(self, pending: PendingCall) -> None:
        """The client has gone: end the call, and have its worker stop it.

        Its outcome is left to be read: nobody else tells what it has used.
        """
        if pending.outcome is None:
            self.pending_calls.pop(pending.call_id, None)
            pending.fail(CallCancelled())
            self._cancel(pending)

    def drain(self) -> None:
        """Admit nothing new from now on."""
        self.draining = True

    def end_all(self) -> None:
        """End every call that still waits: queued ones may be sent again, started ones not."""
        jobs = [gevent.spawn(self._end, pending) for pending in list(self.pending_calls.values())]
        gevent.joinall(jobs, timeout=0.5)
        for pending in list(self.pending_calls.values()):
            pending.fail(WorkerStopped())

    def close(self) -> None:
        """Give up the lease, last of all."""
        if self._started:
            self._lease.release()

    def _on_event(self, event: Event) -> None:
        pending = self.pending_calls.get(event.call_id)
        if pending is not None:
            pending.offer(event)

    def _cancel(self, pending: PendingCall) -> None:
        gevent.spawn(self._cancel_until_done, pending.call_id)

    def _end(self, pending: PendingCall) -> None:
        try:
            removed = commands.cancel(self.redis, pending.call_id) == b"removed"
        except RedisError:
            return
        pending.fail(ShuttingDown(retry_after=SHUTDOWN_SECONDS) if removed else WorkerStopped())

    def _cancel_until_done(self, call_id: str) -> None:
        """Keep giving the call up until Redis has heard it, as long as a late submit may come."""
        end = time.monotonic() + keys.CANCEL_SECONDS
        while time.monotonic() < end:
            try:
                commands.cancel(self.redis, call_id)
                return
            except RedisError:
                gevent.sleep(CANCEL_RETRY_SECONDS)
        log.warning("call %s could not be cancelled: Redis is away", call_id)
