"""Small libraries in C that are preloaded into chosen processes, to make their system misbehave."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

COMPILER = shutil.which("cc")
MISSING = "" if COMPILER else "there is no C compiler, which makes what is preloaded"


def library(source: Path, folder: Path) -> Path:
    """The library made of this source, in the folder."""
    made = folder / f"{source.stem}.so"
    if not made.exists():
        command = [str(COMPILER), "-shared", "-fPIC", "-O1", "-o", str(made), str(source), "-ldl"]
        subprocess.run(command, check=True)
    return made
