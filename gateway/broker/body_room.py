"""Bounds the bytes of large request bodies that a web process holds at once."""

from __future__ import annotations

import time

from gevent.event import Event

from gateway.errors import Overloaded

COUNTED_BYTES = 64_000  # smaller bodies are bounded by the number of calls
WAIT_SECONDS = 60.0  # for room; the body is not read meanwhile
RETRY_SECONDS = 5  # to wait before the next try


class BodyRoom:
    """Room for `total` bytes, of which one API key gets half; a request waits until it fits.

    A body that is larger fits on its own. A request waits `patience` seconds.
    """

    def __init__(self, total: int, patience: float = WAIT_SECONDS) -> None:
        self._total, self._share, self._patience = total, total // 2, patience
        self._held: dict[int, tuple[str, int]] = {}  # by request
        self._freed = Event()

    def hold(self, request: int, key: str, size: int) -> None:
        """Hold `size` bytes for a request of this key, instead of what it holds.

        Raises Overloaded if there is no room in time.
        """
        self.drop(request)
        end = time.monotonic() + self._patience
        while not self._fits(key, size):
            freed = self._freed
            if not freed.wait(max(end - time.monotonic(), 0)):
                raise Overloaded(retry_after=RETRY_SECONDS)
        if size > COUNTED_BYTES:
            self._held[request] = (key, size)

    def drop(self, request: int) -> None:
        """Free what a request holds, if anything."""
        if self._held.pop(request, None) is not None:
            freed, self._freed = self._freed, Event()
            freed.set()

    def _fits(self, key: str, size: int) -> bool:
        if size <= COUNTED_BYTES or not self._held:
            return True
        own = sum(held for owner, held in self._held.values() if owner == key)
        total = sum(held for _, held in self._held.values())
        return total + size <= self._total and (not own or own + size <= self._share)
