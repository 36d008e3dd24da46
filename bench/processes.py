"""Processes of one run: started in groups of their own, measured through /proc, always stopped."""

from __future__ import annotations

import contextlib
import http.client
import os
import shlex
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
STOP_SECONDS = 5.0
READY_SECONDS = 60.0
MEASURABLE = Path("/proc/self/stat").exists()  # elsewhere memory and CPU are left out


class DidNotServe(Exception):
    """Raised when a server does not start or does not answer; the message says what it did."""


class Child:
    """One server process with all that it starts, its output in a file."""

    def __init__(
        self, command: Sequence[str], env: Mapping[str, str], log: Path, folder: Path = ROOT
    ) -> None:
        self.log = log
        with log.open("ab") as output:
            self._popen = subprocess.Popen(
                list(command),
                cwd=folder,
                env=dict(env),
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                start_new_session=True,
            )

    @property
    def pid(self) -> int:
        return self._popen.pid

    @property
    def ended(self) -> bool:
        return self._popen.poll() is not None

    def stop(self) -> None:
        """End the process and its group; does nothing when they have ended."""
        if not self.ended:
            self._popen.terminate()
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._popen.wait(STOP_SECONDS)
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.pid, signal.SIGKILL)
        self._popen.wait()

    def tail(self, lines: int = 3) -> str:
        """The last lines of its output, in one."""
        text = self.log.read_text(errors="replace").strip().splitlines()
        return " | ".join(text[-lines:])[-600:]


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def clean_env(home: Path, **more: str) -> dict[str, str]:
    """An environment without the caller's settings and keys, in which this Python is found."""
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', os.defpath)}"
    return {"PATH": path, "HOME": str(home), "PYTHONDONTWRITEBYTECODE": "1", **more}


def procfile(name: str) -> list[str]:
    """The command of one process type in the Procfile, run by this Python."""
    for line in (ROOT / "Procfile").read_text().splitlines():
        kind, _, command = line.partition(":")
        if kind.strip() == name:
            words = shlex.split(command)
            first = [sys.executable] if words[0] == "python" else [sys.executable, "-m", words[0]]
            return first + words[1:]
    raise LookupError(f"the Procfile has no {name!r}")


def wait_until_open(
    port: int, child: Child, path: str = "/", seconds: float = READY_SECONDS
) -> None:
    """Return once a server on this port answers HTTP, whatever the status.

    Raises DidNotServe when the process ends first, or in `seconds`.
    """
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if child.ended:
            raise DidNotServe(f"the process ended: {child.tail()}")
        if status(port, path):
            return
        time.sleep(0.05)
    raise DidNotServe(f"nothing answered in {seconds:.0f} s: {child.tail()}")


def status(port: int, path: str) -> int:
    """The status of one GET, or 0 where nothing answers."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
    try:
        connection.request("GET", path)
        return connection.getresponse().status
    except (OSError, http.client.HTTPException):
        return 0
    finally:
        connection.close()


def tree(pid: int) -> list[int]:
    """The process and everything that descends from it; empty where there is no /proc."""
    children: dict[int, list[int]] = {}
    for entry in Path("/proc").glob("[0-9]*"):
        fields = _stat(int(entry.name))
        if fields:
            children.setdefault(int(fields[1]), []).append(int(entry.name))
    found = [pid] if Path(f"/proc/{pid}").exists() else []
    for parent in found:
        found += children.get(parent, [])
    return found


def resident_mb(pids: Sequence[int]) -> float:
    """Resident megabytes of the trees below these processes; shared pages count twice."""
    page = os.sysconf("SC_PAGE_SIZE")
    return sum(_pages(member) for pid in pids for member in tree(pid)) * page / 1e6


def cpu_seconds(pids: Sequence[int]) -> float | None:
    """Processor time of the trees below these processes, with that of ended children."""
    if not MEASURABLE:
        return None
    tick = os.sysconf("SC_CLK_TCK")
    fields = [_stat(member) for pid in pids for member in tree(pid)]
    return sum(sum(map(int, found[11:15])) for found in fields if found) / tick


def _stat(pid: int) -> list[str]:
    """Fields of /proc/PID/stat from the state (field 3) on, or nothing."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return []


def _pages(pid: int) -> int:
    try:
        return int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    except OSError:
        return 0
