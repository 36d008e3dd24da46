"""The processes of a Procfile: started together, drained together.

honcho reads the Procfile and runs each command (`honcho.process.Process`, here in a thread). Its
Manager is not used: it takes over the signals of the main thread, kills what is left 5 s after the
first process has ended, and forgets processes if it is stopped before it knows all of their pids.
"""

from __future__ import annotations

import contextlib
import os
import signal
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

from honcho.environ import parse_procfile
from honcho.printer import Message
from honcho.process import Process

START_SECONDS = 10.0  # for a shell to run
KILL_SECONDS = 5.0  # for killed processes to be gone


class Processes:
    """The named processes of `procfile`, from entering the context to leaving it.

    `write` is called with each line of their output. `on_end` is called once, with a sentence that
    names the process that ended first without being stopped. Both are called from other threads.
    Leaving sends SIGTERM to all, waits `stop_seconds` for them to drain, and kills what is left.
    """

    def __init__(
        self,
        procfile: Path,
        names: Sequence[str],
        environ: Mapping[str, str],
        *,
        write: Callable[[str], object],
        on_end: Callable[[str], object],
        stop_seconds: float,
    ) -> None:
        commands = parse_procfile(procfile.read_text(encoding="utf-8")).processes
        self._processes = {
            name: Process(commands[name], name=name, env=dict(environ), cwd=str(procfile.parent))
            for name in names
        }
        self._started = {name: threading.Event() for name in names}
        self._write, self._on_end, self._stop_seconds = write, on_end, stop_seconds
        self._threads: list[threading.Thread] = []
        self._lock = threading.Lock()
        self._groups: dict[str, int] = {}
        self._ending = False

    def __enter__(self) -> Self:
        for name, process in self._processes.items():
            thread = threading.Thread(target=process.run, args=(self,), name=name, daemon=True)
            thread.start()
            self._threads.append(thread)
        for started in self._started.values():
            started.wait(START_SECONDS)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        with self._lock:
            self._ending = True
        for number, seconds in (
            (signal.SIGTERM, self._stop_seconds),
            (signal.SIGKILL, KILL_SECONDS),
        ):
            self._signal(number)
            end = time.monotonic() + seconds
            for thread in self._threads:
                thread.join(max(0.0, end - time.monotonic()))

    @property
    def groups(self) -> list[int]:
        """The process groups that run: each process leads its own."""
        with self._lock:
            return list(self._groups.values())

    def put(self, message: Message) -> None:
        """Take in what honcho has to report of a process: its start, a line, its end."""
        name = message.name
        match message.type:
            case "start":
                with self._lock:
                    self._groups[name] = message.data["pid"]
                self._started[name].set()
                self._say(name, f"started (pid={message.data['pid']})")
            case "line":
                self._say(name, message.data.decode(errors="replace").rstrip())
            case "stop":
                with self._lock:
                    del self._groups[name]
                    first, self._ending = not self._ending, True
                self._say(name, f"stopped (code {message.data['returncode']})")
                if first:
                    self._on_end(f"{name} ended with code {message.data['returncode']}")

    def _say(self, name: str, text: str) -> None:
        self._write(f"{name:<7}| {text}\n")

    def _signal(self, number: signal.Signals) -> None:
        for group in self.groups:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(group, number)
