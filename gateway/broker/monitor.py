"""Looks after the waiting calls of a web process when no event comes.

The inbox is for speed; the job, the outcome and the leases in Redis are the truth. Lost events,
dead workers and an emptied Redis are found here.
"""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import gevent
from redis import Redis
from redis.exceptions import RedisError, ResponseError

from gateway.account.api_keys import incorrect, revoked
from gateway.broker.backlog import Backlog
from gateway.broker.inbox import BEGINNING, InboxReader, trim_command
from gateway.broker.pending_call import PendingCall
from gateway.errors import (
    AuthenticationFailed,
    DeadlineExceeded,
    GatewayError,
    JobLost,
    NoWorkers,
    ReplyLost,
    WorkerLost,
)
from gateway.logs import log_fault
from gateway.memory import Collector
from gateway.queue import commands, keys
from gateway.queue.commands import JobState
from gateway.queue.lease import Lease, LostProcesses, live_workers, registered_workers
from gateway.queue.protocol import Outcome
from gateway.settings import Settings

log = logging.getLogger(__name__)

TICK_SECONDS = 0.5  # between two looks at the pending calls and the workers' leases
TRIM_EVERY = 2  # ticks
SWEEP_EVERY = 4  # ticks
BEHIND_SECONDS = 3.0  # since all events of the inbox were read: some may lie there
UNKNOWN_SECONDS = 5.0  # in which a worker announces a call that Redis has lost
SWEEP_BATCH = 200  # calls asked about in one round trip: keeps the event loop turning
OVERDUE_SECONDS = 2.0  # since a tick saw that the deadline passed: its worker had its chance
REVOKED_EVERY = 4  # ticks between two looks for revoked keys
LOOK_EVERY = 2  # ticks between two looks at the backlog
WAITING = ("queued", "deferred")  # deferred: for room among the calls of its key or owner
NO_WORKERS_RETRY_SECONDS = 5.0  # least: somebody has to start a worker


class Monitor:
    """Sweeps the pending calls of one web process, and tidies its keys.

    `clock` measures how long others are silent: seconds while this process was able to look.
    """

    def __init__(
        self,
        redis: Redis,
        web: str,
        lease: Lease,
        pending_calls: Mapping[Any, PendingCall],
        reader: InboxReader,
        settings: Settings,
        backlog: Backlog,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.delivered: list[str] = []  # calls whose outcome may be removed
        self._redis, self._web = redis, web
        self._pending_calls, self._reader, self._settings = pending_calls, reader, settings
        self._backlog, self._clock = backlog, clock
        self._lease = lease
        self._lost_workers = LostProcesses(redis, lease)
        self._lost: set[str] = set()  # workers, at the last look
        self._watched: set[str] = set()  # all workers, while calls are queued
        self._workers_seen = self._clock()
        self._collector = Collector()
        self._ticks = 0

    def run(self) -> None:
        """Tick every TICK_SECONDS, for ever."""
        while True:
            gevent.sleep(TICK_SECONDS)
            self.tick()

    def watch_deadlines(self) -> None:
        """Check deadlines every TICK_SECONDS, for ever; a slow Redis does not delay it."""
        while True:
            gevent.sleep(TICK_SECONDS)
            self.check_deadlines()

    def tick(self) -> None:
        """Do everything that is due; failures are logged."""
        self._ticks += 1
        self._collector.tick(busy=bool(self._pending_calls))
        try:
            self.find_workers()
            self.end_lost_calls()
            if self._ticks % TRIM_EVERY == 0:
                self.tidy()
            if self._ticks % SWEEP_EVERY == 0:
                self.look_for_workers()
                self.sweep()
            if self._ticks % REVOKED_EVERY == 0:
                self.end_calls_of_revoked_keys()
            if self._ticks % LOOK_EVERY == 0 and self._backlog.wanted:
                self._backlog.look(self._redis)
        except RedisError as error:
            log.warning("monitor: Redis is away (%s)", type(error).__name__)
        except Exception as error:
            # Without this greenlet a lost worker would hang its callers: it must go on.
            log_fault(log, error, "monitor")

    @property
    def no_workers(self) -> bool:
        """Whether Redis has shown no live worker for NO_WORKERS_SECONDS."""
        return self._clock() - self._workers_seen > self._settings.no_workers_after

    def look_for_workers(self) -> None:
        """Note whether a worker lives. Raises RedisError, which says nothing about workers."""
        alive = True
        try:
            alive = bool(live_workers(self._redis))
        finally:
            if alive:
                self._workers_seen = self._clock()

    def check_deadlines(self) -> None:
        """Nudge the calls that asked for it, and end those that are overdue. Needs no Redis."""
        now = time.monotonic()
        for pending in list(self._pending_calls.values()):
            if pending.nudge_at is not None and now >= pending.nudge_at:
                pending.nudge()
            if now <= pending.deadline or pending.outcome is not None:
                continue
            # The outcome may lie in the socket of a process that stood still.
            pending.overdue_since = pending.overdue_since or self._clock()
            if self._clock() - pending.overdue_since > OVERDUE_SECONDS:
                pending.fail(DeadlineExceeded())
                gevent.spawn(_cancel_quietly, self._redis, pending.call_id)

    def find_workers(self) -> None:
        """Ask Redis where the calls run that take longer than a tick. Raises RedisError.

        While some are queued, all workers are watched: perhaps none is left.
        """
        since = time.monotonic() - TICK_SECONDS
        waiting = [w for w in self._waiting() if not w.worker and w.since < since]
        queued = []
        for start in range(0, len(waiting), SWEEP_BATCH):
            batch = waiting[start : start + SWEEP_BATCH]
            states = commands.states(self._redis, [pending.call_id for pending in batch])
            for pending, state in zip(batch, states, strict=True):
                if state.status == "started":
                    pending.started(state.worker, state.claim, state.retry)
                elif state.status in WAITING:
                    queued.append(pending)
        self._watched = set(registered_workers(self._redis)) if queued else set()
        self._end_without_workers(queued)

    def end_lost_calls(self) -> None:
        """End the calls of workers that are lost, or have them run once more; call it every tick.

        Raises RedisError.
        """
        workers = {pending.worker for pending in self._pending_calls.values() if pending.worker}
        self._lost = lost = self._lost_workers.look(workers | self._watched)
        for pending in list(self._pending_calls.values()):
            if pending.worker in lost and not self._retried(pending):
                self._settle(pending, WorkerLost())

    def end_calls_of_revoked_keys(self) -> None:
        """Stop the calls whose key was revoked since they were accepted. Raises RedisError."""
        names = {pending.key for pending in self._pending_calls.values() if pending.key}
        gone = revoked(self._redis, names) if names else set()
        for pending in list(self._pending_calls.values()) if gone else ():
            if pending.key in gone and pending.outcome is None:
                pending.stop(AuthenticationFailed(incorrect(pending.key)))
                if pending.logged:
                    commands.cancel(self._redis, pending.call_id)

    def tidy(self) -> None:
        """Remove delivered outcomes and inbox entries that were read. Raises RedisError."""
        delivered, self.delivered = self.delivered, []
        inbox = keys.inbox(self._web)
        try:
            with self._redis.pipeline(transaction=False) as pipeline:
                if delivered:
                    pipeline.unlink(*map(keys.outcome, delivered))
                if self._reader.last != BEGINNING:
                    pipeline.execute_command(*trim_command(inbox, self._reader.last))
                    pipeline.expire(inbox, keys.INBOX_SECONDS)
                if pipeline.command_stack:
                    pipeline.execute()
        except RedisError:
            self.delivered += delivered
            raise

    def sweep(self) -> None:
        """Compare all waiting calls with what Redis knows of them. Raises RedisError."""
        waiting = self._waiting()
        for start in range(0, len(waiting), SWEEP_BATCH):
            self._sweep_batch(waiting[start : start + SWEEP_BATCH])

    def _waiting(self) -> list[PendingCall]:
        return [w for w in self._pending_calls.values() if w.submitted and w.outcome is None]

    def _sweep_batch(self, pending_calls: list[PendingCall]) -> None:
        states = commands.states(self._redis, [pending.call_id for pending in pending_calls])
        ended: list[PendingCall] = []
        queued: list[PendingCall] = []
        for pending, state in zip(pending_calls, states, strict=True):
            if state.status:
                pending.unknown_since = 0.0
            if state.status == "started":
                pending.started(state.worker, state.claim, state.retry)
            elif state.status in WAITING:
                queued.append(pending)
            else:
                ended.append(pending)
        if ended:
            self._fetch_outcomes(
                ended, dict(zip((w.call_id for w in pending_calls), states, strict=True))
            )
        self._backlog.wanted |= bool(queued)
        self._end_without_workers(queued)

    def _fetch_outcomes(
        self, pending_calls: list[PendingCall], states: dict[str, JobState]
    ) -> None:
        outcomes = commands.outcomes(self._redis, [pending.call_id for pending in pending_calls])
        for pending, outcome in zip(pending_calls, outcomes, strict=True):
            if pending.logged:
                self._look_at_log(pending, states[pending.call_id].status)
            elif outcome is not None:
                self._apply(pending, outcome)
            elif not self._may_run(pending, states[pending.call_id].status):
                pending.fail(_vanished(states[pending.call_id].status))

    def _may_run(self, pending: PendingCall, status: str) -> bool:
        """Whether a started call that Redis does not know may still run. Raises RedisError.

        Redis has lost its job, or it has ended and its outcome is lost. Its worker is asked, and
        announces the call if it runs it. If the worker is dead, its lease is missing.
        """
        if not pending.worker or status != "":
            return False
        pending.unknown_since = pending.unknown_since or self._clock()
        commands.ask_worker(self._redis, pending.worker, [pending.call_id])
        return self._clock() - pending.unknown_since < UNKNOWN_SECONDS

    def _apply(self, pending: PendingCall, outcome: Outcome) -> None:
        """Use an outcome that the inbox has not brought; its events may be on their way."""
        if outcome.last == pending.received or outcome.error is not None:
            pending.end(outcome)
        elif pending.suspect != pending.received:
            pending.suspect, pending.suspect_since = pending.received, time.monotonic()
        elif self._reader.caught_up > pending.suspect_since:
            # Its events were there before the outcome, and all that was there has been read.
            pending.fail(ReplyLost())

    def _look_at_log(self, pending: PendingCall, status: str) -> None:
        """End a logged call that has ended, and whose log has been read and has no outcome."""
        if pending.suspect != pending.received or not pending.has_room():
            pending.suspect, pending.suspect_since = pending.received, time.monotonic()
        elif self._reader.caught_up > pending.suspect_since and not self._may_run(pending, status):
            pending.fail(_vanished(status))

    def _retried(self, pending: PendingCall) -> bool:
        """Queue a call once more whose worker is lost; return whether it does or still may."""
        # For a logged call, Redis knows whether it may, and whether its log has an event.
        if not pending.logged:
            if not pending.retry or pending.received:
                return False
            if time.monotonic() - self._reader.caught_up > BEHIND_SECONDS:
                return True
        claim = pending.claim
        try:
            retried = commands.retry(self._redis, pending.call_id, claim, pending.address)
        except ResponseError:  # Redis may be read-only
            return False
        except RedisError:  # it may have run: the next tick asks again
            return True
        if retried:
            pending.retried(claim)
        return retried

    def _settle(self, pending: PendingCall, error: GatewayError) -> None:
        """End a started call in Redis as well, so that a late outcome of it is refused.

        The outcome of a logged call comes back from its log, to all who follow it.
        """
        try:
            estimate = pending.estimate or commands.estimate(self._redis, pending.call_id)
            ending = commands.lost_commands(
                pending.call_id,
                pending.claim,
                pending.address,
                pending.worker,
                error,
                estimate,
                pending.written(),
                pending.received,
            )
            if not commands.finish(self._redis, ending):
                return  # it has an outcome already: the next sweep finds it
        except RedisError as failure:
            # Redis may be read-only. The caller need not wait: the first outcome here stands.
            log.warning("monitor: a loss was not recorded (%s)", type(failure).__name__)
        if not pending.logged:
            pending.fail(error)

    def _end_without_workers(self, queued: Iterable[PendingCall]) -> None:
        limit = time.monotonic() - self._settings.no_workers_after
        # Who attached to a call does not decide about it.
        waiting = [each for each in queued if each.since < limit and each.deadline < math.inf]
        if not waiting or not self._lease.steady():
            return
        if set(live_workers(self._redis)) - self._lost:
            return
        seconds = max(self._backlog.seconds(len(waiting)), NO_WORKERS_RETRY_SECONDS)
        for pending in waiting:
            error = NoWorkers(retry_after=seconds)
            if pending.lost_claim is not None:  # its log says so too
                error.should_retry = False
            if commands.cancel(self._redis, pending.call_id, error) == b"removed":
                pending.fail(error)


def _vanished(status: str) -> GatewayError:
    if status == "canceled":  # by a worker that took this process for dead; it never started
        return JobLost("The queue dropped this call before it was started.", should_retry=True)
    return ReplyLost() if status in ("finished", "failed") else JobLost()


def _cancel_quietly(redis: Redis, call_id: str) -> None:
    try:
        commands.cancel(redis, call_id, DeadlineExceeded())
    except RedisError:
        pass  # its worker ends it by the same deadline
