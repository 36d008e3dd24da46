"""A wall clock that jumps, for chosen processes: a small library in C, preloaded into them.

Not libfaketime: where it leaves the monotonic clock alone (0.9.10), time.sleep() fails.
"""

from __future__ import annotations

import struct
from pathlib import Path

from tests.faults import preload

SOURCE = Path(__file__).with_suffix(".c")


def environment(folder: Path) -> dict[str, str]:
    """What makes a process read the clock of `folder`, which `move` moves."""
    if not _file(folder).exists():
        move(folder, 0)
    library = preload.library(SOURCE, folder)
    return {"LD_PRELOAD": str(library), "MOVED_CLOCK": str(_file(folder))}


def move(folder: Path, seconds: int) -> None:
    """Let the clock differ from the true time by so much, at once."""
    # Written over, not anew: the processes have mapped this very file.
    with _file(folder).open("r+b" if _file(folder).exists() else "wb") as file:
        file.write(struct.pack("=q", seconds))


def _file(folder: Path) -> Path:
    return folder / "moved"
