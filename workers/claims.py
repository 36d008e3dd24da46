"""Taking calls from the queue, so that whatever reply is lost each is started once."""

from __future__ import annotations

import logging
import uuid
from collections.abc import Callable
from typing import Any, TypeAlias

import gevent
from redis import Connection, Redis
from redis.exceptions import ConnectionError, NoScriptError, RedisError, TimeoutError

from gateway.queue import clients, commands, keys, scripts
from workers.runner import Claimed

log = logging.getLogger(__name__)

BATCH = 64  # most calls taken at once: others can start while this many bodies are being parsed
RETRY_SECONDS = 0.25

Rows: TypeAlias = "list[bytes | int | None]"


class Claims:
    """One worker's way of taking calls; `judge_until` tells in Redis' time (seconds since 1970, 0:
    never) how long a web process without a lease may be taken for dead."""

    def __init__(
        self, redis: Redis, bell: Redis, worker: str, judge_until: Callable[[], float]
    ) -> None:
        self._redis, self._bell, self._worker = redis, bell, worker
        self._judge_until = judge_until
        self._connection: Connection | None = None

    def take(self, slots: int, give_up: Callable[[], bool]) -> list[Claimed]:
        """Wait for calls, at most BLOCK_SECONDS, and start up to `slots` of them.

        Returns once it is certain which. Where Redis stays away and `give_up` says so, what was
        taken is left to be found lost.
        """
        claim_id = uuid.uuid4().hex
        try:
            return _claimed(self._wait_and_claim(claim_id, slots), claim_id)
        except (ConnectionError, TimeoutError) as error:
            self.interrupt()
            if not give_up():
                log.warning("bell: Redis is away (%s)", type(error).__name__)
            return self._ask_again(claim_id, give_up)
        except RedisError as error:
            log.error("claim: refused (%s)", type(error).__name__)
            self.interrupt()
            gevent.sleep(RETRY_SECONDS)
            return []

    def interrupt(self) -> None:
        """End a `take` that waits; it still finds out what it took."""
        connection, self._connection = self._connection, None
        if connection is not None:
            clients.give_back(self._bell, connection, broken=True)

    def _wait_and_claim(self, claim_id: str, slots: int) -> Rows:
        """Wait for the bell and claim, in one round trip: Redis runs the script once the bell, or
        its timeout, has let the connection go on.

        Asking after the bell had answered cost each call at one connection another 0.2 ms.
        """
        if self._connection is None:
            self._connection = clients.take(self._bell)
        command = self._command(claim_id, slots, again=False)
        bell = ("BLPOP", keys.BELL, clients.BLOCK_SECONDS)
        _, reply = clients.round_trip(self._connection, [bell, command])
        if isinstance(reply, NoScriptError):
            [reply] = scripts.run_all(self._connection, [command])
        if isinstance(reply, RedisError):
            raise reply
        rows: Rows = reply
        return rows

    def _ask_again(self, claim_id: str, give_up: Callable[[], bool]) -> list[Claimed]:
        """The script may have run: ask for what this claim took, until the answer is here."""
        while True:
            try:
                rows: Rows = scripts.run(self._redis, self._command(claim_id, 0, again=True))
                return _claimed(rows, claim_id)
            except RedisError as error:
                log.warning("claim: Redis is away (%s)", type(error).__name__)
            if give_up():
                return []
            gevent.sleep(RETRY_SECONDS)

    def _command(self, claim_id: str, slots: int, *, again: bool) -> tuple[Any, ...]:
        names = [
            keys.BELL,
            keys.QUEUED_BYTES,
            keys.RQ_STARTED,
            keys.claim(claim_id),
            keys.RQ_QUEUE,
        ]
        args = [
            claim_id,
            min(slots, BATCH),
            int(again),
            self._worker,
            commands.now_text(),
            int(self._judge_until() * 1000),
            keys.CLAIM_SECONDS,
            keys.GRACE_SECONDS,
            keys.JOB_SECONDS,
        ]
        return scripts.CLAIM.command(names, args)


def _claimed(reply: Rows, claim_id: str) -> list[Claimed]:
    rows = zip(reply[::4], reply[1::4], reply[2::4], reply[3::4], strict=True)
    return [
        Claimed(call_id.decode(), web.decode(), claim_id, left / 1000, payload)  # type: ignore
        for call_id, web, left, payload in rows
    ]
