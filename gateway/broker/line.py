"""The order in which submissions are sent: small ones together, large ones alone in between."""

from __future__ import annotations

from collections import deque
from typing import Generic, TypeVar

T = TypeVar("T")

LARGE_BYTES = 64_000


class Line(Generic[T]):
    """Items that wait to be sent in batches, each with its size.

    Small ones are taken all together. Large ones are taken one at a time, each after the small ones
    that wait, so nobody waits for more than one of them.
    """

    def __init__(self) -> None:
        self._small: list[T] = []
        self._large: deque[T] = deque()
        self._large_next = False

    def __bool__(self) -> bool:
        return bool(self._small or self._large)

    def put(self, item: T, size: int) -> None:
        """Add an item of `size` bytes."""
        if size > LARGE_BYTES:
            self._large.append(item)
        else:
            self._small.append(item)

    def take(self) -> list[T]:
        """Return the items of the next batch; empty if none wait."""
        if self._large and (self._large_next or not self._small):
            self._large_next = False
            return [self._large.popleft()]
        self._large_next = True
        batch, self._small = self._small, []
        return batch
