"""local/processes.py: real processes of a Procfile, and how they end."""

from __future__ import annotations

import os
import queue
import re
import time
from pathlib import Path

import pytest

from local.processes import Processes

pytestmark = pytest.mark.slow

SLEEPER = "sleep 600"


class Harness:
    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.lines: queue.SimpleQueue[str] = queue.SimpleQueue()
        self.ends: queue.SimpleQueue[str] = queue.SimpleQueue()
        self.seen: list[str] = []

    def start(self, *names: str, stop_seconds: float = 20, **commands: str) -> Processes:
        procfile = self.folder / "Procfile.dev"
        procfile.write_text("".join(f"{name}: {does}\n" for name, does in commands.items()))
        environ = {**os.environ, "PORT": "8123", "PYTHONUNBUFFERED": "1"}
        chosen = names or tuple(commands)
        return Processes(
            procfile,
            chosen,
            environ,
            write=self.lines.put,
            on_end=self.ends.put,
            stop_seconds=stop_seconds,
        )

    def await_line(self, pattern: str) -> re.Match[str]:
        while True:
            self.seen.append(self.lines.get(timeout=20))
            match = re.search(pattern, self.seen[-1])
            if match:
                return match


@pytest.fixture
def harness(tmp_path: Path) -> Harness:
    return Harness(tmp_path)


def await_gone(group: int) -> None:
    """Return once no process of the group is left; one just killed may still wait to be reaped."""
    deadline = time.monotonic() + 10
    while time.monotonic() < deadline:
        try:
            os.killpg(group, 0)
        except ProcessLookupError:
            return
        time.sleep(0.01)
    pytest.fail(f"process group {group} is still there")


def test_leaving_the_context_ends_every_process(harness: Harness) -> None:
    with harness.start(web=SLEEPER, worker=SLEEPER):
        pids = [int(harness.await_line(r"started \(pid=(\d+)\)")[1]) for _ in range(2)]

    for pid in pids:
        await_gone(pid)


def test_leaving_at_once_ends_every_process(harness: Harness) -> None:
    with harness.start(**{f"p{number}": SLEEPER for number in range(6)}):
        pass

    started = [harness.await_line(r"started \(pid=(\d+)\)") for _ in range(6)]
    for match in started:
        await_gone(int(match[1]))


def test_a_process_drains_before_it_ends(harness: Harness) -> None:
    draining = "trap 'echo drained; exit 0' TERM; echo ready; while :; do sleep 0.05; done"
    with harness.start(web=draining):
        harness.await_line("ready")

    harness.await_line("drained")
    harness.await_line(r"stopped \(code 0\)")
    assert harness.ends.empty(), "a process that was stopped has not ended by itself"


def test_a_process_that_ignores_the_signal_is_killed(harness: Harness) -> None:
    deaf = "trap '' TERM; echo deaf; while :; do sleep 1; done"
    with harness.start(web=deaf, stop_seconds=0.5):
        pid = int(harness.await_line(r"started \(pid=(\d+)\)")[1])
        harness.await_line("deaf$")

    await_gone(pid)


def test_only_the_named_processes_run(harness: Harness) -> None:
    with harness.start("web", web="echo web is here; sleep 600", model="echo the model too"):
        harness.await_line("web is here")

    assert not any("the model" in line for line in harness.seen)


def test_processes_get_the_environment(harness: Harness) -> None:
    with harness.start(web="echo port $PORT; sleep 600", worker=SLEEPER):
        assert harness.await_line(r"port (\d+)")[1] == "8123"


def test_the_settings_file_is_left_alone(harness: Harness) -> None:
    (harness.folder / ".env").write_text("PORT=9999\nFROM_FILE=yes\n")

    with harness.start(web='echo "[$PORT$FROM_FILE]"; sleep 600'):
        assert harness.await_line(r"\[(\w+)\]")[1] == "8123"


def test_the_process_that_ends_first_is_named_once(harness: Harness) -> None:
    with harness.start(web=SLEEPER, worker="echo broken; exit 3"):
        assert harness.ends.get(timeout=20) == "worker ended with code 3"
    harness.await_line(r"web +\| stopped")

    assert harness.ends.empty()
