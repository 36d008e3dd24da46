"""Reads the large bodies of claimed calls from Redis, one at a time.

In the reply to a claim, one would hold up the small calls beside it.
"""

from __future__ import annotations

import logging
from collections.abc import Container
from typing import cast

import gevent
from gevent.event import Event as Signal
from gevent.lock import BoundedSemaphore
from redis import Redis
from redis.exceptions import RedisError, ResponseError

from gateway.queue import keys
from workers.claims import Claimed

log = logging.getLogger(__name__)

# Bodies of claimed calls. They have left the queue, so its order and its byte limit miss them.
MOST_UNREAD = 4
PIECE_BYTES = 1_000_000  # read at once: cancels go over the same few connections
RETRY_SECONDS = 0.5


class LargeBodies:
    """The large bodies of the calls that one worker has claimed."""

    def __init__(self, redis: Redis) -> None:
        self._redis = redis
        self._reading = BoundedSemaphore(1)
        self._unread: set[str] = set()  # by call
        self._read_one = Signal()

    def claimed(self, call_id: str) -> None:
        """Count the body of a call as unread until its call has read it, or has ended."""
        self._unread.add(call_id)

    def full(self, running: Container[str]) -> bool:
        """Whether so many are unread that the worker should claim no other call.

        `running` has the calls that have not ended.
        """
        self._unread = {call_id for call_id in self._unread if call_id in running}
        return len(self._unread) >= MOST_UNREAD

    def wait(self, seconds: float) -> None:
        """Wait until one has been read, so long at most."""
        self._read_one.clear()
        self._read_one.wait(seconds)

    def read(self, claimed: Claimed) -> bytes | None:
        """Return the body of a call, or None if Redis has lost it; wait while Redis is away."""
        name, pieces, size = keys.call(claimed.call_id), [], 0
        try:
            with self._reading:
                while size < claimed.large:
                    try:
                        piece = self._redis.getrange(name, size, size + PIECE_BYTES - 1)
                    except ResponseError:
                        return None
                    except RedisError as error:
                        log.warning("large body: Redis is away (%s)", type(error).__name__)
                        gevent.sleep(RETRY_SECONDS)
                        continue
                    if not piece:
                        return None
                    pieces.append(cast(bytes, piece))
                    size += len(piece)
        finally:
            self._unread.discard(claimed.call_id)
            self._read_one.set()
        return b"".join(pieces)
