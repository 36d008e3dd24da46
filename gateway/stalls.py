"""How long this process has stood still: stopped, starved of CPU, or busy in one place.

Who judges others by their silence must know that it looked. During a stall nothing is read, so a
timer that runs out right after one says nothing of anybody else. Long work calls `give_turn`, so
that it does not become a stall.
"""

from __future__ import annotations

import time
from typing import Any

import gevent
from gevent.lock import BoundedSemaphore

TICK_SECONDS = 0.1
GAP_SECONDS = 0.25  # between two ticks; a longer one is a stall, for as long as it is longer
TURN_SECONDS = 0.001  # a timer lets the event loop look at its sockets, a sleep of 0 does not
LARGE_BYTES = 1_000_000  # of JSON: to read or to write it takes 2 ms, and 20 MB take 50 ms
_TURNS = BoundedSemaphore(1)


def give_turn(size: int = LARGE_BYTES) -> None:
    """Let other greenlets run before work on JSON of this many bytes, if it is large.

    Only one piece of large work begins in each turn of the event loop.
    """
    if size >= LARGE_BYTES:
        with _TURNS:
            gevent.sleep(TURN_SECONDS)
        if _TURNS.linkcount():
            gevent.sleep(
                0
            )  # else a greenlet that asks again at once would overtake those that wait


class Stalls:
    """Notices by a greenlet of its own, which wakes too late, that its process stood still.

    Until `start` no stall is known.
    """

    def __init__(self) -> None:
        self.total = 0.0  # seconds of the stalls that have ended
        self._ticked: float | None = None
        self._ticker: Any = None

    def start(self) -> None:
        """Begin to notice stalls of the event loop that runs in this thread."""
        self.tick()
        self._ticker = gevent.spawn(self._tick_for_ever)

    def stop(self) -> None:
        """Notice no more stalls."""
        if self._ticker is not None:
            self._ticker.kill(block=False)
        self._ticked = None

    def seconds(self) -> float:
        """Return how many seconds this process has stood still since `start`, until now."""
        return self.total + self._late()

    def awake(self) -> float:
        """Return monotonic seconds that stand still while this process does.

        Measure with it how long others have been silent, never how long a caller has waited.
        """
        return time.monotonic() - self.seconds()

    def silence(self) -> float:
        """Return for how many seconds the event loop has not turned; any thread may call this."""
        return time.monotonic() - self._ticked if self._ticked is not None else 0.0

    def tick(self) -> None:
        """Note that the event loop turns."""
        self.total += self._late()
        self._ticked = time.monotonic()

    def _late(self) -> float:
        if self._ticked is None:
            return 0.0
        return max(time.monotonic() - self._ticked - GAP_SECONDS, 0.0)

    def _tick_for_ever(self) -> None:
        while True:
            gevent.sleep(TICK_SECONDS)
            self.tick()
