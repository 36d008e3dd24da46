"""When Python collects garbage, and when freed memory goes back to the system.

A full collection looks at every object: with 512 streams it took 60 to 180 ms, in which no token
moved. Nearly all garbage of a call is young, and the small collections find it. So full collections
wait for a moment without calls, or until one is overdue.

glibc keeps freed memory between other objects: after 200 bodies of 4 MB a worker stayed 110 MB
larger. `give_back` returns it when calls have run and none runs now. (mallopt's M_MMAP_THRESHOLD
would return each large block at once, but made the work on such a body twice as long.)
"""

from __future__ import annotations

import ctypes
import gc
import resource
import time
import traceback

YOUNG_OBJECTS = 1_000  # made and not freed, between two small collections
MIDDLE = 10  # small collections between two of the middle generation
NEVER = 1_000_000  # middle ones between two full ones: they are made by `Collector.tick`
OVERDUE_SECONDS = 600.0
GIVE_BACK_SECONDS = 5.0  # at least, between two times that freed memory is given back


def settle() -> None:
    """Prepare a process that is about to serve; a Collector must make its full collections.

    Objects that exist now are never looked at again.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(YOUNG_OBJECTS, MIDDLE, NEVER)


def release(error: BaseException | None) -> None:
    """Clear the frames that an exception keeps alive, and with them the prompt.

    A frame that keeps its own exception in a variable, as urllib3's do, would otherwise live with
    all its variables until the next full collection. The exception's type and arguments stay.
    """
    while error is not None:
        traceback.clear_frames(error.__traceback__)
        cause = error.__cause__ or error.__context__
        error.__traceback__ = error.__cause__ = error.__context__ = None
        error = cause


class Collector:
    """Makes the full collections of a process that called `settle`; in others it does nothing."""

    def __init__(self) -> None:
        self._last = time.monotonic()
        self._gave_back = 0.0
        self._worked = False

    def tick(self, busy: bool) -> None:
        """Collect and give freed memory back after calls; collect if it is overdue.

        A few large bodies make little garbage, so it goes by calls and not by garbage alone.
        """
        if gc.get_threshold()[2] != NEVER:
            return
        now = time.monotonic()
        self._worked = self._worked or busy or gc.get_count()[2] > 0
        idle = not busy and self._worked and now - self._gave_back > GIVE_BACK_SECONDS
        if idle or now - self._last > OVERDUE_SECONDS:
            gc.collect()
            self._last = now
        if idle:
            give_back()
            self._gave_back, self._worked = now, False


def resident() -> int:
    """Return how much memory this process has in RAM, in bytes; 0 where Linux does not say."""
    try:
        with open("/proc/self/statm") as file:
            return int(file.read().split()[1]) * resource.getpagesize()
    except (OSError, ValueError, IndexError):
        return 0


def give_back() -> None:
    """Give the freed pages of this process back to the system, if the C library can."""
    try:
        ctypes.CDLL(None).malloc_trim(0)
    except (AttributeError, OSError, TypeError):
        pass  # not glibc
