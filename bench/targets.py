"""What is measured: the service as the Procfile starts it, and what runs from this repository."""

from __future__ import annotations

import contextlib
import json
import math
import secrets
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import redis

from bench import load, processes
from bench.client import Endpoint
from bench.processes import (
    READY_SECONDS,
    ROOT,
    Child,
    DidNotServe,
    clean_env,
    cpu_seconds,
    free_port,
    procfile,
    resident_mb,
    wait_until_open,
)
from bench.upstream import Upstream
from gateway.account.api_keys import KeyStore
from gateway.queue import clients
from gateway.settings import Settings
from local.redis_server import RedisServer, find_server, server_version

READY_PATH = "/inference/v1/health/ready"
SETTLE_SECONDS, SETTLE_SHARE = 20.0, 0.1  # at most so long, until less than this of a core is used
WARM_CONNECTIONS, WARM_SECONDS = 16, 2.0
# None of them refuses a call of the benchmark.
ALL_LIMITS = {
    "rpm": 10**6,
    "tpm": 10**9,
    "max_in_flight": 1_000,
    "max_waiting": 1_000,
    "limit": 10**15,
    "limit_reset": "monthly",
}


@dataclass
class Running:
    """A gateway that serves: where, and in which processes."""

    endpoint: Endpoint
    children: dict[str, list[Child]] = field(default_factory=dict)
    idle_mb: float | None = None  # after its first call
    redis_pid: int | None = None  # of the Redis that it uses

    def pids(self, *roles: str) -> list[int]:
        return [
            child.pid
            for role, children in self.children.items()
            if not roles or role in roles
            for child in children
        ]

    def serving_pids(self) -> list[int]:
        """All its processes, Redis among them."""
        return [*self.pids(), *([self.redis_pid] if self.redis_pid else [])]

    def memory(self) -> float | None:
        """Resident megabytes of all its processes."""
        pids = self.pids()
        return round(resident_mb(pids), 1) if pids and processes.MEASURABLE else None

    def stop(self) -> None:
        for children in reversed(self.children.values()):
            for child in children:
                child.stop()


class Stage:
    """What all gateways of a run share: a folder, a Redis, the fake upstream."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.server = RedisServer(folder / "redis", persistent=False)
        # One for all services: a Redis refuses a second service with another.
        self.pepper = secrets.token_urlsafe(48)
        self._ending = contextlib.ExitStack()

    def __enter__(self) -> Stage:
        try:
            self._ending.enter_context(self.server)
            self.redis = self._ending.enter_context(redis.Redis.from_url(self.server.url))
            self.upstream = Upstream(self.folder)
            self._ending.callback(self.upstream.stop)
        except BaseException:
            self._ending.close()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self._ending.close()

    @property
    def redis_title(self) -> str:
        binary = find_server()
        version = ".".join(map(str, server_version(binary)))
        return f"{binary.name} {version}, unix socket, not persistent"

    @property
    def redis_pid(self) -> int:
        assert self.server.process is not None
        return self.server.process.pid

    def log(self, name: str) -> Path:
        return self.folder / f"{name}.log"

    def env(self, **more: str) -> dict[str, str]:
        return clean_env(self.folder, BENCH_UPSTREAM=self.upstream.url, **more)


Start = Callable[[Stage], Running]


@contextlib.contextmanager
def serving(start: Start, stage: Stage) -> Iterator[Running]:
    """A gateway that has answered one call right. Raises DidNotServe; stops it in any case."""
    running = start(stage)
    try:
        problem = load.check(running.endpoint)
        if problem:
            logs = " ".join(child.tail() for group in running.children.values() for child in group)
            raise DidNotServe(f"first call: {problem}. {logs}")
        settle(running)
        running.idle_mb = running.memory()
        load.calls(running.endpoint, WARM_CONNECTIONS, 0, WARM_SECONDS)
        yield running
    finally:
        running.stop()


def settle(running: Running) -> None:
    """Wait until a gateway has come to rest: processes may still start after the first answers."""
    if not running.children or not processes.MEASURABLE:
        return
    end = time.monotonic() + SETTLE_SECONDS
    spent = math.inf
    while time.monotonic() < end and spent > SETTLE_SHARE:
        before = cpu_seconds(running.pids()) or 0.0
        time.sleep(1)
        spent = (cpu_seconds(running.pids()) or 0.0) - before


def begin(running: Running, ready: Callable[[], None]) -> Running:
    """Wait until a started gateway is ready; end its processes where it does not get there."""
    try:
        ready()
    except BaseException:
        running.stop()
        raise
    return running


def direct(stage: Stage) -> Running:
    """No gateway: the fake upstream itself."""
    return Running(Endpoint(stage.upstream.port))


def bare(stage: Stage) -> Running:
    """Flask and requests in two gunicorn-gevent processes."""
    return _gunicorn(stage, "bench.bare:app", "bare", workers=2)


def stock(stage: Stage) -> Running:
    """RQ as it comes: one web process, two forking workers."""
    running = _gunicorn(stage, "bench.stock_rq:app", "stock", workers=1)
    running.redis_pid = stage.redis_pid
    command = [sys.executable, "-m", "rq.cli", "worker", "--url", stage.server.url, "bench"]
    env = stage.env(REDIS_URL=stage.server.url, PYTHONPATH=".")
    running.children["worker"] = [
        Child(command, env, stage.log(f"stock-worker-{number}")) for number in range(2)
    ]
    return running


def _gunicorn(stage: Stage, app: str, name: str, workers: int) -> Running:
    port = free_port()
    command = [sys.executable, "-m", "gunicorn", app, "--config", "python:bench.gunicorn_plain"]
    env = stage.env(REDIS_URL=stage.server.url, WEB_CONCURRENCY=str(workers))
    child = Child([*command, "--bind", f"127.0.0.1:{port}"], env, stage.log(name))
    running = Running(Endpoint(port), {"web": [child]})
    return begin(running, lambda: wait_until_open(port, child))


@dataclass(frozen=True)
class Ours:
    """The service as the Procfile starts it. `redis_url` is where it finds Redis.

    With `full` it has a database (SQLite), and its key has every limit.
    """

    webs: int = 1
    workers: int = 1
    redis_url: str = ""
    redis_connections: str = ""  # a process; empty: the default
    full: bool = False

    def __call__(self, stage: Stage) -> Running:
        port = free_port()
        url = self.redis_url or stage.server.url
        env = stage.env(
            KEY_PEPPER=stage.pepper,
            REDIS_URL=url,
            REDIS_CONNECTIONS=self.redis_connections,
            WEB_CONCURRENCY=str(self.webs),
            GUNICORN_CMD_ARGS=f"--bind 127.0.0.1:{port}",
            OPENAI_API_KEY="sk-upstream",
            OPENAI_BASE_URL=stage.upstream.url,
        )
        if self.full:
            env["DATABASE_URL"] = f"sqlite:///{stage.folder}/account-{port}.db"
            upgrade = [sys.executable, "-m", "flask", "db", "upgrade"]
            subprocess.run(upgrade, cwd=ROOT, env=env, check=True, capture_output=True)
        settings = Settings(key_pepper=stage.pepper, redis_url=stage.server.url)
        key = _key(settings, ALL_LIMITS if self.full else {})
        web = Child(procfile("web"), env, stage.log("web"))
        workers = [
            Child(procfile("worker"), env, stage.log(f"worker-{number}"))
            for number in range(self.workers)
        ]
        endpoint = Endpoint(
            port,
            "/inference/v1/chat/completions",
            "openai/gpt-4o-mini",
            {"Authorization": f"Bearer {key}"},
        )
        running = Running(endpoint, {"web": [web], "worker": workers}, redis_pid=stage.redis_pid)
        return begin(running, lambda: self._until_ready(port, running))

    def _until_ready(self, port: int, running: Running) -> None:
        wait_until_open(port, running.children["web"][0], READY_PATH)
        _until_workers(port, self.workers, running.children["worker"])


def _until_workers(port: int, wanted: int, children: list[Child]) -> None:
    end = time.monotonic() + READY_SECONDS
    while time.monotonic() < end:
        with contextlib.suppress(OSError, ValueError):
            with urllib.request.urlopen(f"http://127.0.0.1:{port}{READY_PATH}", timeout=5) as told:
                if json.load(told).get("workers", 0) >= wanted:
                    return
        for child in children:
            if child.ended:
                raise DidNotServe(f"a worker ended: {child.tail()}")
        time.sleep(0.1)
    raise DidNotServe(f"not {wanted} workers in {READY_SECONDS:.0f} s: {children[0].tail()}")


def _key(settings: Settings, limits: Mapping[str, Any]) -> str:
    client = clients.commands(settings, 1)
    try:
        return KeyStore(client, settings.key_pepper).create("bench", **limits)
    finally:
        client.connection_pool.disconnect()
