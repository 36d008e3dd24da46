"""local/leftovers.py: what a killed `make run` has left."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from local import leftovers

SLEEP = [sys.executable, "-c", "import time; time.sleep(600)"]


@pytest.fixture
def worker() -> Iterator[subprocess.Popen[bytes]]:
    with subprocess.Popen([*SLEEP, "-m", "workers"], start_new_session=True) as process:
        yield process
        process.kill()


@pytest.fixture
def stranger() -> Iterator[subprocess.Popen[bytes]]:
    with subprocess.Popen(SLEEP, start_new_session=True) as process:
        yield process
        process.kill()


def test_processes_of_a_killed_run_are_ended_and_others_are_not(
    tmp_path: Path, worker: subprocess.Popen[bytes], stranger: subprocess.Popen[bytes]
) -> None:
    leftovers.remember(tmp_path, [worker.pid])
    leftovers.remember(tmp_path, [stranger.pid])

    assert leftovers.end(tmp_path) == 1
    assert worker.wait(60) < 0
    assert stranger.poll() is None
    assert leftovers.end(tmp_path) == 0


def test_processes_that_ended_with_their_run_are_forgotten(
    tmp_path: Path, worker: subprocess.Popen[bytes]
) -> None:
    leftovers.remember(tmp_path, [worker.pid])
    leftovers.forget(tmp_path)

    assert leftovers.end(tmp_path) == 0
    assert worker.poll() is None
