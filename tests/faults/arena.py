"""The whole service with fault proxies before Redis and the provider, under a load of clients."""

from __future__ import annotations

import random
import shutil
import threading
import time
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path
from urllib.parse import unquote

import requests
from redis import Redis
from redis.exceptions import RedisError

from gateway.account.database import schema
from gateway.account.database.engine import make_engine
from gateway.queue import keys
from gateway.queue.lease import STEADY_SECONDS
from tests.faults import clock, footprint, preload, routes
from tests.faults.client import PATIENCE_SECONDS, Client, Seen
from tests.faults.proxy import FaultProxy
from tests.faults.reconciler import Defect, leaked_keys, sockets_left
from tests.support.postgres import PostgresServer
from tests.support.stack import LOOK_SECONDS, SECRETS, Process, Stack, reserved_port, until
from tests.support.upstream import Upstream

UPGRADE = threading.Lock()  # Alembic works for one thread at a time
SLOW_NAMES = Path(__file__).parent / "slow_names.c"
IN_FLIGHT = 50  # least calls that a fault must meet
LOAD = 60
DEADLINE_SECONDS = 15.0  # of a call
QUIET_SECONDS = 8.0  # for what ended calls leave behind to go
CONNECTIONS = 8  # to Redis, that a process may have
# Each takes 3 to 4 s, whole and streamed: a fault in the first two seconds meets them all.
LONG = ("fake/nonce-stream-35-100", "claude/nonce-stream-60-60", "fake/delay-3500")
LONGER = ("fake/nonce-stream-100-100", "claude/nonce-stream-160-60", "fake/delay-10000")  # 10 s
SHORT = ("fake/nonce-stream-10-40", "claude/nonce-stream-5-50", "fake/delay-300")
SILENT = ("fake/delay-3500", "claude/delay-3500")  # streams send nothing for so long
AGAIN = {"X-Retry-On-Worker-Loss": "true"}  # a header of calls that may run once more


class Arena(Stack):
    """A stack whose ways can be broken; everything random comes from `rng`.

    `clocks` are the kinds of processes ("web", "worker") whose wall clock `jump` can move. With
    `slow_names`, workers wait 5 s for names that end in ".slow". With `database`, the account is in
    Postgres, behind a proxy.
    `patience` multiplies every limit of time that a row sets: 1 is what is promised on an idle
    machine, tests that run beside others take more.
    """

    def __init__(
        self,
        folder: Path,
        *,
        workers: int = 1,
        env: dict[str, str] | None = None,
        clocks: Sequence[str] = (),
        slow_names: bool = False,
        database: bool = False,
        patience: float = 1.0,
    ) -> None:
        trusting = {"UPSTREAM_CA_BUNDLE": str(routes.AUTHORITY)}
        super().__init__(folder, workers=workers, env={**trusting, **(env or {})})
        self.rng = random.Random()
        self.clocks = clocks
        self.slow_names = slow_names
        self._has_database = database
        self.patience = patience
        self.seen: list[Seen] = []
        self.defects: list[Defect] = []
        self.dead: set[Process] = set()  # processes that were to end
        self.since = 0  # calls in `seen` of earlier rows
        self.begin("")
        self._threads: list[threading.Thread] = []

    def begin(self, seed: str) -> None:
        """Begin a row: forget what came of the last one."""
        self.rng.seed(seed)
        self.defects = []
        self.notes: list[str] = []  # figures worth knowing
        self.since = len(self.seen)
        self.met = 0  # calls in flight when the fault came
        self.fault_at = 0.0  # when it came, in seconds since 1970; 0: with the provider's answers
        self.recovery: float | None = None  # seconds after the fault until a call was answered

    def fake_provider(self) -> Upstream:
        return Upstream(certificates=routes.CERTIFICATES)

    def catalogue(self, provider_url: str) -> str:
        own = routes.rows(self.upstream.secure_ports, provider_url)
        return super().catalogue(provider_url) + own

    def addresses(self) -> tuple[str, str]:
        path = unquote(self.server.url.removeprefix("unix://"))
        self.web_redis = self.ending.enter_context(FaultProxy(path))
        self.worker_redis = self.ending.enter_context(FaultProxy(path))
        self.provider = self.ending.enter_context(FaultProxy(("127.0.0.1", self.upstream.port)))
        return (
            f"redis://127.0.0.1:{self.web_redis.port}/0",
            f"http://127.0.0.1:{self.provider.port}",
        )

    def _start(self) -> None:
        if self._has_database:
            server = self.ending.enter_context(PostgresServer())
            with UPGRADE:
                engine = make_engine(server.url)
                schema.upgrade(engine)
                engine.dispose()
            socket = f"{server.folder}/.s.PGSQL.5432"
            self.database = self.ending.enter_context(FaultProxy(socket))
            address = f"127.0.0.1:{self.database.port}/postgres"
            self._env["DATABASE_URL"] = f"postgres://postgres@{address}"
        super()._start()

    def start_process(self, command: list[str], name: str) -> Process:
        more = {} if name == "web" else {"REDIS_URL": self._worker_url()}
        if name in self.clocks:
            more |= clock.environment(self.folder)
        if name == "worker" and self.slow_names:
            more["LD_PRELOAD"] = str(preload.library(SLOW_NAMES, self.folder))
        usual, self.env = self.env, {**self.env, **more}
        try:
            return super().start_process(command, name)
        finally:
            self.env = usual

    def _worker_url(self) -> str:
        return f"redis://127.0.0.1:{self.worker_redis.port}/0"

    # The load

    def load(
        self,
        models: Sequence[str] = LONG,
        count: int = LOAD,
        over: float = 0.5,
        deadline: float = 0.0,
        leave: tuple[float, float] | None = None,
        reads: bool = True,
        streams: bool | None = None,
        key: str = "",
        word: str = "n",
        headers: dict[str, str] | None = None,
    ) -> list[Seen]:
        """Begin calls at random moments of `over` seconds: half of them streams, or all or none.

        With `leave` their clients go after a random time between these two. Without a `deadline`
        of their own they have the usual one, without a `key` that of the stack. Their texts begin
        with the `word`. `headers` are further ones of their requests.
        """
        calls = []
        deadline = deadline or self.within(DEADLINE_SECONDS)
        for number in range(count):
            nonce = f"{word}{len(self.seen)}x{self.rng.getrandbits(48):012x}"
            stream = number % 2 == 0 if streams is None else streams
            seen = Seen(nonce, self.rng.choice(models), stream, deadline)
            leave_after = self.rng.uniform(*leave) if leave else 0.0
            client = Client(
                *(seen, key or self.key, leave_after, reads, self.within(PATIENCE_SECONDS)),
                headers or {},
            )
            wait = self.rng.uniform(0, over)
            thread = threading.Thread(target=self._begin, args=(client, wait), daemon=True)
            self.seen.append(seen)
            self._threads.append(thread)
            calls.append(seen)
            thread.start()
        return calls

    def within(self, seconds: float) -> float:
        """The limit that a promise of so many seconds has here."""
        return seconds * self.patience

    def _begin(self, client: Client, wait: float) -> None:
        time.sleep(wait)
        client.seen.port = self.port  # the one of now: a deploy may have changed it
        client.run()

    def in_flight(self) -> int:
        return sum(1 for seen in self.seen if seen.began and not seen.ended)

    def soon(self, least: float = 0.8, most: float = 2.0) -> None:
        """Wait until a random moment for the fault, with the load of `load` in flight."""
        time.sleep(self.rng.uniform(least, most))
        self.meet(2)  # on a slow machine, its calls begin late
        self.fault_at = time.time()

    def dice(self) -> random.Random:
        """Chances of their own, for another thread: the order of its throws is not ours to know."""
        return random.Random(self.rng.getrandbits(64))

    def jump(self, seconds: int) -> None:
        """Move the wall clock of the processes in `clocks` so far from the true time."""
        clock.move(self.folder, seconds)

    def meet(self, seconds: float = 20) -> None:
        """Wait until the load is in flight, so long at most."""
        end = time.monotonic() + self.within(seconds)
        while self.met < IN_FLIGHT and time.monotonic() < end:
            self.met = max(self.met, self.in_flight())
            time.sleep(0.01)

    def finish(self) -> None:
        """Wait until every client has ended."""
        for thread in self._threads:
            thread.join(self.within(60))
        self._threads.clear()

    # What scenarios wait for and demand

    def demand(self, condition: object, what: str) -> None:
        """Note a broken promise unless the condition holds."""
        if not condition:
            self.defects.append(Defect("promise", what))

    def only(self, codes: Iterable[str], seen: Iterable[Seen] | None = None) -> None:
        """Demand that no other error than these came."""
        expected = set(codes)
        others = Counter(
            f"{each.code} ({each.model})"
            for each in seen or self.here()
            if each.code and each.code not in expected
        )
        listed = ", ".join(f"{count} {what}" for what, count in others.items())
        self.demand(not others, f"unexpected errors: {listed}")

    def here(self) -> list[Seen]:
        """The calls of this row."""
        return self.seen[self.since :]

    def steady(self) -> None:
        """Wait until the processes have renewed their leases for so long that they judge others."""
        time.sleep(STEADY_SECONDS + 0.7)

    def until_running(self, count: int = IN_FLIGHT) -> None:
        """Until so many calls have been claimed."""
        until(
            lambda: self.redis.zcard(keys.RQ_STARTED) >= count,
            self.within(10),
            f"{count} running calls",
        )
        self.met = max(self.met, self.in_flight())

    def until_known(self, count: int = LOAD) -> None:
        """Until the web process knows which worker runs each of so many calls.

        It asks with one HMGET a call: half a second after the call began, and every two seconds.
        What has been asked three times was answered once after this began.
        """

        def asked() -> int:
            return int(self.redis.info("commandstats")["cmdstat_hmget"]["calls"])

        enough = asked() + 3 * count
        until(lambda: asked() >= enough, self.within(10), "a web process that knows the workers")

    def kill(self, process: Process) -> float:
        """kill -9; when, in seconds since 1970."""
        self.dead.add(process)
        process.kill()
        return time.time()

    def terminate(self, *processes: Process) -> float:
        """SIGTERM; when, in seconds since 1970."""
        for process in processes:
            self.dead.add(process)
            process.terminate()
        return time.time()

    def ended_well(self, process: Process, since: float, seconds: float = 29.0) -> None:
        """Demand that a process that was told to stop has left in time with exit code 0."""
        code = process.wait(self.within(40))
        took = time.time() - since
        self.demand(code == 0, f"exit code {code}")
        self.demand(took < self.within(seconds), f"exit after {took:.1f} s")

    def restart_empty(self) -> None:
        """Restart Redis without its data; the API keys are put back, or nobody would get in."""
        saved = self.saved_keys()
        self.server.stop()
        shutil.rmtree(self.server.folder / "appendonlydir")
        self.server.start()
        for name, fields in saved.items():
            self.redis.hset(name, mapping=fields)

    def saved_keys(self) -> dict[bytes, dict[bytes, bytes]]:
        """The records of the API keys, to put back into an emptied Redis."""
        return {name: self.redis.hgetall(name) for name in self.redis.scan_iter("gw:key:*")}

    def empty(self) -> None:
        """FLUSHALL, the API keys excepted."""
        saved = self.saved_keys()
        with self.redis.pipeline(transaction=True) as pipeline:
            pipeline.flushall()
            for name, fields in saved.items():
                pipeline.hset(name, mapping=fields)  # type: ignore[arg-type]
            pipeline.execute()

    def new_port(self) -> Process:
        """Another web process; calls from now on go to it once it is ready."""
        port = self.ending.enter_context(reserved_port())
        web = self.start_web(port)
        url = f"http://127.0.0.1:{port}/inference/v1/health/ready"
        until(lambda: _ok(url), what=self.logs()[-2000:])
        self.port, self.url = port, f"http://127.0.0.1:{port}/inference/v1"
        return web

    # The end of a row

    def recovered(self, seconds: float = 5.0) -> None:
        """Demand that a new call is answered within `seconds`; called when the fault is over."""
        began = time.monotonic()
        self.answers(seconds)
        self.recovery = time.monotonic() - began

    def answers(self, seconds: float = 5.0) -> None:
        """Demand that a new call is answered within `seconds`."""
        end = time.monotonic() + self.within(seconds)
        while time.monotonic() < end:
            if self._probe():
                return
            time.sleep(LOOK_SECONDS)
        self.demand(False, f"no call is answered {self.within(seconds):g} s after the fault")

    def _probe(self) -> bool:
        try:
            return self.ask("fake/echo", "probe").status_code == 200
        except requests.RequestException:
            return False

    def check_processes(self) -> None:
        """Demand that only those processes have ended that were to."""
        for process in self.processes:
            if process not in self.dead and process.popen.poll() is not None:
                self.demand(False, f"{process.log.name} exited with {process.popen.returncode}")
        logs = self.logs()
        self.demand("Traceback" not in logs, "a traceback in the logs")
        self.demand("WORKER TIMEOUT" not in logs, "gunicorn gave its worker up")
        logged = any(secret in logs for secret in (*SECRETS, self.key))
        self.demand(not logged, "a key in the logs")

    def footprints(self) -> dict[Process, footprint.Footprint]:
        """What each living process holds; its peak is counted from now on."""
        living = [process for process in self.processes if process.popen.poll() is None]
        # Kept connections to providers are no leak: the pool bounds them.
        ports = (self.provider.port, *self.upstream.secure_ports)
        return {process: footprint.of(process.pid, ports) for process in living}

    def check_quiet(self) -> None:
        """Note the keys and connections that are left a while after the last call."""
        keys, sockets = self._left()
        end = time.monotonic() + self.within(QUIET_SECONDS)
        while (keys or sockets) and time.monotonic() < end:
            time.sleep(0.2)
            keys, sockets = self._left()
        self.defects += [Defect("keys", leak) for leak in keys]
        self.defects += [Defect("connections", leak) for leak in sockets]

    def _left(self) -> tuple[list[str], list[str]]:
        try:
            keys = leaked_keys(self.redis)
        except RedisError as error:
            keys = [f"Redis cannot be asked: {error}"]
        sockets = []
        if count := sockets_left(self.port):
            sockets.append(f"{count} connections of clients at the web process")
        living = sum(process.popen.poll() is None for process in self.processes)
        count = self.web_redis.open + self.worker_redis.open
        if count > living * CONNECTIONS:
            sockets.append(f"{count} connections to Redis of {living} processes")
        if count := sum(call["ended"] is None for call in self.upstream.log()):
            sockets.append(f"{count} provider calls still open")
        return keys, sockets

    def admin(self) -> Redis:
        """A connection of its own, for commands that end or stop all others."""
        return Redis.from_url(self.server.url, protocol=2, single_connection_client=True)


def _ok(url: str) -> bool:
    try:
        return requests.get(url, timeout=5).ok
    except requests.RequestException:
        return False
