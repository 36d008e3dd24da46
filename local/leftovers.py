"""The processes of a `make run` that was killed: they would keep its port, and take its calls."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import time
from collections.abc import Iterable
from pathlib import Path

FILE = "processes"  # in the data folder: ids of process groups
COMMANDS = ("wsgi:app", "-m workers", "-m local.model_server")  # an id may be reused


def remember(folder: Path, groups: Iterable[int]) -> None:
    """Add process groups to those that run with this data folder."""
    with (folder / FILE).open("a", encoding="ascii") as file:
        file.writelines(f"{group}\n" for group in groups)


def forget(folder: Path) -> None:
    """Forget all process groups of this data folder: they have ended."""
    (folder / FILE).unlink(missing_ok=True)


def end(folder: Path) -> int:
    """Kill what an earlier run has left; returns how many process groups that were."""
    ended = 0
    with contextlib.suppress(FileNotFoundError):
        for group in map(int, (folder / FILE).read_text(encoding="ascii").split()):
            ps = ["ps", "-o", "command=", "-p", str(group)]
            command = subprocess.run(ps, capture_output=True, text=True).stdout
            if any(each in command for each in COMMANDS):
                ended += 1
                with contextlib.suppress(ProcessLookupError, PermissionError):
                    os.killpg(group, signal.SIGKILL)
                    for _ in range(20):  # until it is gone, and its port is free
                        time.sleep(0.1)
                        os.killpg(group, 0)
    forget(folder)
    return ended
