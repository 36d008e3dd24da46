"""Sends the calls of many requests to the queue, through one connection and few round trips.

What became ready while the last batch was on its way goes out as the next one.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from gevent.event import Event as Signal
from redis import Connection, Redis
from redis.exceptions import ConnectionError, RedisError

from gateway.account.api_keys import KeyRecord, incorrect
from gateway.broker.pending_call import PendingCall
from gateway.errors import (
    AuthenticationFailed,
    CallCancelled,
    GatewayError,
    Overloaded,
    QueueUnavailable,
)
from gateway.logs import where
from gateway.queue import clients, scripts

log = logging.getLogger(__name__)

IDLE_SECONDS = 0.5
UNAVAILABLE_SECONDS = 2  # to wait before the next try
MEMORY_SECONDS = 5  # least, where Redis is full: of what, nobody knows


@dataclass(frozen=True, slots=True)
class Submission:
    """One call on its way into the queue."""

    command: tuple[Any, ...]
    pending: PendingCall
    key: KeyRecord


class Submitter:
    """Sends submissions; a refused or failed one ends its pending call.

    Where Redis stays silent the call may be queued all the same: then `on_unknown` is called for
    its pending call. `seconds` tells refused callers how long to wait: see `refusal`.
    """

    def __init__(
        self,
        redis: Redis,
        on_unknown: Callable[[PendingCall], None],
        seconds: Callable[[int], float],
    ) -> None:
        self._redis, self._on_unknown, self._seconds = redis, on_unknown, seconds
        self._connection: Connection | None = None
        self._used = 0.0
        self._sent = False  # has anything of the batch left this process?
        self._waiting: list[Submission] = []
        self._ready = Signal()

    def put(self, submission: Submission) -> None:
        """Send it with the next batch."""
        self._waiting.append(submission)
        self._ready.set()

    def run(self) -> None:
        """Send for ever."""
        while True:
            self._ready.wait()
            self._ready.clear()
            waiting, self._waiting = self._waiting, []
            # A client that has left in the meantime needs no call.
            batch = [submission for submission in waiting if submission.pending.outcome is None]
            if batch:
                try:
                    self._send(batch)
                except Exception as error:
                    # Without this greenlet every later call would wait for its deadline.
                    log.error("submit: %s at %s", type(error).__name__, where(error))
                    self._disconnect(broken=True)
                    self._give_up(batch)

    def _send(self, batch: list[Submission]) -> None:
        batched = [submission.command for submission in batch]
        self._sent = False
        try:
            try:
                replies = self._round_trip(batched)
            except ConnectionError:
                # Redis may have closed an idle connection; submitting twice is like once.
                replies = self._round_trip(batched)
        except RedisError as error:
            log.warning("submit: Redis is away (%s)", type(error).__name__)
            self._give_up(batch)
            return
        for submission, reply in zip(batch, replies, strict=True):
            refused = refusal(reply, submission.key, self._seconds)
            if refused is None:
                submission.pending.submitted = True
            else:
                submission.pending.fail(refused)

    def _give_up(self, batch: list[Submission]) -> None:
        for submission in batch:
            # What was sent may have been queued, and be run before a cancel arrives.
            error = QueueUnavailable(retry_after=UNAVAILABLE_SECONDS, should_retry=not self._sent)
            submission.pending.fail(error)
            if self._sent:
                self._on_unknown(submission.pending)

    def _round_trip(self, batched: list[tuple[Any, ...]]) -> list[Any]:
        try:
            connection = self._connect()
            self._sent = True
            replies = scripts.run_all(connection, batched)
        except RedisError:
            self._disconnect(broken=True)
            raise
        self._used = time.monotonic()
        return replies

    def _connect(self) -> Connection:
        if time.monotonic() - self._used > IDLE_SECONDS:
            self._disconnect(broken=False)  # the pool looks whether it is still good
        if self._connection is None:
            self._connection = clients.take(self._redis)
        return self._connection

    def _disconnect(self, *, broken: bool) -> None:
        if self._connection is not None:
            clients.give_back(self._redis, self._connection, broken=broken)
            self._connection = None


def refusal(reply: object, key: KeyRecord, seconds: Callable[[int], float]) -> GatewayError | None:
    """Why the submit script did not take a call, or None if it did.

    `seconds(depth)` says how long to wait where so many calls are queued.
    """
    if reply == b"ok":
        return None
    if reply == b"key":  # revoked since this process last looked
        return AuthenticationFailed(incorrect(key.public_id))
    if reply == b"cancelled":
        return CallCancelled()
    if reply == b"late":
        return QueueUnavailable(retry_after=UNAVAILABLE_SECONDS)
    reason, _, depth = reply.partition(b" ") if isinstance(reply, bytes) else (b"", b"", b"")
    if reason in (b"calls", b"bytes", b"memory"):
        least = MEMORY_SECONDS if reason == b"memory" else 0
        return Overloaded(retry_after=max(seconds(int(depth or 0)), least))
    log.error("submit: refused (%s)", type(reply).__name__)
    return QueueUnavailable(retry_after=UNAVAILABLE_SECONDS)
