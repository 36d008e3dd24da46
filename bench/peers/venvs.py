"""What the recipes of Python packages share."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path


def install(home: Path, *requirements: str) -> None:
    """A virtual environment in `home` with these packages, as wheels: nothing is built or run."""
    subprocess.run([sys.executable, "-m", "venv", home / "venv"], check=True)
    pip = [python(home), "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    subprocess.run([*pip, "--only-binary", ":all:", *requirements], check=True)


def python(home: Path) -> str:
    return str(home / "venv" / "bin" / "python")


def script(home: Path, name: str) -> str:
    return str(home / "venv" / "bin" / name)
