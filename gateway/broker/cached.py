"""Calls whose response may be kept: looks for it first, and lets identical calls run once.

A call without a cache never comes here.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from dataclasses import replace

import gevent
from redis import Redis
from redis.exceptions import RedisError

from gateway.account.cache import Entry
from gateway.broker.submitter import Submission
from gateway.errors import GatewayError
from gateway.queue import commands

log = logging.getLogger(__name__)

# Between two looks for the response of another call; doubles from the first to the last.
FIRST_LOOK_SECONDS, LAST_LOOK_SECONDS = 0.05, 0.5
LINES = ":lines"  # the group of lines of batches
QUEUED_LOOK_SECONDS = 0.01  # between two looks whether the queue has taken a call


class CachedCalls:
    """Passes each submission on with the kept response, if there is one.

    Of those with the same request, one is passed on without a response, whatever the process; the
    others wait for its response. If it leaves none (it failed, or nothing of it may be kept), each
    is passed on by itself. `submit` is called with each.

    Logged calls do not wait for others, because their clients come back for them and want to know
    at once whether they are queued. Lines of batches wait, but only for each other: they have no
    client, and nobody else is to wait behind all other calls.
    """

    def __init__(self, redis: Redis, submit: Callable[[Submission], None]) -> None:
        self._redis, self._submit = redis, submit
        # By the name of the response, and the group of calls that wait for each other.
        self._waiting: dict[tuple[str, str], list[Submission]] = {}

    def put(self, submission: Submission) -> None:
        """Look for the response, in a greenlet."""
        line = bool(submission.spec.account.get("batch_id"))
        name = submission.spec.cache["name"], LINES if line else ""
        if submission.pending.logged and not line:
            gevent.spawn(self._serve, name, [submission], wait=False)
        elif name in self._waiting:
            self._waiting[name].append(submission)
        else:
            waiting = self._waiting[name] = [submission]
            gevent.spawn(self._serve, name, waiting)

    def _serve(
        self, name: tuple[str, str], waiting: list[Submission], *, wait: bool = True
    ) -> None:
        """Pass all calls on that are, or come to be, in `waiting`; after one look unless `wait`."""
        pause = FIRST_LOOK_SECONDS
        try:
            while self._still_waiting(waiting) and self._look(name, waiting) and wait:
                gevent.sleep(pause)
                pause = min(pause * 2, LAST_LOOK_SECONDS)
        except RedisError as error:
            log.warning("cache: Redis is away (%s)", type(error).__name__)
        finally:
            if wait:
                del self._waiting[name]
            self._pass_all(waiting)

    def _still_waiting(self, waiting: list[Submission]) -> bool:
        """Forget the calls that have ended; return whether any is left."""
        now = time.monotonic()
        waiting[:] = [each for each in waiting if each.pending.outcome is None]
        late = [each for each in waiting if now >= each.pending.deadline]
        for each in late:
            waiting.remove(each)
            self._pass(each)  # which ends it
        return bool(waiting)

    def _look(self, name: tuple[str, str], waiting: list[Submission]) -> bool:
        """Look once; return whether the calls that are left have to wait."""
        first = waiting[0]
        left = max(first.pending.deadline - time.monotonic(), 1)
        response, group = name
        action, value = commands.look_for_response(
            self._redis, response, first.spec.call_id, left, group
        )
        if action == b"first":
            waiting.remove(first)
            self._pass(first)
            if self._queued(first):
                return bool(waiting)
            # The others need not wait for it.
            commands.forget_first_call(self._redis, response, group)
        elif action == b"wait":
            return True
        self._pass_all(waiting, Entry.decode(value) if action == b"hit" else None)
        return False

    def _queued(self, first: Submission) -> bool:
        """Wait until the queue has taken or refused a call; return whether it has taken it."""
        while not first.pending.submitted and first.pending.outcome is None:
            gevent.sleep(QUEUED_LOOK_SECONDS)
        return first.pending.submitted

    def _pass_all(self, waiting: list[Submission], entry: Entry | None = None) -> None:
        while waiting:
            self._pass(waiting.pop(0), entry)

    def _pass(self, submission: Submission, entry: Entry | None = None) -> None:
        if entry is None:
            submission.pending.cache = "miss"
        try:
            self._submit(replace(submission, entry=entry))
        except GatewayError as error:
            submission.pending.fail(error)
