"""What the requests of one web process share: the waiting calls, and the way to Redis and back."""

from __future__ import annotations

import logging
import math
import time
import uuid
from collections.abc import Callable
from contextlib import suppress

import gevent
from redis import Redis
from redis.exceptions import RedisError

from gateway.account.refusals import logs_full
from gateway.broker.backlog import Backlog
from gateway.broker.cached import CachedCalls
from gateway.broker.inbox import InboxReader
from gateway.broker.key_changes import KeyChanges
from gateway.broker.monitor import NO_WORKERS_RETRY_SECONDS, Monitor
from gateway.broker.pending_call import Buffers, PendingCall
from gateway.broker.places import Places
from gateway.broker.submitter import Submission, Submitter
from gateway.errors import (
    CallCancelled,
    NoWorkers,
    Overloaded,
    ShuttingDown,
    WorkerStopped,
)
from gateway.queue import clients, commands, event_logs, keys
from gateway.queue.clients import DedicatedConnection
from gateway.queue.lease import Lease, live_workers
from gateway.queue.protocol import OUTCOME, AdmissionRequest, CallSpec, Event
from gateway.settings import Settings
from gateway.stalls import Stalls

log = logging.getLogger(__name__)

SHUTDOWN_SECONDS = 1  # to wait before the next try: another process has taken over by then
CANCEL_RETRY_SECONDS = 0.5
# A larger response is removed from Redis at once, not by the monitor's next tick: until then, its
# worker may have no room for another (providers/http/budget.py).
LARGE_BYTES = 1 << 16


class Broker:
    """Sends calls to the queue and brings their answers to the requests that wait for them.

    Create one in each process that submits calls. `redis` is for short commands. The broker starts
    `stalls`, which its timers and the clients go by. `on_key_change` is called with the public id
    of each key that any process has changed, half a second later at most.
    """

    def __init__(
        self,
        settings: Settings,
        redis: Redis,
        stalls: Stalls | None = None,
        on_key_change: Callable[[str], object] = lambda public_id: None,
    ) -> None:
        self.settings = settings
        self.redis = redis
        self.stalls = stalls = stalls or Stalls()
        self.web = f"web-{uuid.uuid4().hex[:12]}"
        # By the id of the call; one that follows a log by itself, because others may as well.
        self.pending_calls: dict[str | PendingCall, PendingCall] = {}
        self.draining = False
        self.backlog = Backlog()
        self.buffers = Buffers(stalls.awake)
        self.places = Places(settings.max_in_flight)
        self.started = False
        self._greenlets: list[gevent.Greenlet] = []
        self.lease = Lease(lambda: clients.commands(settings, 1), self.web, stalls=stalls)
        self.submitter = Submitter(
            settings,
            DedicatedConnection(clients.commands(settings, 1, stalls)),
            self.lease.redis_time,
            self._cancel,
            self.backlog.seconds,
        )
        self.cached = CachedCalls(redis, self.submitter.put)
        self.reader = InboxReader(
            DedicatedConnection(clients.blocking(settings, stalls)), self.web, self.deliver
        )
        self.monitor = Monitor(
            redis,
            self.web,
            self.lease,
            self.pending_calls,
            self.reader,
            settings,
            self.backlog,
            stalls.awake,
        )

        end_calls = self.monitor.end_calls_of_revoked_keys
        self.changes = KeyChanges(redis, on_key_change, after=end_calls)

    def start(self) -> None:
        """Start the lease and all loops (submitter, inbox reader, monitor), unless started."""
        if not self.started:
            self.started = True
            self.stalls.start()
            self.lease.start()
            loops = (
                self.submitter.run,
                self.reader.run,
                self.monitor.run,
                self.monitor.watch_deadlines,
                self.changes.run,
            )
            self._greenlets = [gevent.spawn(loop) for loop in loops]

    def working(self) -> bool:
        """Whether none of the loops that `start` started has ended."""
        return not any(greenlet.ready() for greenlet in self._greenlets)

    def submit(
        self,
        spec: CallSpec,
        body: bytes,
        admission: AdmissionRequest,
        budget: float,
        logged_request: bytes = b"",
    ) -> PendingCall:
        """Queue a call that may live `budget` seconds, its delay included; pass the result to
        `leave` in the end.

        A logged call is followed, and goes on when it is left. `logged_request` is what other
        processes need to render it, unless it is stored; `event_logs.logged_request` returns it.

        Raises ShuttingDown, Overloaded, PayloadTooLarge, and NoWorkers if none has lived for a
        while. Where Redis refuses the call, the pending call ends with Overloaded, PayloadTooLarge,
        QueueUnavailable, AuthenticationFailed for a key that was just revoked, or KeyChanged for
        one that has other limits or models than this process knows. Raises RedisError where a
        logged call cannot be stored, and RateLimited or Overloaded where there is no room for it.
        """
        self._require_open()
        if self.monitor.no_workers and not self.has_workers():
            raise NoWorkers(retry_after=NO_WORKERS_RETRY_SECONDS)
        pending = PendingCall(spec.call_id, budget, self._cancel_plain, self.buffers)
        pending.key = admission.public_id
        pending.account, pending.route = spec.account, spec.targets[0].route
        pending.estimate, pending.retry = admission.estimate(), admission.retry
        pending.since += admission.delay  # it waits for workers only from then on
        self._register(pending, spec.web)
        try:
            if logged_request:
                self._store(admission.public_id, spec.web, logged_request, budget)
            if pending.logged:
                self._follow(pending)
            (self.cached if spec.cache else self.submitter).put(
                Submission(spec, body, pending, admission)
            )
        except BaseException:
            self._forget(pending)
            raise
        return pending

    def follow(self, call_id: str, address: str, key: str) -> PendingCall:
        """Wait for the events of a logged call, from its first one on, and for its outcome.

        `key` is the public id of the key whose place it takes. Pass the result to `leave` in the
        end; the call goes on. Raises ShuttingDown and Overloaded.
        """
        self._require_open()
        pending = PendingCall(call_id, math.inf, self._cancel_plain, self.buffers)
        pending.key, pending.submitted = key, True
        self._register(pending, address)
        self._follow(pending)
        return pending

    def has_workers(self) -> bool:
        """Whether a worker lives; True if Redis does not answer."""
        try:
            return bool(live_workers(self.redis))
        except RedisError:
            return True

    def leave(self, pending: PendingCall) -> None:
        """Forget a call whose request has ended, and stop it if it still runs and has no log.

        Calling it again changes nothing.
        """
        if not self._forget(pending):
            return
        pending.drop()
        if pending.outcome is None:
            pending.stop(CallCancelled())
        else:
            self.backlog.ended(pending.outcome)
            self.monitor.delivered.append(pending.call_id)
            if len(pending.outcome.answer) > LARGE_BYTES:
                gevent.spawn(self._remove, pending.call_id)

    def abandon(self, pending: PendingCall) -> None:
        """End a call whose client has gone, and have its worker stop it unless it has a log."""
        if pending.outcome is None:
            self._forget(pending)
            pending.stop(CallCancelled())

    def drain(self) -> None:
        """Admit nothing new from now on."""
        self.draining = True

    def end_all(self) -> None:
        """End all calls that wait. Clients may send queued calls again, but not started ones."""
        jobs = [gevent.spawn(self._end, pending) for pending in list(self.pending_calls.values())]
        gevent.joinall(jobs, timeout=0.5)
        for pending in list(self.pending_calls.values()):
            pending.fail(WorkerStopped())

    def close(self) -> None:
        """Give up the lease. Call it last."""
        if self.started:
            self.lease.release()
            self.stalls.stop()

    def deliver(self, event: Event) -> None:
        """Pass an event to the call that waits for it, if one does."""
        pending = self.pending_calls.get(event.call_id)
        if pending is not None:
            pending.offer(event)
        elif event.kind == OUTCOME and not event.call_id:  # see outcome_event
            gevent.spawn(self._fetch, event.payload.decode())

    def _fetch(self, call_id: str) -> None:
        """End a call with the outcome that Redis has. If that fails, the monitor's sweep does.

        An outcome that nobody waits for any more is removed.
        """
        pending = self.pending_calls.get(call_id)
        if pending is None:
            self._remove(call_id)
            return
        with suppress(RedisError):
            [outcome] = commands.outcomes(self.redis, [call_id])
            if outcome is None:
                return
            pending.end(outcome)
            if pending.outcome is not outcome:
                self._remove(call_id)

    def _remove(self, call_id: str) -> None:
        """Remove an outcome from Redis. If that fails, the monitor does it, or it expires."""
        with suppress(RedisError):
            self.redis.unlink(keys.outcome(call_id))

    def _forget(self, pending: PendingCall) -> bool:
        """Free the place of a call; return whether it had one."""
        name = pending if pending.logged else pending.call_id
        if self.pending_calls.pop(name, None) is None:
            return False
        self.places.give_back(pending.key)
        if pending.logged:
            self.reader.unfollow(pending)
        return True

    def _require_open(self) -> None:
        self.start()
        if self.draining:
            raise ShuttingDown(retry_after=SHUTDOWN_SECONDS)

    def _register(self, pending: PendingCall, address: str) -> None:
        pending.address, pending.logged = address, keys.is_log(address)
        if not self.places.take(pending.key):
            raise Overloaded(retry_after=self.backlog.seconds())
        self.pending_calls[pending if pending.logged else pending.call_id] = pending

    def _store(self, key: str, address: str, logged_request: bytes, budget: float) -> None:
        try:
            event_logs.store_logged_request(self.redis, key, address, logged_request, budget)
        except event_logs.LogsFull as full:
            raise logs_full(full.bytes, full.reset_ms) from None

    def _follow(self, pending: PendingCall) -> None:
        """Have the reader read the log as well, without waiting for its present read to end."""
        if self.reader.follow(pending):
            gevent.spawn(self._wake_reader)

    def _wake_reader(self) -> None:
        try:
            commands.wake_reader(self.redis, self.web)
        except RedisError:
            pass  # its read ends within clients.BLOCK_SECONDS

    def _cancel_plain(self, pending: PendingCall) -> None:
        if not pending.logged:
            self._cancel(pending)

    def _cancel(self, pending: PendingCall) -> None:
        gevent.spawn(self._cancel_until_done, pending.call_id)

    def _end(self, pending: PendingCall) -> None:
        error = ShuttingDown(retry_after=SHUTDOWN_SECONDS)
        if pending.logged:  # it goes on, and another process may follow it
            pending.fail(error)
            return
        try:
            removed = commands.cancel(self.redis, pending.call_id, error) == b"removed"
        except RedisError:
            return
        pending.fail(error if removed else WorkerStopped())

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
