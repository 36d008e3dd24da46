"""Reads the streams of one worker on a common tick when there are many of them.

Each token that is read alone costs worker, Redis, web process and client a wake-up and some system
calls. With few streams, that buys a prompt response. With hundreds, it is most of the work: then
every stream waits for the next tick after each reading, and tokens travel together.
"""

from __future__ import annotations

import gevent
from gevent.event import Event as Signal

MAX_UNCOALESCED = 128  # up to so many streams are read as soon as something arrives
TICK_SECONDS = 0.04  # two tokens of a usual stream; a reader sees no stutter


class Coalescer:
    """The streams that are being read; each enters it once, as a context manager."""

    def __init__(self) -> None:
        self.streams = 0
        self._tick: Signal | None = None

    def __enter__(self) -> Coalescer:
        self.streams += 1
        return self

    def __exit__(self, *_: object) -> None:
        self.streams -= 1

    def pause(self) -> None:
        """Wait for the tick before a stream is read again; returns at once with few streams."""
        if self.streams <= MAX_UNCOALESCED:
            return
        if self._tick is None:
            self._tick = Signal()
            gevent.spawn_later(TICK_SECONDS, self.tick)
        self._tick.wait()

    def tick(self) -> None:
        """Let all streams go on that wait for the tick."""
        tick, self._tick = self._tick, None
        if tick is not None:
            tick.set()
