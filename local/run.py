"""`python -m local.run`, what `make run` calls: the whole service on one machine.

Starts Redis, the model, then web and worker; prints two calls to paste once all are ready. On
Ctrl-C, SIGTERM or a closed terminal, web and worker finish the calls that run, for DRAIN_SECONDS at
most; then the model ends, then Redis.
"""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import difflib
import os
import queue
import signal
import socket
import sys
import urllib.error
import urllib.request
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import FrameType

from redis import RedisError

from gateway.account import sign_in_links
from gateway.account.api_keys import KeyStore
from gateway.account.database import schema
from gateway.account.ledger import LedgerUnavailable
from gateway.account.record_store import ADMIN
from gateway.catalogue import file as catalogue_file
from gateway.queue import clients, keys
from gateway.settings import ConfigurationError, Settings
from local import credentials, leftovers
from local.banner import banner
from local.env_file import EnvFileError, read_env
from local.model_server import MODEL, ModelMissing, find_model
from local.processes import Processes
from local.redis_server import RedisServer, RedisServerError

ROOT = Path(__file__).resolve().parent.parent
PORT = 8000
READY_SECONDS = 120.0
DEFAULTS = {"DEMO_MODELS": "1", "DRAIN_SECONDS": "10"}
STOP_SECONDS = 10.0  # that processes may take to stop besides draining
ALL_WELL = ""  # the news that somebody asked us to end

News = queue.SimpleQueue[str]  # why to end; safe to put from a signal handler and from a thread


class NotStarted(Exception):
    """Raised when the service cannot become ready; the message says why."""


@dataclass(frozen=True, slots=True)
class Plan:
    """What will be started, and what to print about it."""

    environ: dict[str, str]
    notes: tuple[str, ...] = ()
    model: str = "demo/echo"  # the one to show, where the local model does not run

    @property
    def base_url(self) -> str:
        return f"http://127.0.0.1:{self.environ['PORT']}/inference/v1"

    @property
    def checks(self) -> dict[str, str]:
        """What has to be ready, and the URL that answers once it is."""
        checks = {"the service": f"{self.base_url}/health/ready"}
        if "LOCAL_MODEL_PORT" in self.environ:
            checks["the model"] = f"http://127.0.0.1:{self.environ['LOCAL_MODEL_PORT']}/health"
        return checks

    @property
    def stages(self) -> list[list[str]]:
        """Names in Procfile.dev in the order of starting; stages stop in the opposite order."""
        model = [["model"]] if "LOCAL_MODEL_PORT" in self.environ else []
        return [*model, ["web", "worker"]]


def with_defaults(folder: Path, environ: Mapping[str, str]) -> dict[str, str]:
    """The settings of a service with that data folder: what is set wins over what is chosen."""
    env = {**DEFAULTS, **{name: value for name, value in environ.items() if value.strip()}}
    env.setdefault("KEY_PEPPER", credentials.pepper(folder))
    env.setdefault("DATABASE_URL", f"sqlite:///{folder.resolve()}/account.db")
    env.setdefault("FILES_URL", (folder.resolve() / "files").as_uri())
    return env


def redis_url(environ: Mapping[str, str]) -> str:
    """The address of the Redis that is set, "" if none is."""
    return environ.get("REDIS_TLS_URL", "").strip() or environ.get("REDIS_URL", "").strip()


def plan(folder: Path, environ: Mapping[str, str]) -> Plan:
    """Complete the environment: what is set in it wins over what is chosen here.

    Raises ModelMissing if the local model should run and is not installed, ConfigurationError for
    a PORT that is not a port.
    """
    env = with_defaults(folder, environ)
    # The commands of Procfile.dev are those beside this Python.
    env["PATH"] = os.pathsep.join([str(Path(sys.executable).parent), env.get("PATH", os.defpath)])
    env["PYTHONUNBUFFERED"] = "1"
    env.pop("LOCAL_MODEL_PORT", None)
    env.setdefault("ADMIN_KEY", credentials.admin_key(folder))
    env["PORT"], *notes = _port(env.get("PORT", str(PORT)))
    if env.get("LOCAL_MODEL", "").lower() == "off":
        return Plan(env, (*notes, "The local model is off (LOCAL_MODEL=off)."))
    if "LOCAL_BASE_URL" in env:
        note = f"local/* models are served by {env['LOCAL_BASE_URL']} (LOCAL_BASE_URL)."
        return Plan(env, (*notes, note))
    find_model()
    env["LOCAL_MODEL_PORT"] = str(free_port())
    env["LOCAL_BASE_URL"] = f"http://127.0.0.1:{env['LOCAL_MODEL_PORT']}/v1"
    return Plan(env, tuple(notes), f"local/{MODEL}")


def _port(preferred: str) -> tuple[str, ...]:
    """The port to use, and a note if it is not `preferred`."""
    if not preferred.isdecimal() or not 0 < int(preferred) < 65536:
        raise ConfigurationError(f"PORT must be a number from 1 to 65535, not {preferred!r}")
    if is_free(int(preferred)):
        return (preferred,)
    port = free_port()
    return (str(port), f"Port {preferred} is taken; using {port}.")


def is_free(port: int) -> bool:
    """Return whether a server could listen on that port of 127.0.0.1 now."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
        return True


def free_port() -> int:
    """Return a port of 127.0.0.1 that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def answers(url: str) -> bool:
    """Return whether a GET of that URL on this machine answers 200."""
    direct = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        with direct.open(url, timeout=2) as response:
            return bool(response.status == 200)
    except (urllib.error.URLError, OSError):
        return False


def environment(file: Path) -> dict[str, str]:
    """The settings in `file`, and those of the environment, which win. Raises EnvFileError."""
    return {**read_env(file), **os.environ}


def misspellings(names: Iterable[str], models_file: str = "") -> list[str]:
    """Warnings about `names` that look like misspelled settings. Raises ConfigurationError."""
    variables = {"PORT", "WEB_CONCURRENCY", "REDIS_TLS_URL", "LOCAL_MODEL"}
    fields = [field for field in dataclasses.fields(Settings) if field.metadata]
    variables |= {field.metadata["variable"] for field in fields}
    for row in catalogue_file.read(models_file).providers.values():
        variables |= {row.key_variable, row.base_url_variable}
    return [
        f"{name} in .env is not a setting. Did you mean {similar}?"
        for name in names
        if name not in variables
        for similar in difflib.get_close_matches(name, variables, 1, 0.85)
    ]


def run(folder: Path, environ: Mapping[str, str], news: News, notes: Iterable[str] = ()) -> None:
    """Run everything until there is news, then end it. `notes` are printed with the banner.

    Raises NotStarted if a process ended by itself, and what `plan`, RedisServer and Settings raise.
    """
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    with contextlib.ExitStack() as ending:
        url = redis_url(environ)
        if not url:
            # Its lock says that nobody else runs with this folder.
            url = ending.enter_context(RedisServer(folder)).url
            if leftovers.end(folder):
                say("Ended the processes of an earlier run that was killed.\n")
            ending.callback(leftovers.forget, folder)
        todo = plan(folder, {**environ, "REDIS_URL": url})
        settings = Settings.from_env(todo.environ)
        keys.use_prefix(settings.redis_prefix)
        schema.upgrade_url(settings.database_url)
        with clients.commands(settings, 1) as client:
            key = credentials.development_key(folder, KeyStore(client, settings.key_pepper))
            link = sign_in_links.make(client, ADMIN)
        for names in todo.stages:
            processes = Processes(
                ROOT / "Procfile.dev",
                names,
                todo.environ,
                write=say,
                on_end=news.put,
                stop_seconds=settings.drain_seconds + STOP_SECONDS,
            )
            ending.enter_context(processes)
            leftovers.remember(folder, processes.groups)
        reason = _await_ready(todo.checks, news)
        if reason is None:
            say(banner(todo.base_url, key, todo.model, (*todo.notes, *notes), link))
            reason = _await_news(news)
        say("Stopping.\n" if reason == ALL_WELL else f"{reason}; stopping the rest.\n")
    if reason != ALL_WELL:
        raise NotStarted(f"{reason}; its last lines above say why")


def _await_ready(checks: dict[str, str], news: News) -> str | None:
    """None once all checks answer, or why it makes no sense to wait any longer."""
    waited = 0.0
    while waited < READY_SECONDS:
        for name, url in list(checks.items()):
            if answers(url):
                del checks[name]
        if not checks:
            return None
        with contextlib.suppress(queue.Empty):
            return news.get(timeout=0.1)
        waited += 0.1
    return f"{' and '.join(checks)} was not ready after {READY_SECONDS:.0f} s"


def _await_news(news: News) -> str:
    while True:
        # Waiting without end would keep signals from being seen on some systems.
        with contextlib.suppress(queue.Empty):
            return news.get(timeout=0.5)


def say(text: str) -> None:
    """Write to standard output, whoever is still reading it."""
    with contextlib.suppress(OSError):
        sys.stdout.write(text)
        sys.stdout.flush()


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m local.run", description=__doc__)
    parser.add_argument("--data", type=Path, default=ROOT / ".data", help="folder for all state")
    parser.add_argument("--env", type=Path, default=ROOT / ".env", help="file of settings")
    arguments = parser.parse_args()
    news: News = queue.SimpleQueue()

    def end(number: int, frame: FrameType | None) -> None:
        news.put(ALL_WELL)  # the one queue whose put may interrupt another one

    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, end)
    try:
        environ = environment(arguments.env)
        notes = misspellings(read_env(arguments.env), environ.get("MODELS_FILE", ""))
        run(arguments.data, environ, news, notes)
    except (NotStarted, RedisServerError, ModelMissing, EnvFileError, ConfigurationError) as error:
        say(f"make run: {error}\n")
        return 1
    except LedgerUnavailable as error:
        say(f"make run: the database at DATABASE_URL does not answer: {error}\n")
        return 1
    except RedisError as error:
        say(f"make run: Redis at REDIS_URL does not answer: {error}\n")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
