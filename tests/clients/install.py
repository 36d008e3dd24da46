"""Installs the clients into .data/clients, each lock file into a folder of its own, once."""

from __future__ import annotations

import hashlib
import shutil
import subprocess
import sys
import venv
from pathlib import Path

ROOT = Path(__file__).parents[2]
HERE = Path(__file__).parent
DATA = ROOT / ".data" / "clients"


def python(name: str) -> Path:
    """The interpreter of an environment with what requirements-NAME.txt lists."""
    lock = HERE / f"requirements-{name}.txt"
    folder = folder_for(name, lock)
    interpreter = folder / "bin" / "python"
    if not (folder / "installed").exists():
        sys.stdout.write(f"Installing {lock.name}\n")
        venv.create(folder, with_pip=True, clear=True)
        pip = [str(interpreter), "-m", "pip", "--disable-pip-version-check", "--quiet", "install"]
        subprocess.run([*pip, "--require-hashes", "-r", str(lock)], check=True)
        (folder / "installed").touch()
    return interpreter


def javascript() -> Path:
    """The folder with the JavaScript clients' scripts beside their node_modules."""
    scripts = HERE / "javascript"
    folder = folder_for("node", scripts / "package-lock.json")
    folder.mkdir(parents=True, exist_ok=True)
    for script in scripts.iterdir():
        shutil.copy(script, folder)
    if not (folder / "installed").exists():
        sys.stdout.write("Installing package-lock.json\n")
        command = ["npm", "ci", "--no-audit", "--no-fund", "--ignore-scripts"]
        subprocess.run(command, cwd=folder, check=True)
        (folder / "installed").touch()
    return folder


def folder_for(name: str, lock: Path) -> Path:
    return DATA / f"{name}-{hashlib.sha256(lock.read_bytes()).hexdigest()[:12]}"
