"""Taking calls from the queue, so that whatever reply is lost each is started once."""

from __future__ import annotations

import logging
import uuid
from collections.abc import Callable

import gevent
from redis import Redis
from redis.exceptions import ConnectionError, RedisError, TimeoutError

from gateway import connections, dispatch, keyspace, scripts
from workers.tasks import Claimed

log = logging.getLogger(__name__)

BATCH = 64  # most calls taken at once: others can start while this many bodies are being parsed
RETRY_SECONDS = 0.25


class Claims:
    """One worker's way of taking calls."""

    def __init__(
        self, redis: Redis, bell: Redis, worker: str, webs_may_be_judged: Callable[[], bool]
    ) -> None:
        self._redis, self._bell, self._worker = redis, bell, worker
        self._judge = webs_may_be_judged

    def wait_bell(self) -> None:
        """Wait until a call may be waiting, at most BLOCK_SECONDS; a dead Redis is waited out."""
        try:
            self._bell.blpop([keyspace.BELL], timeout=connections.BLOCK_SECONDS)
        except RedisError as error:
            log.warning("bell: Redis is away (%s)", type(error).__name__)
            gevent.sleep(RETRY_SECONDS)

    def take(self, slots: int, give_up: Callable[[], bool]) -> list[Claimed]:
        """Start up to `slots` waiting calls; returns once it is certain which.

        Where Redis stays away and `give_up` says so, what was taken is left to be found lost.
        """
        claim_id = uuid.uuid4().hex
        again = False
        while True:
            try:
                reply = self._claim(claim_id, min(slots, BATCH), again)
                return _claimed(reply, claim_id)
            except (ConnectionError, TimeoutError) as error:
                # The script may have run: ask for what this claim took, until the answer is here.
                log.warning("claim: Redis is away (%s)", type(error).__name__)
                again = True
            except RedisError as error:
                log.error("claim: refused (%s)", type(error).__name__)
                if not again:
                    gevent.sleep(RETRY_SECONDS)
                    return []
            if give_up():
                return []
            gevent.sleep(RETRY_SECONDS)

    def _claim(self, claim_id: str, slots: int, again: bool) -> list[bytes | int | None]:
        keys = [
            keyspace.BELL,
            keyspace.QUEUED_BYTES,
            keyspace.RQ_STARTED,
            keyspace.claim(claim_id),
            keyspace.RQ_QUEUE,
        ]
        args = [
            claim_id,
            slots,
            int(again),
            self._worker,
            dispatch.now_text(),
            int(self._judge()),
            keyspace.CLAIM_SECONDS,
            keyspace.GRACE_SECONDS,
            keyspace.JOB_SECONDS,
            keyspace.INBOX_EVENTS,
            keyspace.INBOX_SECONDS,
        ]
        reply: list[bytes | int | None] = scripts.CLAIM(self._redis, keys, args)
        return reply


def _claimed(reply: list[bytes | int | None], claim_id: str) -> list[Claimed]:
    rows = zip(reply[::4], reply[1::4], reply[2::4], reply[3::4], strict=True)
    return [
        Claimed(call_id.decode(), web.decode(), claim_id, left / 1000, payload)  # type: ignore
        for call_id, web, left, payload in rows
    ]
