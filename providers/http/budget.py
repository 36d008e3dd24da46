"""Bounds the bytes of whole responses that one process has read and Redis still holds.

A whole response (embeddings above all) may have 34 MB. It is in this process, and then several
times in Redis until the web process has it. What would be too much waits unread, at the provider.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from itertools import islice

import gevent

from gateway.errors import Overloaded, PayloadTooLarge

SMALL = 1 << 16  # bytes; smaller responses are not counted
LOOK_CALLS = 1_000  # at most, in one look
LOOK_SECONDS = 0.1  # between two looks for what has been delivered

Delivered = Callable[[Sequence[str]], Sequence[bool]]


class Budget:
    """The bytes that responses may take. Responses up to SMALL are free.

    `delivered(call_ids)` returns which of the calls that are held Redis no longer holds. It is only
    called while a response waits for room, and raises nothing.
    """

    def __init__(self, limit: int = sys.maxsize) -> None:
        self.limit = limit
        self.delivered: Delivered = lambda call_ids: [True] * len(call_ids)
        self._readings: dict[int, Reading] = {}  # the oldest first
        self._held: dict[str, int] = {}  # by call, the oldest first
        self._held_bytes = 0
        self._looking = False

    @property
    def used(self) -> int:
        """The bytes that are counted now."""
        return sum(each.size for each in self._readings.values()) + self._held_bytes

    def hold(self, call_id: str, size: int) -> None:
        """Count the answer of a call until it is delivered; waits for nothing."""
        if size > SMALL:
            self._held[call_id] = size
            self._held_bytes += size

    def grow(self, reading: Reading, size: int) -> None:
        """Let a reading take `size` bytes in all; wait for room until the call's deadline.

        Raises PayloadTooLarge for what can never fit, and Overloaded if the provider's time ends
        meanwhile.
        """
        if size > self.limit:
            raise PayloadTooLarge(
                f"The response is too large: this service can pass on {self.limit:,} bytes at "
                "once. Request fewer or smaller results.",
                should_retry=False,
            )
        self._readings.setdefault(id(reading), reading)
        while not self._fits(reading, size):
            try:
                self._look()
                if self._fits(reading, size):
                    break
                gevent.sleep(LOOK_SECONDS)
            except gevent.Timeout:
                # The one that gives a silent provider up; but this wait is ours.
                raise Overloaded(
                    "The responses that this worker holds are too large together. "
                    "Request smaller ones, or fewer at a time.",
                    should_retry=False,  # the provider has been called
                ) from None
        reading.size = size

    def release(self, reading: Reading) -> None:
        """Forget a reading."""
        self._readings.pop(id(reading), None)

    def _fits(self, reading: Reading, size: int) -> bool:
        if self.used - reading.size + size <= self.limit:
            return True
        # Readings that wait for each other would wait for ever: the oldest leaves the others out.
        oldest = next(iter(self._readings.values()))
        return reading is oldest and self._held_bytes + size <= self.limit

    def _look(self) -> None:
        if self._looking or not self._held:
            return
        self._looking = True
        try:
            call_ids = list(islice(self._held, LOOK_CALLS))
            for call_id, gone in zip(call_ids, self.delivered(call_ids), strict=True):
                if gone:
                    self._held_bytes -= self._held.pop(call_id)
        finally:
            self._looking = False


class Reading:
    """One response that is being read as a whole, and the bytes that it counts for."""

    def __init__(self, budget: Budget) -> None:
        self.size = 0
        self._budget = budget

    def expect(self, size: int) -> None:
        """Make room for a body of `size` bytes, known before it is read; raises as `grow`."""
        if size > max(self.size, SMALL):
            self._budget.grow(self, size)

    def arrived(self, size: int) -> None:
        """Make room for what may follow the first `size` bytes of a body; raises as `grow`."""
        if size > max(self.size, SMALL):
            self._budget.grow(self, min(2 * size, max(size, self._budget.limit)))

    def close(self) -> None:
        """Count no longer."""
        self._budget.release(self)
