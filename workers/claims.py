"""Taking calls from the queue, so that whatever reply is lost each is started once."""

from __future__ import annotations

import logging
import time
import uuid
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, TypeAlias

import gevent
import orjson
from redis import Redis
from redis.exceptions import ConnectionError, NoScriptError, RedisError, TimeoutError

from gateway.errors import JobLost
from gateway.queue import clients, commands, keys, scripts
from gateway.queue.clients import Command, DedicatedConnection
from gateway.queue.protocol import CallSpec, ProtocolError

log = logging.getLogger(__name__)

BATCH = 64  # most calls taken at once: others can start while this many bodies are being parsed
RETRY_SECONDS = 0.25

Rows: TypeAlias = "list[Any]"  # bytes, int or None


@dataclass(slots=True)
class Claimed:
    """A call that this worker has claimed.

    `budget` is the time that it has left, in seconds. `payload` is None where Redis lost the job,
    and where it is `large`: it has so many bytes (else 0), which are still to be read.
    `admission` is what the queue knows of the call: `cap` (of its output, in tokens; 0 for none),
    `queued_ms`, `reserved_usd` (in 1e-9 USD) and `reserved_tokens`; `retry` if the call may run
    once more, and `lost_ms` if it does: for how long a lost worker has run it. It is empty for a
    call of the previous release.
    """

    call_id: str
    web: str
    claim: str
    budget: float
    payload: bytes | None
    admission: dict[str, Any] = field(default_factory=dict)
    claimed_at: float = field(default_factory=time.monotonic)
    large: int = 0

    @property
    def may_run_again(self) -> bool:
        """Whether the call runs once more if this worker is lost before its response."""
        return "retry" in self.admission

    @property
    def runs_again(self) -> bool:
        """Whether an earlier worker ran the call and was lost."""
        return "lost_ms" in self.admission


def opened(payload: bytes | None, call_id: str) -> tuple[CallSpec, bytes]:
    """Return spec and body of a claimed call; raises JobLost if Redis has none to be read."""
    if payload is None:
        raise JobLost
    try:
        return CallSpec.decode(payload)
    except ProtocolError:
        log.error("call %s: the record in Redis is not one of ours", call_id)
        raise JobLost from None


class Claims:
    """One worker's way of taking calls.

    `bell` waits for calls; `redis` is for short commands. `judge_until()` returns until when a web
    process without a lease may be taken for dead: seconds since 1970 on Redis' clock, 0 for never.
    """

    def __init__(
        self,
        redis: Redis,
        bell: DedicatedConnection,
        worker: str,
        judge_until: Callable[[], float],
    ) -> None:
        self._redis, self._bell, self._worker = redis, bell, worker
        self._judge_until = judge_until

    def take(self, slots: int, give_up: Callable[[], bool]) -> list[Claimed]:
        """Wait for calls, at most BLOCK_SECONDS, and start up to `slots` of them.

        Returns once it is certain which calls were started. If Redis stays away and `give_up()` is
        true, it returns none; calls that were started are found lost later.
        """
        claim_id = uuid.uuid4().hex
        try:
            return _claimed(self._wait_and_claim(claim_id, slots), claim_id)
        except (ConnectionError, TimeoutError) as error:
            if not give_up():
                log.warning("bell: Redis is away (%s)", type(error).__name__)
            return self._ask_again(claim_id, give_up)
        except RedisError as error:
            log.error("claim: refused (%s)", type(error).__name__)
            gevent.sleep(RETRY_SECONDS)
            return []

    def interrupt(self) -> None:
        """End a `take` that waits; it still finds out what it took."""
        self._bell.disconnect()

    def command(self, claim_id: str, slots: int, *, again: bool = False) -> Command:
        """Return the command that starts up to `slots` waiting calls under `claim_id`.

        With `again` it starts none, and returns those that the claim has started before.
        """
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
            keys.lease(""),
        ]
        return scripts.CLAIM.command(names, args)

    def _wait_and_claim(self, claim_id: str, slots: int) -> Rows:
        """Wait for the bell and claim, in one round trip: Redis runs the script once the bell, or
        its timeout, has let the connection go on.

        A claim sent after the bell's reply cost each call at one connection another 0.2 ms.
        """
        command = self.command(claim_id, slots)
        bell = ("BLPOP", keys.BELL, clients.BLOCK_SECONDS)
        _, reply = self._bell.round_trip([bell, command])
        if isinstance(reply, NoScriptError):
            [reply] = scripts.run_all(self._bell, [command])
        if isinstance(reply, RedisError):
            raise reply
        rows: Rows = reply
        return rows

    def _ask_again(self, claim_id: str, give_up: Callable[[], bool]) -> list[Claimed]:
        """The script may have run: ask for what this claim took, until the answer is here."""
        while True:
            try:
                rows: Rows = scripts.run(self._redis, self.command(claim_id, 0, again=True))
                return _claimed(rows, claim_id)
            except RedisError as error:
                log.warning("claim: Redis is away (%s)", type(error).__name__)
            if give_up():
                return []
            gevent.sleep(RETRY_SECONDS)


def _claimed(reply: Rows, claim_id: str) -> list[Claimed]:
    rows = zip(*(reply[at::5] for at in range(5)), strict=True)
    return [
        Claimed(
            call_id.decode(),
            web.decode(),
            claim_id,
            left / 1000,
            None if isinstance(payload, int) else payload,
            orjson.loads(admission),
            large=payload if isinstance(payload, int) else 0,
        )
        for call_id, web, left, payload, admission in rows
    ]
