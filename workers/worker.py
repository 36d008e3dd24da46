"""The concurrent RQ worker: one process, up to a thousand calls at once.

RQ's `BaseWorker` gives it its name, its registration and its records. The loop, the claims, the
signals and the end of a job are its own, because RQ's run one job at a time.

What it takes from RQ 3.0.0; `tests/unit/workers/test_worker.py` names what an update moves:

  overridden  `work`                two loops in one process cannot share signals and connections
              `connection_timeout`  RQ would make each read of the pool wait 15 s for Redis
  used        `register_birth`, `register_death`, `heartbeat`, `set_state`, `key`,
              `successful_job_count`, `failed_job_count`, `total_working_time`,
              `clean_worker_registry`, so that RQ's tools show the worker as one of their own
"""

from __future__ import annotations

import logging
import signal
import time
import uuid
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, cast

import gevent
from gevent.event import Event as Signal
from gevent.pool import Pool
from redis.exceptions import RedisError, ResponseError
from rq.serializers import JSONSerializer
from rq.utils import now
from rq.worker import BaseWorker, WorkerStatus
from rq.worker_registration import clean_worker_registry

from gateway.errors import (
    CallCancelled,
    CancelledByOperator,
    DeadlineExceeded,
    GatewayError,
    ReplyLost,
    StopCall,
    WebLost,
    WorkerLost,
    WorkerStopped,
)
from gateway.logs import log_fault
from gateway.memory import Collector
from gateway.queue import clients, commands, keys, owner, steering
from gateway.queue.clients import DedicatedConnection
from gateway.queue.lease import Lease, LostProcesses
from gateway.queue.protocol import Outcome
from gateway.settings import Settings
from gateway.stalls import Stalls
from workers.bill import Bill
from workers.breaker import Breakers
from workers.call_log import log_call
from workers.claims import Claimed, Claims, opened
from workers.keeping import KeepingSender
from workers.large_bodies import LargeBodies
from workers.leftovers import Leftovers
from workers.outbox import Outbox, Sender
from workers.runner import CallRunner

log = logging.getLogger(__name__)

# A terminal that closes sends HUP, a service manager may send any of these.
STOP_SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGQUIT)
IGNORED_SIGNALS = (signal.SIGUSR1, signal.SIGUSR2, signal.SIGALRM)  # they would end the process

TICK_SECONDS = 0.5
RECORDS_EVERY = 2  # ticks between two renewals of RQ's records
LEFTOVERS_EVERY = 40  # ticks
CANCEL_LOOKS = 20  # ticks that a cancelled call is looked for
WORKER_TTL = 20  # seconds RQ's record outlives its last renewal, besides RQ's own 60
STOP_SECONDS = 1.0  # for stopped calls to write their outcome
FLUSH_SECONDS = 1.0  # for the last writes
# How long a claim may take web processes for dead. It goes by what was known when it was sent: it
# may have waited for the bell, but not for a Redis that stood still as long as a lease lives.
JUDGE_SECONDS = clients.BLOCK_SECONDS + 1.0


@dataclass(slots=True)
class Running:
    """A call that this worker runs, by its latest claim, and the greenlet that does."""

    claimed: Claimed
    greenlet: Any = None
    started: bool = False  # a greenlet killed before its first step would end without an outcome


class CallWorker(BaseWorker):  # type: ignore[misc]
    """A worker for the queue of calls."""

    def __init__(
        self, settings: Settings, runner: CallRunner, breakers: Breakers | None = None
    ) -> None:
        name = f"worker-{uuid.uuid4().hex[:12]}"
        self.settings = settings
        self.stalls = Stalls()
        # Bell, outbox and lease have a connection each; what is left is for commands.
        super().__init__(
            [keys.QUEUE],
            name=name,
            connection=clients.commands(settings, settings.redis_connections - 3, self.stalls),
            serializer=JSONSerializer,
            worker_ttl=WORKER_TTL,
            log_job_description=False,
        )
        self.pool = Pool(settings.worker_concurrency)
        self.outbox = Outbox(
            DedicatedConnection(clients.blocking(settings, self.stalls)), self.stalls.awake
        )
        self.lease = Lease(
            lambda: clients.commands(settings, 1),
            name,
            self.pool.size,
            self.stalls,
            useful=lambda: not self.outbox.failing(),
        )
        bell = DedicatedConnection(clients.blocking(settings, self.stalls))
        self.claims = Claims(self.connection, bell, name, self._judge_until)
        self.runner = runner
        self.breakers = breakers or Breakers()
        self.breakers.share(self.outbox.put, self.connection)
        self.running: dict[str, Running] = {}
        # Calls to stop, as the cancel script names them, and how often they were looked for.
        self.cancelled: dict[str, int] = {}
        self.stopping = Signal()
        self.suspended = False
        self.draining = False  # because an operator wants it: see gateway/queue/steering.py
        self._large = LargeBodies(self.connection)
        self._taking = False  # whether a claim may be on its way
        self._lost_webs = LostProcesses(self.connection, self.lease)
        self._leftovers = Leftovers(self.connection, self.lease)
        self._collector = Collector()
        self._ticks = 0

    @property
    def connection_timeout(self) -> int:
        """RQ raises the pool's read timeout to this, to fit its blocking pop; none is used here."""
        return 0

    def work(self, *args: Any, **kwargs: Any) -> bool:
        """Run calls until one of STOP_SIGNALS, then drain; return whether all is written."""
        self._handle_signals()
        self.stalls.start()
        self.register()
        self.lease.start()
        self.outbox.start()
        # Apart, so that a cancelled call does not wait for the records where Redis is slow.
        duties = [
            gevent.spawn(self._repeat, duty) for duty in (self.watch_calls, self.keep_records)
        ]
        log.info("worker %s: ready for %d calls at once", self.name, self.pool.size)
        while not self.stopping.is_set():
            self.take_calls()
        done = self._drain()
        gevent.killall(duties)
        self._leave()
        return done

    def stop(self) -> None:
        """Take no more calls and drain. Calling it again changes nothing."""
        if not self.stopping.is_set():
            log.info("worker %s: stopping, %d calls running", self.name, len(self.running))
        self.stopping.set()
        self.lease.slots = 0  # others see it at the next renewal
        self.claims.interrupt()

    def _judge_until(self) -> float:
        return self.lease.redis_time(JUDGE_SECONDS) if self.lease.steady() else 0.0

    def _handle_signals(self) -> None:
        # RQ's raise in whatever frame runs, and kill at the second signal; Heroku may send several.
        for number in STOP_SIGNALS:
            gevent.signal_handler(number, self.stop)
        for number in IGNORED_SIGNALS:
            signal.signal(number, signal.SIG_IGN)

    def register(self) -> None:
        """Enter RQ's records; wait for Redis as long as it takes, or until `stop`."""
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

    def take_calls(self) -> None:
        """Wait until there is a free slot and a call, about a second at most, and start calls.

        A worker that an operator drains, or whose answers Redis does not accept, takes none. Nor
        does one that stood still, before it has renewed its lease: its calls would count as lost.
        """
        if self._large.full(self.running):
            self._taking = False
            self._large.wait(TICK_SECONDS)
            return
        self.pool.wait_available(timeout=TICK_SECONDS)
        slots = self.pool.free_count()
        pausing = self.suspended or self.draining or self.outbox.failing() or self.lease.lapsed()
        self._taking = bool(slots) and not pausing
        if not self._taking:
            self.stopping.wait(TICK_SECONDS if pausing else 0)
            return
        claimed = self.claims.take(slots, self.stopping.is_set)
        read = [
            keys.call(each.call_id) for each in claimed if not (each.may_run_again or each.large)
        ]
        if read:
            self.outbox.put_by(("UNLINK", *read))
        for each in claimed:
            if each.call_id in self.running and not self._end_first(each):
                continue
            running = self.running[each.call_id] = Running(each)
            if each.large:
                self._large.claimed(each.call_id)
            running.greenlet = self.pool.spawn(self.run_call, running)
        # Their requests go out before the bell is waited for again; twice, because what these
        # greenlets wake (the outbox, for an answer that is there at once) is to have its turn too.
        gevent.sleep(0)
        gevent.sleep(0)

    def _end_first(self, again: Claimed) -> bool:
        """End a running call that was claimed again; return whether the second claim is to run.

        It is if this worker was taken for lost, and the call runs once more. Otherwise Redis lost
        the first claim. Then both end: the outcome of the first would be refused and the second
        would have none, so that the caller would wait until the deadline.
        """
        running = self.running[again.call_id]
        first = running.claimed
        if again.claim == first.claim:
            return False
        log.warning("call %s: was claimed twice", again.call_id)
        running.claimed = again
        if again.runs_again and not first.runs_again:
            running.greenlet.kill(StopCall(WorkerLost()), timeout=STOP_SECONDS)
            return True
        self._stop_call(again.call_id, ReplyLost())
        return False

    def run_call(self, running: Running) -> None:
        """Run one call of `running` to its end, and send its outcome and its record."""
        running.started, claimed = True, running.claimed
        sender = Sender(self.outbox, claimed.call_id, claimed.claim, claimed.web)
        spec, bill = None, Bill()
        timeout = gevent.Timeout(claimed.budget, StopCall(DeadlineExceeded()))
        timeout.start()
        try:
            payload = self._read_large(claimed) if claimed.large else claimed.payload
            spec, body = opened(payload, claimed.call_id)
            del payload
            if error := self._cancellation(claimed.call_id):
                raise error
            if claimed.budget <= 0:
                raise DeadlineExceeded("The call's deadline passed while it waited in the queue.")
            if spec.cache:
                sender = KeepingSender(self.outbox, claimed, spec, self.settings.cache_bytes)
            outcome = self.runner.run(claimed, spec, body, sender, bill)
        except GatewayError as error:
            outcome = Outcome(last=sender.number, error=error)
        except StopCall as stop:
            outcome = Outcome(last=sender.number, error=stop.error)
        except Exception as fault:
            # Without an outcome, its caller would wait until the deadline.
            log_fault(log, fault, "call %s", claimed.call_id)
            outcome = Outcome(last=sender.number, error=GatewayError(should_retry=False))
        finally:
            timeout.close()
            if self.running.get(claimed.call_id) is running:
                del self.running[claimed.call_id]
        again, stopped = running.claimed, isinstance(outcome.error, WorkerStopped)
        if again is not claimed:  # claimed again: only that claim's outcome stands
            if again.runs_again and not claimed.runs_again:
                return  # and it has a run of its own
            sender = Sender(self.outbox, again.call_id, again.claim, again.web)
            outcome = Outcome(error=ReplyLost())
        elif stopped and claimed.may_run_again and not outcome.last:
            self.outbox.put(commands.retry_command(claimed.call_id, claimed.claim, claimed.web))
            return
        if isinstance(sender, KeepingSender):
            sender.keep(outcome, bill.nano)  # before its end, which other calls may be waiting for
        record = bill.record(claimed, spec, outcome.error, self.name) if spec else None
        if record is not None:
            log_call(record)
        sender.finish(self.name, outcome, record)
        self._count(claimed, outcome)

    def _read_large(self, claimed: Claimed) -> bytes | None:
        """Return the large body of a call, or None if Redis has lost it."""
        body = self._large.read(claimed)
        if not claimed.may_run_again:
            self.outbox.put_by(("UNLINK", keys.call(claimed.call_id)))
        return body

    def _count(self, claimed: Claimed, outcome: Outcome) -> None:
        """Count a call for RQ's statistics, which `renew_records` writes.

        Also one that was taken for lost meanwhile, whose outcome Redis refuses.
        """
        if outcome.error is None:
            self.successful_job_count += 1
        else:
            self.failed_job_count += 1
        self.total_working_time += time.monotonic() - claimed.claimed_at

    def _repeat(self, duty: Callable[[], object]) -> None:
        """Do a duty twice a second, for ever; failures are logged."""
        while True:
            try:
                duty()
            except RedisError as error:
                log.warning("worker %s: Redis is away (%s)", self.name, type(error).__name__)
            except Exception as error:
                # Without this greenlet no call could be cancelled any more: it must go on.
                log_fault(log, error, "worker %s", self.name)
            gevent.sleep(TICK_SECONDS)

    def watch_calls(self) -> None:
        """Stop the calls that nobody wants any more, and queue those that may start now.

        Raises RedisError.
        """
        self.stop_cancelled_calls()
        self.stop_calls_of_lost_webs()
        commands.promote(self.connection)

    def keep_records(self) -> None:
        """Renew the records, and do what else is due from time to time. Raises RedisError."""
        self._collector.tick(busy=bool(self.running))
        if self._ticks % RECORDS_EVERY == 0:
            self.renew_records()
            self.learn_breakers()
        if self._ticks % LEFTOVERS_EVERY == 0:
            self._leftovers.sweep()
        self._ticks += 1

    def stop_cancelled_calls(self) -> None:
        """Stop the calls that were given up. Raises RedisError."""
        key = keys.cancel(self.name)
        named = {member.decode() for member in self.connection.smembers(key)}
        unknown = {name for name in named if name.endswith(commands.UNKNOWN)}
        for name in unknown:
            self._announce(name.removesuffix(commands.UNKNOWN))
            self.outbox.put(("SREM", key, name))
        named -= unknown
        # A call that does not run yet may be in a claim whose reply is still on its way: it stays
        # listed for a while, and is not begun when it comes.
        self.cancelled = {call_id: self.cancelled.get(call_id, 0) + 1 for call_id in named}
        for name, looks in self.cancelled.items():
            call_id = name.removesuffix(commands.BY_OPERATOR)
            if error := self._cancellation(call_id):
                self._stop_call(call_id, error)
            if call_id in self.running or looks > CANCEL_LOOKS:
                self.outbox.put(("SREM", key, name))

    def _announce(self, call_id: str) -> None:
        """Tell Redis that a call runs here whose job it has lost."""
        if running := self.running.get(call_id):
            claimed = running.claimed
            left = claimed.claimed_at + claimed.budget - time.monotonic()
            self.outbox.put(
                commands.announce_command(call_id, claimed.claim, self.name, claimed.web, left)
            )

    def _cancellation(self, call_id: str) -> GatewayError | None:
        """Return the error of a call that was given up."""
        if call_id + commands.BY_OPERATOR in self.cancelled:
            return CancelledByOperator()
        return CallCancelled() if call_id in self.cancelled else None

    def stop_calls_of_lost_webs(self) -> None:
        """Stop the calls of web processes that are lost; call it every tick. Raises RedisError."""
        addresses = {running.claimed.web for running in self.running.values()}
        # Nobody need wait for a logged call.
        lost = self._lost_webs.look(each for each in addresses if not keys.is_log(each))
        for call_id, running in list(self.running.items()):
            if running.claimed.web in lost:
                self._stop_call(call_id, WebLost())

    def renew_records(self) -> None:
        """Renew RQ's record of this worker and trim its registries; read whether it is drained.

        Raises RedisError.

        In a Redis that was emptied, enter them again; raises ConfigurationError where another
        service has taken the names meanwhile.
        """
        self.outbox.wake()
        if not self.connection.exists(self.key):
            owner.take(self.connection, self.settings.key_pepper)
            self.register_birth()
        score = int(now().timestamp())
        with self.connection.pipeline(transaction=False) as pipeline:
            self.heartbeat(pipeline=pipeline)
            self.set_state(self._status(), pipeline=pipeline)
            pipeline.hset(self.key, mapping=self._facts())
            for registry in keys.RQ_ENDED:
                pipeline.zremrangebyscore(registry, "-inf", score)
            pipeline.exists(keys.RQ_SUSPENDED)
            pipeline.hexists(self.key, steering.DRAIN)
            *_, suspended, draining = pipeline.execute()
        self.suspended = bool(suspended)
        if draining != self.draining:
            word = "draining" if draining else "taking calls again"
            log.info("worker %s: %s, %d calls running", self.name, word, len(self.running))
            self.draining = draining
            if not self.stopping.is_set():
                self.lease.slots = 0 if draining else self.pool.size

    def _facts(self) -> dict[str, str | int | float]:
        """What `steering.workers` and RQ read of this worker."""
        drains = self.draining or self.stopping.is_set()
        return {
            "slots": self.pool.size,
            "running": len(self.running),
            "release": self.settings.release,
            "drains": int(drains and not self._taking),
            "successful_job_count": self.successful_job_count,
            "failed_job_count": self.failed_job_count,
            "total_working_time": round(self.total_working_time, 3),
        }

    def learn_breakers(self) -> None:
        """Read which routes other workers have seen fail. Raises RedisError."""
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
