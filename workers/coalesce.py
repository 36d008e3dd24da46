"""How often the streams of one worker are read when there are many of them.

Each token on its own costs worker, Redis, web process and client a wake and some system calls. With
few streams that is the price of a prompt answer. With hundreds it is most of the work, and all wait
for each other: then every stream is left alone after each reading until the next tick, and the
tokens that have come by then travel together.
"""

from __future__ import annotations

import gevent
from gevent.event import Event as Signal

FEW = 128  # streams that are read as soon as something arrives
SECONDS_A_STREAM = 0.00015  # of the tick: about twice what worker and web process spend on one
LONGEST_SECONDS = 0.06  # of the tick: a reader sees no stutter


class Coalescer:
    """The streams that are being read now, each of which enters it once."""

    def __init__(self) -> None:
        self.streams = 0
        self._tick: Signal | None = None

    def __enter__(self) -> Coalescer:
        self.streams += 1
        return self

    def __exit__(self, *_: object) -> None:
        self.streams -= 1

    def pause(self) -> None:
        """Wait before the same stream is read again; not at all where there are few."""
        if self.streams <= FEW:
            return
        if self._tick is None:
            self._tick = Signal()
            gevent.spawn_later(
                min(self.streams * SECONDS_A_STREAM, LONGEST_SECONDS), self._end_tick, self._tick
            )
        self._tick.wait()

    def _end_tick(self, tick: Signal) -> None:
        self._tick = None
        tick.set()
