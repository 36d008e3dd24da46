"""Sends the calls of many requests to the queue, in batches over one connection."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import gevent
import orjson
from redis.exceptions import RedisError

from gateway.account.api_keys import incorrect
from gateway.account.cache import Entry, without_cost
from gateway.account.records import Record
from gateway.account.refusals import limited, used_up
from gateway.broker.line import Line
from gateway.broker.pending_call import PendingCall
from gateway.errors import (
    AuthenticationFailed,
    CallCancelled,
    DeadlineExceeded,
    GatewayError,
    KeyChanged,
    Overloaded,
    PayloadTooLarge,
    QueueUnavailable,
    RateLimited,
    RecordsBacklog,
)
from gateway.logs import Tally
from gateway.queue import clients, commands
from gateway.queue.batch_writer import BatchWriter
from gateway.queue.clients import DedicatedConnection
from gateway.queue.protocol import CHUNKS, OUTCOME, AdmissionRequest, CallSpec, Event, Outcome
from gateway.settings import Settings

log = logging.getLogger(__name__)

UNAVAILABLE_SECONDS = 2  # to wait before the next try
RECORDS_SECONDS = 5  # the same, until some records are written
TOO_LARGE_SECONDS = 60.0  # for which Redis is not asked again whether it takes such a body
LATE_SECONDS = 0.3  # until a call that arrived too late is sent again
MEMORY_SECONDS = 5  # least, where Redis is full: nobody knows what would free memory


@dataclass(slots=True)
class Submission:
    """One call on its way into the queue, or with `entry` past it: a kept response answers it."""

    spec: CallSpec
    body: bytes
    pending: PendingCall
    admission: AdmissionRequest
    entry: Entry | None = None

    def record(self) -> bytes:
        """The record of a call that a kept response answers."""
        if self.entry is None:
            return b""
        account, target, now = self.spec.account, self.spec.targets[0], int(time.time() * 1000)
        created = int(account.get("created_ms", now))
        return Record(
            id=self.spec.call_id,
            key_id=self.spec.key,
            created_ms=created,
            settled_ms=now,
            kind=self.spec.kind,
            request_id=account.get("request_id", ""),
            owner=account.get("owner", ""),
            model=target.model,
            model_requested=account.get("model", ""),
            provider_name=target.provider,
            upstream_model=target.upstream_model,
            streamed=self.spec.stream,
            latency_ms=now - created,
            saved_nano=self.entry.nano,
            priority=account.get("priority", ""),
            user_agent=account.get("user_agent", ""),
            cache_hit=True,
            batch_id=account.get("batch_id", ""),
            response_id=account.get("response_id", ""),
        ).encode()

    def payload(self) -> bytes:
        """The kept response, or the chunks of a stream."""
        assert self.entry is not None
        return without_cost(self.entry.payload) if self.spec.cost else self.entry.payload

    def log(self) -> list[bytes]:
        """The events of a logged call that a kept response answers, for its log."""
        if self.entry is None or not self.pending.logged:
            return []
        call_id, payload = self.spec.call_id, self.payload()
        if not self.spec.stream:
            outcome = Outcome(answer=payload, dropped=self.entry.dropped)
            return [Event(call_id, "", 1, OUTCOME, outcome.encode()).encode()]
        chunks = Event(call_id, "", 1, CHUNKS, payload)
        return [chunks.encode(), Event(call_id, "", 2, OUTCOME, Outcome(last=1).encode()).encode()]


class Submitter:
    """Sends submissions; a submission that is refused or fails ends its pending call.

    `redis_time(seconds)` returns what Redis' clock will show in so many seconds, 0 if unknown.
    `on_unknown` is called with each pending call whose submission was sent and not answered: it
    may be queued all the same. `seconds` returns how long refused callers should wait: see
    `refusal`.
    """

    def __init__(
        self,
        settings: Settings,
        connection: DedicatedConnection,
        redis_time: Callable[[float], float],
        on_unknown: Callable[[PendingCall], None],
        seconds: Callable[[int], float],
    ) -> None:
        self._settings, self._redis_time = settings, redis_time
        self._on_unknown, self._seconds = on_unknown, seconds
        self._line: Line[Submission] = Line()
        self._too_large, self._too_large_until = 0, 0.0
        self._refused = Tally(log, "submit: refused calls: %s")
        self._writer = BatchWriter("submit", connection, self._flush)

    def put(self, submission: Submission) -> None:
        """Send the submission: see Line for the order.

        Raises PayloadTooLarge for a body that Redis has just refused for its size.
        """
        size = len(submission.body)
        if size >= self._too_large > 0 and time.monotonic() < self._too_large_until:
            raise too_large(self._too_large)
        self._line.put(submission, size)
        self._writer.wake()

    def run(self) -> None:
        """Send for ever."""
        self._writer.run()

    def close(self) -> None:
        """Close the connection to Redis."""
        self._writer.disconnect()

    def _flush(self) -> None:
        waiting = self._line.take()
        if self._line:
            self._writer.wake()
        # A client that has left in the meantime needs no call.
        batch = [each for each in waiting if each.pending.outcome is None]
        # Its deadline may have passed in this line, or while it was sent again.
        for each in batch:
            if time.monotonic() > each.pending.deadline:
                each.pending.fail(DeadlineExceeded(should_retry=True))
        batch = [each for each in batch if each.pending.outcome is None]
        if not batch:
            return
        try:
            self._send(batch)
        except RedisError as error:
            log.warning(
                "submit: Redis is away (%s), %d calls refused", type(error).__name__, len(batch)
            )
            self._give_up(batch)
        except Exception:
            self._give_up(batch)
            raise

    def _send(self, batch: list[Submission]) -> None:
        size = sum(len(each.body) for each in batch)
        now, expiry = time.monotonic(), self._redis_time(clients.patience(size))
        # Submitting a call twice queues it once, so the writer may send a batch again.
        replies = self._writer.write(
            [
                commands.submit_command(
                    self._settings,
                    each.spec,
                    each.body,
                    each.admission if each.entry is None else without_use(each.admission),
                    each.pending.deadline - now,
                    expiry,
                    each.record(),
                    each.log(),
                )
                for each in batch
            ]
        )
        for submission, reply in zip(batch, replies, strict=True):
            # This process stood still while it sent, or Redis' clock was set.
            if reply == [b"late"]:
                gevent.spawn_later(LATE_SECONDS, self.put, submission)
                continue
            refused = refusal(reply, submission.admission.public_id, self._seconds)
            if refused is None:
                submission.pending.admission = orjson.loads(reply[1])
                submission.pending.accepted()
                if submission.entry is not None:
                    _answer(submission, submission.entry)
            else:
                if isinstance(refused, PayloadTooLarge):
                    self._too_large = reply[1]
                    self._too_large_until = time.monotonic() + TOO_LARGE_SECONDS
                self._refused.add(
                    reply[0].decode() if isinstance(reply, list) else type(reply).__name__
                )
                if isinstance(refused, RateLimited):
                    submission.pending.admission = used_up(orjson.loads(reply[1]))
                submission.pending.fail(refused)

    def _give_up(self, batch: list[Submission]) -> None:
        sent = self._writer.sent
        for submission in batch:
            # A call that was sent may be queued, and may start before its cancel arrives.
            error = QueueUnavailable(retry_after=UNAVAILABLE_SECONDS, should_retry=not sent)
            submission.pending.fail(error)
            if sent:
                self._on_unknown(submission.pending)


def _answer(submission: Submission, entry: Entry) -> None:
    """End a call with its kept response; the events of a logged call come from its log."""
    if submission.pending.logged:
        submission.pending.cache = "hit"
    else:
        submission.pending.answer(submission.payload(), entry.dropped, submission.spec.stream)


def without_use(admission: AdmissionRequest) -> AdmissionRequest:
    """Return what a call asks of limits that a kept response answers: to be one more request."""
    return replace(
        admission,
        prompt_tokens=0,
        prompt_nano=0,
        output_tokens=0,
        output_nano_per_token=0.0,
        max_output_tokens=0,
    )


def refusal(reply: Any, public_id: str, seconds: Callable[[int], float]) -> GatewayError | None:
    """Return the error for a reply of the submit script, or None if it queued the call.

    `public_id` is that of the call's key. `seconds(depth)` returns how long a caller should wait
    when `depth` calls are queued.
    """
    reason, *details = reply if isinstance(reply, list) else (reply,)
    if reason == b"ok":
        return None
    if reason in (b"expired", b"disabled"):  # since this process last looked
        return AuthenticationFailed(incorrect(public_id))
    if reason in (b"changed", b"key"):  # a key that is not there: read again, it says why
        return KeyChanged(retry_after=UNAVAILABLE_SECONDS)
    if reason == b"cancelled":
        return CallCancelled()
    if reason == b"late":
        return QueueUnavailable(retry_after=UNAVAILABLE_SECONDS)
    if reason == b"records":
        return RecordsBacklog(retry_after=RECORDS_SECONDS)
    if reason == b"large":
        return too_large(details[0])
    if reason == b"limit":
        return limited(orjson.loads(details[0]))
    if reason in (b"calls", b"bytes", b"memory"):
        least = MEMORY_SECONDS if reason == b"memory" else 0
        return Overloaded(retry_after=max(seconds(details[0]), least))
    log.error("submit: refused (%s)", type(reply).__name__)
    return QueueUnavailable(retry_after=UNAVAILABLE_SECONDS)


def too_large(limit: int) -> PayloadTooLarge:
    """Return the error for a body that does not fit Redis, even with nothing else in it."""
    return PayloadTooLarge(
        f"The request body is too large for this service's queue: less than {limit} bytes fit."
    )
