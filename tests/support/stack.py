"""The whole service as real processes on free ports: Redis, a fake provider, web, workers."""

from __future__ import annotations

import contextlib
import os
import queue
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import requests
from redis import Redis

from gateway.account.api_keys import KeyStore
from gateway.queue import clients
from gateway.settings import Settings
from local.redis_server import RedisServer
from tests.support.upstream import Upstream

ROOT = Path(__file__).parents[2]
PEPPER = "a pepper for tests, and only for tests"
PATIENCE_SECONDS = 120  # for what happens at once on an idle machine; others may be busy
LOOK_SECONDS = 0.05

OPENAI_KEY, ANTHROPIC_KEY = "sk-canary-openai-0123456789", "sk-ant-canary-0123456789"
SECRETS = (OPENAI_KEY, ANTHROPIC_KEY)  # neither callers nor logs may be told

# Any model of the fake provider: its name says how it answers.
MODELS = """
[providers.fake]
wire = "openai"
base_url = "{url}/v1"
[providers.fake-anthropic]
wire = "anthropic"
accepts = ["messages_api"]
base_url = "{url}"
[providers.closed]
wire = "openai"
base_url = "http://127.0.0.1:1/v1"
[models."fake/*"]
provider = "fake"
prices = {{ prompt = "0.1234567", completion = "1.7654321" }}
[models."claude/*"]
provider = "fake-anthropic"
prices = {{ prompt = "3.1000001", completion = "15.7" }}
[models."closed/*"]
provider = "closed"
"""


@contextlib.contextmanager
def reserved_port() -> Iterator[int]:
    """A port of 127.0.0.1 that nobody else gets, for a server that binds with SO_REUSEADDR.

    Connections to it are refused until that server listens.
    """
    with socket.socket() as holder:
        holder.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        holder.bind(("127.0.0.1", 0))
        yield holder.getsockname()[1]


@contextlib.contextmanager
def busy(loops: int) -> Iterator[None]:
    """So many busy loops for each core."""
    command = [sys.executable, "-c", "while True: pass"]
    with contextlib.ExitStack() as ending:
        for _ in range(loops * (os.cpu_count() or 1)):
            loop = ending.enter_context(subprocess.Popen(command))  # leaving waits for its end
            ending.callback(loop.kill)
        yield


def until(condition: Callable[[], Any], seconds: float = PATIENCE_SECONDS, what: str = "") -> Any:
    """The first true value of `condition`; fails when there is none in `seconds`."""
    end = time.monotonic() + seconds
    while True:
        value = condition()
        if value:
            return value
        assert time.monotonic() < end, f"not in {seconds} s: {what or condition}"
        threading.Event().wait(LOOK_SECONDS)


class Process:
    """One process of the service, its output in a file."""

    def __init__(self, command: list[str], env: dict[str, str], log: Path) -> None:
        self.log = log
        with log.open("ab") as output:
            self.popen = subprocess.Popen(
                command, cwd=ROOT, env=env, stdout=output, stderr=output, start_new_session=True
            )

    @property
    def pid(self) -> int:
        return self.popen.pid

    def signal(self, number: int) -> None:
        os.killpg(self.pid, number)

    def terminate(self) -> None:
        """SIGTERM to the process alone, as gunicorn's arbiter expects."""
        self.popen.send_signal(signal.SIGTERM)

    def wait(self, seconds: float = PATIENCE_SECONDS) -> int:
        return self.popen.wait(seconds)

    def kill(self) -> None:
        with contextlib.suppress(ProcessLookupError):
            self.signal(signal.SIGKILL)
        self.popen.wait()


class Stack:
    """Starts everything; a context manager. `env` goes to web and workers."""

    def __init__(
        self,
        folder: Path,
        *,
        workers: int = 1,
        env: dict[str, str] | None = None,
        key_in: str = "",
    ) -> None:
        self.folder = folder
        self._key_in = key_in  # the Redis that the key belongs into, where it is not our own
        self._count = workers
        self._env = env or {}
        self.processes: list[Process] = []
        self.workers: list[Process] = []

    def __enter__(self) -> Stack:
        self.folder.mkdir(parents=True, exist_ok=True)
        self.ending = contextlib.ExitStack()
        try:
            self._start()
        except BaseException:
            self.ending.close()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self.ending.close()

    def _start(self) -> None:
        self.server = self.ending.enter_context(RedisServer(self.folder / "redis"))
        self.redis = self.ending.enter_context(Redis.from_url(self.server.url, protocol=2))
        self.upstream = self.ending.enter_context(self.fake_provider())
        self.ending.callback(self._kill_all)
        models = self.folder / "models.toml"
        redis_url, provider_url = self.addresses()
        models.write_text(self.catalogue(provider_url))
        self.port = self.ending.enter_context(reserved_port())
        self.url = f"http://127.0.0.1:{self.port}/inference/v1"
        self.env = {
            "PATH": os.environ["PATH"],
            "HOME": str(self.folder),
            "KEY_PEPPER": PEPPER,
            "REDIS_URL": redis_url,
            "DEMO_MODELS": "1",
            "MODELS_FILE": str(models),
            "OPENAI_API_KEY": OPENAI_KEY,
            "OPENAI_BASE_URL": f"{provider_url}/v1",
            "ANTHROPIC_API_KEY": ANTHROPIC_KEY,
            "ANTHROPIC_BASE_URL": provider_url,
            "WEB_CONCURRENCY": "1",
            "FILES_URL": (self.folder / "files").as_uri(),
            **self._env,
        }
        self.keys = KeyStore(self._key_redis(), PEPPER)
        self.key = self.keys.create("tests")
        self.web = self.start_web(self.port)
        for _ in range(self._count):
            self.start_worker()
        self.until_ready()

    def fake_provider(self) -> Upstream:
        """What the service is to call."""
        return Upstream()

    def addresses(self) -> tuple[str, str]:
        """Where the service is told to find Redis and the provider."""
        return self.server.url, self.upstream.url

    def catalogue(self, provider_url: str) -> str:
        """The text of MODELS_FILE."""
        return MODELS.format(url=provider_url)

    def start_web(self, port: int) -> Process:
        command = [sys.executable, "-m", "gunicorn", "--bind", f"127.0.0.1:{port}", "wsgi:app"]
        return self.start_process(command, "web")

    def start_worker(self) -> Process:
        worker = self.start_process([sys.executable, "-m", "workers"], "worker")
        self.workers.append(worker)
        return worker

    def until_ready(self) -> None:
        expected = len([worker for worker in self.workers if worker.popen.poll() is None])
        until(lambda: self._ready_workers() == expected, what=f"{expected} workers; {self.logs()}")

    def logs(self) -> str:
        return "".join(path.read_text() for path in sorted(self.folder.glob("*.log")))

    def headers(self, **more: str) -> dict[str, str]:
        return {"Authorization": f"Bearer {self.key}", **more}

    def ask(
        self, model: str, text: str = "hello there", wait: float = PATIENCE_SECONDS, **body: Any
    ) -> requests.Response:
        """One unstreamed or streamed call; the answer's body is read whole.

        Raises requests' Timeout, and has left, after a silence of `wait` seconds.
        """
        headers = self.headers(**body.pop("headers", {}))
        payload = {"model": model, "messages": [{"role": "user", "content": text}], **body}
        return requests.post(
            f"{self.url}/chat/completions", json=payload, headers=headers, timeout=wait
        )

    def open_stream(self, model: str, text: str = "hello there") -> requests.Response:
        """A stream whose headers have arrived and whose events are still to be read."""
        payload = {"model": model, "messages": [{"role": "user", "content": text}], "stream": True}
        return requests.post(
            f"{self.url}/chat/completions",
            json=payload,
            headers=self.headers(),
            timeout=PATIENCE_SECONDS,
            stream=True,
        )

    def in_background(self, *args: Any, **kwargs: Any) -> queue.Queue[Any]:
        """`ask` in a thread; its response or exception comes out of the queue."""
        result: queue.Queue[Any] = queue.Queue()

        def call() -> None:
            try:
                result.put(self.ask(*args, **kwargs))
            except Exception as error:
                result.put(error)

        threading.Thread(target=call, daemon=True).start()
        return result

    def until_called(self, count: int = 1) -> None:
        """Until the fake provider has been asked that often."""
        until(lambda: len(self.upstream.log()) >= count, what=f"{count} provider calls")

    def _key_redis(self) -> Redis:
        if not self._key_in:
            return self.redis
        client = clients.commands(Settings(redis_url=self._key_in), 1)
        self.ending.callback(client.connection_pool.disconnect)
        return client

    def _ready_workers(self) -> int:
        try:
            facts = requests.get(f"{self.url}/health/ready", timeout=PATIENCE_SECONDS).json()
        except (requests.ConnectionError, ValueError):
            return -1
        return facts["workers"] if facts["redis"] == "ok" else -1

    def start_process(self, command: list[str], name: str) -> Process:
        log = self.folder / f"{name}-{len(self.processes)}.log"
        process = Process(command, self.env, log)
        self.processes.append(process)
        return process

    def _kill_all(self) -> None:
        for process in self.processes:
            process.kill()


def events(response: requests.Response) -> Iterator[str]:
    """The data of each server-sent event, as text; comments are left out."""
    for line in response.iter_lines():
        if line.startswith(b"data: "):
            yield line[6:].decode()
