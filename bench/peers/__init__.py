"""Other gateways: one recipe each, with its version, installed into bench/.peers/NAME.

A recipe has TITLE, VERSION, PROCESSES, `install(home)` and `start(stage, home)`.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path
from types import ModuleType

from bench.peers import litellm, portkey, smg, tensorzero

HOME = Path(__file__).resolve().parent.parent / ".peers"
PEERS: dict[str, ModuleType] = {
    "litellm": litellm,
    "portkey": portkey,
    "tensorzero": tensorzero,
    "smg": smg,
}


def installed(name: str) -> bool:
    """Whether this recipe's very version is there."""
    marker = HOME / name / "version"
    return marker.exists() and marker.read_text() == PEERS[name].VERSION


def install(name: str) -> str:
    """Install one peer anew; the message of what went wrong, or ""."""
    home = HOME / name
    if installed(name):
        return ""
    shutil.rmtree(home, ignore_errors=True)
    home.mkdir(parents=True)
    try:
        PEERS[name].install(home)
    except (OSError, subprocess.CalledProcessError) as error:
        return str(error)
    (home / "version").write_text(PEERS[name].VERSION)
    return ""


def unknown(names: list[str]) -> list[str]:
    """Those that no recipe is for."""
    return [name for name in names if name not in PEERS]


def say(text: str) -> None:
    sys.stdout.write(text + "\n")
    sys.stdout.flush()
