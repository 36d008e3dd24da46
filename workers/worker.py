"""The concurrent RQ worker: one process, up to a thousand calls at once.

RQ's `BaseWorker` gives it its name, its registration and its records; the loop, the claims, the
signals and the end of a job are its own, because RQ's run one job at a time.
"""

from __future__ import annotations

import logging
import signal
import time
import uuid
from dataclasses import dataclass
from typing import Any, cast

import gevent
from gevent.event import Event as Signal
from gevent.pool import Pool
from redis import Redis
from redis.exceptions import RedisError, ResponseError
from rq.serializers import JSONSerializer
from rq.utils import now
from rq.worker import BaseWorker, WorkerStatus
from rq.worker_registration import clean_worker_registry

from gateway.errors import (
    CallCancelled,
    DeadlineExceeded,
    GatewayError,
    ReplyLost,
    StopCall,
    WorkerStopped,
)
from gateway.logs import where
from gateway.memory import Collector
from gateway.queue import clients, commands, keys
from gateway.queue.lease import Lease
from gateway.queue.protocol import Outcome
from gateway.settings import Settings
from workers.breaker import Breakers
from workers.claims import Claims
from workers.outbox import Outbox, Sender
from workers.runner import CallRunner, Claimed, opened

log = logging.getLogger(__name__)

TICK_SECONDS = 0.5
RECORDS_EVERY = 2  # ticks between two renewals of RQ's records
CANCEL_LOOKS = 20  # ticks that a cancelled call is looked for
WORKER_TTL = 20  # seconds RQ's record outlives its last renewal, besides RQ's own 60
STOP_SECONDS = 1.0  # for stopped calls to write their outcome
FLUSH_SECONDS = 1.0  # for the last writes
# A claim judges by what was known when it was sent. It may have waited for the bell, but not for a
# Redis that stood still as long as a lease lives.
JUDGE_SECONDS = clients.BLOCK_SECONDS + 1.0


@dataclass(slots=True)
class Running:
    """A call that this worker runs, and the greenlet that does."""

    claimed: Claimed
    greenlet: Any = None
    started: bool = False  # a greenlet killed before its first step would end without an outcome


class CallWorker(BaseWorker):  # type: ignore[misc]
    """A worker for the queue of calls; `work()` returns when it was told to stop."""

    def __init__(
        self, settings: Settings, runner: CallRunner, breakers: Breakers | None = None
    ) -> None:
        name = f"worker-{uuid.uuid4().hex[:12]}"
        self.settings = settings
        # Bell, outbox and lease have a connection each; what is left is for commands.
        super().__init__(
            [keys.QUEUE],
            name=name,
            connection=clients.commands(settings, settings.redis_connections - 3),
            serializer=JSONSerializer,
            worker_ttl=WORKER_TTL,
            log_job_description=False,
        )
        self.pool = Pool(settings.worker_concurrency)
        self.lease = Lease(lambda: clients.commands(settings, 1), name, self.pool.size)
        self.outbox = Outbox(clients.blocking(settings))
        self.claims = Claims(self.connection, clients.blocking(settings), name, self._judge_until)
        self.runner = runner
        self.breakers = breakers or Breakers()
        self.breakers.share(self.outbox.put, self.connection)
        self.running: dict[str, Running] = {}
        self.cancelled: dict[str, int] = {}  # calls to stop, and how often they were looked for
        self.stopping = Signal()
        self.suspended = False
        self._missing_webs: set[str] = set()

    def _set_connection(self, connection: Redis) -> Redis:
        # RQ would raise the pool's read timeout to fit its own blocking pop, which is not used.
        return connection

    def work(self, *args: Any, **kwargs: Any) -> bool:
        """Run calls until SIGTERM or SIGINT, then drain; whether every outcome was written."""
        self._install_signal_handlers()
        self._register()
        self.lease.start()
        self.outbox.start()
        ticker = gevent.spawn(self._tick)
        log.info("worker %s: ready for %d calls at once", self.name, self.pool.size)
        while not self.stopping.is_set():
            self._take_calls()
        done = self._drain()
        ticker.kill()
        self._leave()
        return done

    def stop(self) -> None:
        """Take no more calls and drain; calling it again changes nothing."""
        if not self.stopping.is_set():
            log.info("worker %s: stopping, %d calls running", self.name, len(self.running))
        self.stopping.set()
        self.lease.slots = 0  # others see it at the next renewal
        self.claims.interrupt()

    def _judge_until(self) -> float:
        return self.lease.redis_time(JUDGE_SECONDS) if self.lease.steady() else 0.0

    def _install_signal_handlers(self) -> None:
        # RQ's raise in whatever frame runs, and kill at the second signal; Heroku may send several.
        for number in (signal.SIGTERM, signal.SIGINT):
            gevent.signal_handler(number, self.stop)

    def _register(self) -> None:
        while not self.stopping.is_set():
            try:
                clean_worker_registry(self.queues[0])  # of workers that were killed
                # The name is new: a record under it is our own, of a try whose reply was lost.
                self.connection.delete(self.key)
                self.register_birth()
                self.set_state(WorkerStatus.IDLE)
                return
            except RedisError as error:
                log.warning("worker %s: Redis is away (%s)", self.name, type(error).__name__)
                self.stopping.wait(1)

    def _take_calls(self) -> None:
        self.pool.wait_available(timeout=TICK_SECONDS)
        slots = self.pool.free_count()
        if not slots or self.suspended:
            self.stopping.wait(TICK_SECONDS if self.suspended else 0)
            return
        claimed = self.claims.take(slots, self.stopping.is_set)
        if claimed:
            self.outbox.put_by(("UNLINK", *(keys.call(each.call_id) for each in claimed)))
        for each in claimed:
            if each.call_id in self.running:
                self._end_both(each)
                continue
            running = self.running[each.call_id] = Running(each)
            running.greenlet = self.pool.spawn(self._run, running)
        # Their requests go out before the bell is waited for again; twice, because what these
        # greenlets wake (the outbox, for an answer that is there at once) is to have its turn too.
        gevent.sleep(0)
        gevent.sleep(0)

    def _end_both(self, again: Claimed) -> None:
        """A Redis that lost the claim handed a running call out again: once is all it gets.

        The first claim's outcome would be fenced off and the second's would never come, so that
        the caller waited for the deadline.
        """
        if again.claim == self.running[again.call_id].claimed.claim:
            return
        log.warning("call %s: was claimed twice", again.call_id)
        sender = Sender(self.outbox, again.call_id, again.claim, again.web)
        sender.finish(self.name, Outcome(error=ReplyLost()), 0)
        self._stop_call(again.call_id, ReplyLost())

    def _run(self, running: Running) -> None:
        running.started, claimed = True, running.claimed
        sender = Sender(self.outbox, claimed.call_id, claimed.claim, claimed.web)
        timeout = gevent.Timeout(claimed.budget, StopCall(DeadlineExceeded()))
        timeout.start()
        try:
            if claimed.call_id in self.cancelled:
                raise CallCancelled
            if claimed.budget <= 0:
                raise DeadlineExceeded("The call's deadline passed while it waited in the queue.")
            plan, body = opened(claimed.payload, claimed.call_id)
            outcome = self.runner.run(claimed, plan, body, sender)
        except GatewayError as error:
            outcome = Outcome(last=sender.number, error=error)
        except StopCall as stop:
            outcome = Outcome(last=sender.number, error=stop.error)
        finally:
            timeout.close()
            self.running.pop(claimed.call_id, None)
        worked = int((time.monotonic() - claimed.claimed_at) * 1000)
        sender.finish(self.name, outcome, worked)

    def _tick(self) -> None:
        collector = Collector()
        count = 0
        while True:
            try:
                self._obey_cancels()
                self._cancel_for_dead_webs()
                if count % RECORDS_EVERY == 0:
                    self._renew_records()
                    self._learn_breakers()
                count += 1
            except RedisError as error:
                log.warning("worker %s: Redis is away (%s)", self.name, type(error).__name__)
            except Exception as error:
                # Without this greenlet no call could be cancelled any more: it must go on.
                log.error("worker %s: %s at %s", self.name, type(error).__name__, where(error))
            collector.tick(busy=bool(self.running))
            gevent.sleep(TICK_SECONDS)

    def _obey_cancels(self) -> None:
        key = keys.cancel(self.name)
        named = {member.decode() for member in self.connection.smembers(key)}
        # One that is not running yet may be in a claim whose reply is still on its way: it is kept
        # for a while, and not begun when it comes.
        self.cancelled = {call_id: self.cancelled.get(call_id, 0) + 1 for call_id in named}
        for call_id, looks in self.cancelled.items():
            if call_id in self.running:
                self._stop_call(call_id, CallCancelled())
            if call_id in self.running or looks > CANCEL_LOOKS:
                self.outbox.put(("SREM", key, call_id))

    def _cancel_for_dead_webs(self) -> None:
        """Stop the calls of web processes whose lease was absent twice running."""
        webs = sorted({running.claimed.web for running in self.running.values()})
        alive = commands.alive(self.connection, webs)
        missing = {web for web, lives in zip(webs, alive, strict=True) if not lives}
        if self.lease.steady():
            dead = missing & self._missing_webs
            for call_id, running in list(self.running.items()):
                if running.claimed.web in dead:
                    self._stop_call(call_id, CallCancelled())
        self._missing_webs = missing

    def _renew_records(self) -> None:
        self.outbox.wake()
        if not self.connection.exists(self.key):  # Redis was emptied
            self.register_birth()
        score = int(now().timestamp())
        with self.connection.pipeline(transaction=False) as pipeline:
            self.heartbeat(pipeline=pipeline)
            self.set_state(self._status(), pipeline=pipeline)
            for registry in keys.RQ_REGISTRIES:
                pipeline.zremrangebyscore(registry, "-inf", score)
            pipeline.exists("rq:suspended")
            self.suspended = bool(pipeline.execute()[-1])

    def _learn_breakers(self) -> None:
        now = self.lease.redis_time(0)
        if not now:
            return
        try:
            rows = cast("dict[bytes, bytes]", self.connection.hgetall(keys.BREAKERS))
        except ResponseError:  # somebody else's value: each worker goes by what it saw
            return
        self.breakers.learn(rows, now)

    def _status(self) -> WorkerStatus:
        if self.suspended:
            return WorkerStatus.SUSPENDED
        return WorkerStatus.BUSY if self.running else WorkerStatus.IDLE

    def _stop_call(self, call_id: str, error: GatewayError) -> None:
        running = self.running.get(call_id)
        if running is None:
            return
        if running.started:
            running.greenlet.kill(StopCall(error), block=False)
        else:
            gevent.spawn_later(0.01, self._stop_call, call_id, error)

    def _drain(self) -> bool:
        self.pool.join(timeout=self.settings.drain_seconds)
        if self.running:
            log.warning("worker %s: ending %d calls", self.name, len(self.running))
        for call_id in list(self.running):
            self._stop_call(call_id, WorkerStopped())
        self.pool.join(timeout=STOP_SECONDS)
        return self.outbox.close(FLUSH_SECONDS)

    def _leave(self) -> None:
        try:
            self.register_death()
        except RedisError:
            pass  # the records expire by themselves
        self.lease.release()
        log.info("worker %s: stopped", self.name)
