"""Shepherd Model Gateway, a Rust router: it takes the upstream's address without /v1."""

from __future__ import annotations

from pathlib import Path

from bench.client import Endpoint
from bench.peers import venvs
from bench.processes import Child, free_port, wait_until_open
from bench.targets import Running, Stage, begin

TITLE = "smg"
VERSION = "1.13.0"
PROCESSES = 1


def install(home: Path) -> None:
    venvs.install(home, f"smg=={VERSION}")


def start(stage: Stage, home: Path) -> Running:
    port = free_port()
    command = [venvs.python(home), "-m", "smg.launch_router", "--host", "127.0.0.1"]
    command += ["--worker-urls", stage.upstream.url.removesuffix("/v1"), "--policy", "round_robin"]
    command += ["--disable-retries", "--disable-health-check", "--log-level", "error"]
    command += ["--prometheus-host", "127.0.0.1", "--prometheus-port", str(free_port())]
    child = Child([*command, "--port", str(port)], stage.env(), stage.log("smg"), stage.folder)
    running = Running(Endpoint(port), {"gateway": [child]})
    return begin(running, lambda: wait_until_open(port, child, "/health"))
