"""local/flask.py: an operator's command for the service that `make run` runs."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from local.redis_server import RedisServer
from local.run import ROOT

# The folders of a clone are fixed: the program names others.
PROGRAM = "import sys, pathlib; from local.flask import main; f = pathlib.Path(sys.argv[1]); "
PROGRAM += "sys.exit(main(f, f / 'none', sys.argv[2:]))"


def flask(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", PROGRAM, str(folder), *arguments],
        cwd=ROOT,
        env={"PATH": os.environ["PATH"]},
        capture_output=True,
        text=True,
        timeout=60,
    )


def test_a_command_works_for_the_running_service(tmp_path: Path) -> None:
    with RedisServer(tmp_path / "data", persistent=False) as server:
        created = flask(server.folder, "keys", "create", "Zoë's laptop")
        listed = flask(server.folder, "keys", "list")
    assert created.returncode == 0, created.stderr
    assert "Zoë's laptop" in listed.stdout


def test_a_service_that_does_not_run_is_reported_with_what_to_do(tmp_path: Path) -> None:
    result = flask(tmp_path / "data", "keys", "list")
    assert result.returncode == 1
    assert "Start it with make run" in result.stderr
