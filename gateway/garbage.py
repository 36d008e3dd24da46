"""When Python looks for garbage, and when the memory of what is freed goes back to the system.

A full collection looks at every object: with 512 streams running, 60 to 180 ms in which no token
moves. Nearly all garbage of a call is young, and the small collections find it. So the full ones
wait for a moment without calls, or until one is overdue.

glibc gives large blocks back as they are freed, but raises what it calls large to the largest block
that it has seen freed (up to 32 MB, mallopt(3)). After 200 bodies of 4 MB a worker kept 110 MB for
that reason, in holes between small objects.
"""

from __future__ import annotations

import ctypes
import gc
import time

YOUNG_OBJECTS = 1_000  # made and not freed, between two small collections
MIDDLE = 10  # small collections between two of the middle generation
NEVER = 1_000_000  # middle ones between two full ones: they are made by `Collector.tick`
OVERDUE_SECONDS = 600.0
M_MMAP_THRESHOLD = -3  # of mallopt()
LARGE_BYTES = 1_000_000


def settle() -> None:
    """From now on this process serves: leave what it is made of alone, and full collections to a
    Collector."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(YOUNG_OBJECTS, MIDDLE, NEVER)
    try:
        ctypes.CDLL(None).mallopt(M_MMAP_THRESHOLD, LARGE_BYTES)
    except (AttributeError, OSError, TypeError):
        pass  # another C library, with ways of its own


class Collector:
    """Makes the full collections of a process that has settled; of another it makes none."""

    def __init__(self) -> None:
        self._last = time.monotonic()

    def tick(self, busy: bool) -> None:
        """Collect if there is something to look at and the process has the time, or must."""
        _, _, middle = gc.get_count()
        overdue = time.monotonic() - self._last > OVERDUE_SECONDS
        if middle and (overdue or not busy) and gc.get_threshold()[2] == NEVER:
            gc.collect()
            self._last = time.monotonic()
