"""The processes of Procfile.dev, run by honcho as one child."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import IO, Self

STARTED = re.compile(r"system +\| (\w+)\.\d+ started \(pid=(\d+)\)")
STOPPED = re.compile(r"system +\| (\w+)\.\d+ stopped \(rc=(-?\d+)\)")
START_SECONDS = 10.0
STOP_SECONDS = 20.0  # honcho kills what is left 5 s after the first process has ended


class Processes:
    """The named processes of `procfile`, from entering the context to leaving it.

    Their output is passed to `write`, a line at a time. `on_end` is called once, from another
    thread, with a sentence naming the process that ended first; the others end with it.
    """

    def __init__(
        self,
        procfile: Path,
        names: Sequence[str],
        environ: Mapping[str, str],
        *,
        write: Callable[[str], object],
        on_end: Callable[[str], object],
    ) -> None:
        self._procfile = procfile
        self._names = names
        self._environ = environ
        self._write = write
        self._on_end = on_end
        self._pids: dict[str, int] = {}
        self._all_started = threading.Event()

    def __enter__(self) -> Self:
        # The .env file has been read already, and honcho would let it win over the environment.
        options = ["-f", str(self._procfile), "-d", str(self._procfile.parent), "-e", os.devnull]
        self._process = subprocess.Popen(
            [sys.executable, "-m", "honcho", "start", *options]
            + ["-p", self._environ["PORT"], *self._names],
            env=self._environ,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            # A terminal's Ctrl-C goes to the whole group, and would come on top of ours.
            start_new_session=True,
        )
        assert self._process.stdout is not None
        self._reader = threading.Thread(target=self._relay, args=(self._process.stdout,))
        self._reader.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        # A signal that honcho gets before it knows all its processes makes it forget the others.
        self._all_started.wait(START_SECONDS)
        self._process.terminate()
        try:
            self._process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            for group in (*self._pids.values(), self._process.pid):
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(group, signal.SIGKILL)
            self._process.wait()
        self._reader.join()

    def _relay(self, output: IO[bytes]) -> None:
        told = False
        with output:
            for raw in output:
                line = raw.decode(errors="replace")
                self._write(line)
                if match := STARTED.search(line):
                    self._pids[match[1]] = int(match[2])
                    if self._pids.keys() >= set(self._names):
                        self._all_started.set()
                match = STOPPED.search(line)
                if match and not told:
                    told = True
                    self._on_end(f"{match[1]} ended with code {match[2]}")
        self._all_started.set()
        if not told:
            self._on_end("honcho ended")
