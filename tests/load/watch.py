"""Watches an event loop from inside, without the service knowing: how late its timers are.

Each half second a line goes into a file: when, the longest delay of a timer in that time, and how
much processor time the process had in that delay (milliseconds). What it had not, others had.
"""

from __future__ import annotations

import os
import time
from pathlib import Path

import gevent

EVERY_SECONDS = 0.005
LINE_SECONDS = 0.5


def start(folder: str, name: str) -> None:
    """Begin to watch the event loop of this thread."""
    gevent.spawn(_watch, Path(folder) / f"{name}-{os.getpid()}.stalls")


def _watch(path: Path) -> None:
    with path.open("a", buffering=1) as lines:
        since, worst, own = time.time(), 0.0, 0.0
        while True:
            before, worked = time.monotonic(), time.process_time()
            gevent.sleep(EVERY_SECONDS)
            delay = time.monotonic() - before - EVERY_SECONDS
            if delay > worst:
                worst, own = delay, time.process_time() - worked
            if time.time() - since > LINE_SECONDS:
                lines.write(f"{time.time():.3f} {worst * 1000:.1f} {own * 1000:.1f}\n")
                since, worst, own = time.time(), 0.0, 0.0


def stalls(folder: Path, name: str, since: float) -> list[tuple[float, float]]:
    """The longest delays since then, each with the processor time in it; in milliseconds."""
    found = []
    for path in folder.glob(f"{name}-*.stalls"):
        for line in path.read_text().splitlines():
            when, worst, own = map(float, line.split(" "))
            if when > since:
                found.append((worst, own))
    return found
