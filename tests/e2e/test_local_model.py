"""What a newcomer does: `make run`, and paste the two lines that it prints."""

from __future__ import annotations

import json
import os
import queue
import re
import shutil
import signal
import stat
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from redis import Redis
from redis.exceptions import ConnectionError as RedisConnectionError

from local.run import free_port

ROOT = Path(__file__).parents[2]
START_SECONDS = 300
OURS = ("REDIS_URL", "REDIS_TLS_URL", "KEY_PEPPER", "PORT", "LOCAL_MODEL", "LOCAL_BASE_URL")

pytestmark = pytest.mark.slow


class Launcher:
    """One `python -m local.run` on a data folder of its own, with no settings but these."""

    def __init__(self, folder: Path, **settings: str) -> None:
        self.folder = folder
        self._settings = settings
        self.lines: list[str] = []
        self._arriving: queue.SimpleQueue[str | None] = queue.SimpleQueue()

    def __enter__(self) -> Launcher:
        kept = {name: value for name, value in os.environ.items() if name not in OURS}
        command = [sys.executable, "-m", "local.run", "--env", os.devnull]
        self.process = subprocess.Popen(
            [*command, "--data", str(self.folder)],
            cwd=ROOT,
            env={**kept, **self._settings},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        self._reader = threading.Thread(target=self._read)
        self._reader.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self.process.poll() is None:
            self.process.terminate()
            self.process.wait(START_SECONDS)
        self._reader.join()
        assert self.process.stdout is not None
        self.process.stdout.close()

    def _read(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self._arriving.put(line.rstrip("\n"))
        self._arriving.put(None)

    def await_line(self, pattern: str) -> str:
        """The next line with the pattern in it; fails if the launcher ends before."""
        end = time.monotonic() + START_SECONDS
        while True:
            line = self._arriving.get(timeout=max(0.0, end - time.monotonic()))
            assert line is not None, "it ended:\n" + "\n".join(self.lines)
            self.lines.append(line)
            if re.search(pattern, line):
                return line

    def stop(self, number: signal.Signals) -> int:
        """End it with that signal; its exit code, once all its output has been read."""
        self.process.send_signal(number)
        code = self.process.wait(START_SECONDS)
        while (line := self._arriving.get(timeout=START_SECONDS)) is not None:
            self.lines.append(line)
        return code

    def pids(self) -> list[int]:
        """The processes that it told to have started."""
        matches = (re.search(r"started \(pid=(\d+)\)", line) for line in self.lines)
        return [int(match[1]) for match in matches if match]


@pytest.fixture
def folder() -> Iterator[Path]:
    # Not pytest's temporary folder, whose name may be too long for a socket.
    parent = Path(tempfile.mkdtemp(prefix="t-"))
    yield parent / "data"
    shutil.rmtree(parent)


def paste(line: str) -> str:
    """What a shell prints for that line."""
    ran = subprocess.run(
        ["bash", "-c", line], capture_output=True, text=True, timeout=START_SECONDS
    )
    assert ran.returncode == 0, ran.stderr
    return ran.stdout


def assert_nothing_left(launcher: Launcher) -> None:
    pids = launcher.pids()
    assert pids
    deadline = time.monotonic() + START_SECONDS
    while pids and time.monotonic() < deadline:
        # Each was the head of a group; what was just killed may still wait to be reaped.
        pids = [pid for pid in pids if group_lives(pid)]
    assert pids == []
    with (
        Redis(unix_socket_path=str(launcher.folder / "redis.sock")) as client,
        pytest.raises(RedisConnectionError),
    ):
        client.ping()


def group_lives(pid: int) -> bool:
    try:
        os.killpg(pid, 0)
    except ProcessLookupError:
        return False
    return True


def test_the_lines_that_make_run_prints_are_answered_by_the_real_model(folder: Path) -> None:
    port = str(free_port())
    with Launcher(folder, PORT=port) as launcher:
        assert f"http://127.0.0.1:{port}/inference/v1" in launcher.await_line("^Ready")
        command = launcher.await_line("^curl http")
        answer = json.loads(paste(command))
        system = '{"role": "system", "content": "You are a helpful assistant."}, '
        plain = json.loads(paste(command.replace(system, "")))
        stream = paste(launcher.await_line("^curl -N"))

        assert launcher.stop(signal.SIGINT) == 0

    assert answer["model"] == "smollm2-135m-instruct"
    assert "Paris" in answer["choices"][0]["message"]["content"]
    assert answer["choices"][0]["finish_reason"] == "stop"
    assert plain["choices"] == answer["choices"], "the system prompt is the model's default"
    events = [line.removeprefix("data: ") for line in stream.splitlines() if line]
    assert events[-1] == "[DONE]"
    deltas = [json.loads(event)["choices"][0]["delta"] for event in events[:-1]]
    assert "Paris" in "".join(delta.get("content") or "" for delta in deltas)
    assert_nothing_left(launcher)


def test_a_stream_that_runs_when_everything_is_stopped_comes_to_its_end(folder: Path) -> None:
    with Launcher(folder, PORT=str(free_port()), DRAIN_SECONDS="60") as launcher:
        launcher.await_line("^Ready")
        command = launcher.await_line("^curl -N").replace(
            "What is the capital of France?", "Tell me a story about a fox."
        )
        command = command.replace('"temperature": 0', '"temperature": 0, "max_tokens": 12')
        with subprocess.Popen(["bash", "-c", command], stdout=subprocess.PIPE, text=True) as curl:
            assert curl.stdout is not None
            lines = [curl.stdout.readline()]
            launcher.process.send_signal(signal.SIGINT)
            lines += curl.stdout
        assert launcher.process.wait(60) == 0

    assert lines[0], "the stream had begun"
    assert [line for line in lines if '"error"' in line] == []
    assert lines[-2:] == ["data: [DONE]\n", "\n"]
    assert_nothing_left(launcher)


def test_a_second_run_keeps_the_key_and_a_closed_terminal_ends_it(folder: Path) -> None:
    lines = []
    for number in (signal.SIGTERM, signal.SIGHUP):
        with Launcher(folder, PORT=str(free_port()), LOCAL_MODEL="off") as launcher:
            launcher.await_line("^Ready")
            lines.append(launcher.await_line("^curl http"))
            assert "capital of France" in paste(lines[-1])
            assert launcher.stop(number) == 0
        assert_nothing_left(launcher)

    keys = {re.search(r"Bearer (mk_inference_\w+)", line)[1] for line in lines}  # type: ignore[index]
    assert len(keys) == 1
    assert stat.S_IMODE((folder / "development-key").stat().st_mode) == 0o600
    assert stat.S_IMODE((folder / "pepper").stat().st_mode) == 0o600


def test_two_runs_in_one_folder_are_refused_with_the_reason(folder: Path) -> None:
    with Launcher(folder, PORT=str(free_port()), LOCAL_MODEL="off") as first:
        first.await_line("^Ready")
        with Launcher(folder, PORT=str(free_port()), LOCAL_MODEL="off") as second:
            second.await_line(rf"in use by process {first.process.pid};")
            assert second.process.wait(START_SECONDS) == 1
        first.await_line("^curl -N")
        assert first.stop(signal.SIGINT) == 0


def test_a_process_that_cannot_start_is_named_and_ends_the_rest(folder: Path) -> None:
    settings = {"LOCAL_MODEL": "off", "PORT": str(free_port()), "GUNICORN_CMD_ARGS": "--unknown"}
    with Launcher(folder, **settings) as launcher:
        launcher.await_line(r"^make run: (web|worker) ended with code [1-9]")
        assert launcher.process.wait(START_SECONDS) == 1
    assert_nothing_left(launcher)
