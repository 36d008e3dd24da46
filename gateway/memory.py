"""When Python looks for garbage, and when the memory of what is freed goes back to the system.

A full collection looks at every object: with 512 streams running, 60 to 180 ms in which no token
moves. Nearly all garbage of a call is young, and the small collections find it. So the full ones
wait for a moment without calls, or until one is overdue.

glibc keeps what was freed between other objects: after 200 bodies of 4 MB a worker stayed 110 MB
larger. It is asked to give that back when calls have run and none does. (To have it give back every
large block at once, by mallopt's M_MMAP_THRESHOLD, made the work on such a body twice as long.)
"""

from __future__ import annotations

import ctypes
import gc
import time
import traceback

YOUNG_OBJECTS = 1_000  # made and not freed, between two small collections
MIDDLE = 10  # small collections between two of the middle generation
NEVER = 1_000_000  # middle ones between two full ones: they are made by `Collector.tick`
OVERDUE_SECONDS = 600.0
GIVE_BACK_SECONDS = 5.0  # at least, between two times that freed memory is given back


def settle() -> None:
    """From now on this process serves: leave what it is made of alone, and full collections to a
    Collector."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(YOUNG_OBJECTS, MIDDLE, NEVER)


def release(error: BaseException | None) -> None:
    """Let go of what an exception holds on to: the frames it passed, and with them the prompt.

    A frame that keeps its own exception in a variable, as urllib3's do, would otherwise live with
    all its variables until the next full collection. The exception itself stays as it is.
    """
    while error is not None:
        traceback.clear_frames(error.__traceback__)
        cause = error.__cause__ or error.__context__
        error.__traceback__ = error.__cause__ = error.__context__ = None
        error = cause


class Collector:
    """Makes the full collections of a process that has settled; of another it makes none."""

    def __init__(self) -> None:
        self._last = time.monotonic()
        self._gave_back = 0.0
        self._worked = False

    def tick(self, busy: bool) -> None:
        """Collect if there is something to look at and the process has the time, or must.

        And give back what calls have freed: a few large bodies make no garbage worth a look.
        """
        if gc.get_threshold()[2] != NEVER:
            return
        _, _, middle = gc.get_count()
        now = time.monotonic()
        if middle and (not busy or now - self._last > OVERDUE_SECONDS):
            gc.collect()
            self._last = now
            self._worked = True
        if busy:
            self._worked = True
        elif self._worked and now - self._gave_back > GIVE_BACK_SECONDS:
            _give_back()
            self._gave_back, self._worked = now, False


def _give_back() -> None:
    """Give the freed pages of this process back to the system, where the C library can."""
    try:
        ctypes.CDLL(None).malloc_trim(0)
    except (AttributeError, OSError, TypeError):
        pass  # not glibc
