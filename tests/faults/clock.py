"""A wall clock that jumps, for chosen processes: a small library in C, preloaded into them.

Not libfaketime: where it leaves the monotonic clock alone (0.9.10), time.sleep() fails.
"""

from __future__ import annotations

import shutil
import struct
import subprocess
from pathlib import Path

SOURCE = Path(__file__).with_suffix(".c")
COMPILER = shutil.which("cc")
MISSING = "" if COMPILER else "there is no C compiler, which makes the clock"


def environment(folder: Path) -> dict[str, str]:
    """What makes a process read the clock of `folder`, which `move` moves."""
    library = folder / "clock.so"
    if not library.exists():
        move(folder, 0)
        command = [str(COMPILER), "-shared", "-fPIC", "-O1", "-o", str(library), str(SOURCE)]
        subprocess.run(command, check=True)
    return {"LD_PRELOAD": str(library), "MOVED_CLOCK": str(_file(folder))}


def move(folder: Path, seconds: int) -> None:
    """Let the clock differ from the true time by so much, at once."""
    # Written over, not anew: the processes have mapped this very file.
    with _file(folder).open("r+b" if _file(folder).exists() else "wb") as file:
        file.write(struct.pack("=q", seconds))


def _file(folder: Path) -> Path:
    return folder / "moved"
