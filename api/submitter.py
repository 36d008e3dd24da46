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

from api.waiter import Waiter
from gateway import connections, dispatch, scripts
from gateway.errors import QueueUnavailable
from gateway.keys import KeyRecord
from gateway.logs import where

log = logging.getLogger(__name__)

IDLE_SECONDS = 0.5


@dataclass(frozen=True, slots=True)
class Submission:
    """One call on its way into the queue."""

    command: tuple[Any, ...]
    waiter: Waiter
    key: KeyRecord


class Submitter:
    """Sends submissions; a refused or failed one ends its waiter.

    Where Redis stays silent the call may be queued all the same: then `on_unknown` is called for
    its waiter. `seconds` tells refused callers how long to wait: see `dispatch.refusal`.
    """

    def __init__(
        self,
        redis: Redis,
        on_unknown: Callable[[Waiter], None],
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
            batch = [submission for submission in waiting if submission.waiter.outcome is None]
            if batch:
                try:
                    self._send(batch)
                except Exception as error:
                    # Without this greenlet every later call would wait for its deadline.
                    log.error("submit: %s at %s", type(error).__name__, where(error))
                    self._disconnect(broken=True)
                    self._give_up(batch)

    def _send(self, batch: list[Submission]) -> None:
        commands = [submission.command for submission in batch]
        self._sent = False
        try:
            try:
                replies = self._exchange(commands)
            except ConnectionError:
                # Redis may have closed an idle connection; submitting twice is like once.
                replies = self._exchange(commands)
        except RedisError as error:
            log.warning("submit: Redis is away (%s)", type(error).__name__)
            self._give_up(batch)
            return
        for submission, reply in zip(batch, replies, strict=True):
            refusal = dispatch.refusal(reply, submission.key, self._seconds)
            if refusal is None:
                submission.waiter.submitted = True
            else:
                submission.waiter.fail(refusal)

    def _give_up(self, batch: list[Submission]) -> None:
        for submission in batch:
            # What was sent may have been queued, and be run before a cancel arrives.
            error = QueueUnavailable(
                retry_after=dispatch.UNAVAILABLE_SECONDS, should_retry=not self._sent
            )
            submission.waiter.fail(error)
            if self._sent:
                self._on_unknown(submission.waiter)

    def _exchange(self, commands: list[tuple[Any, ...]]) -> list[Any]:
        try:
            connection = self._connect()
            self._sent = True
            replies = scripts.run_all(connection, commands)
        except RedisError:
            self._disconnect(broken=True)
            raise
        self._used = time.monotonic()
        return replies

    def _connect(self) -> Connection:
        if time.monotonic() - self._used > IDLE_SECONDS:
            self._disconnect(broken=False)  # the pool looks whether it is still good
        if self._connection is None:
            self._connection = connections.take(self._redis)
        return self._connection

    def _disconnect(self, *, broken: bool) -> None:
        if self._connection is not None:
            connections.give_back(self._redis, self._connection, broken=broken)
            self._connection = None
