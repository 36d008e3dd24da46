"""The whole service, watched, under loads of clients; what is measured is held to bars."""

from __future__ import annotations

import os
import random
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import requests

from bench.numbers import percentile
from bench.processes import cpu_seconds, tree
from tests.faults.reconciler import Allowed, reconcile
from tests.load import watch
from tests.load.calls import Ask, Call, Load, Result, run
from tests.load.provider import Provider
from tests.support.stack import Process, Stack

SAMPLE_SECONDS = 0.25
CONFIG = Path(__file__).with_name("watched_gunicorn.py")


@dataclass(frozen=True)
class Bar:
    """One figure: what is promised of it ("": nothing), what it was, whether that holds."""

    promise: str
    measured: str
    held: bool = True


class LoadArena(Stack):
    """A stack under load; everything random comes from `seed`. It collects bars.

    `patience` multiplies what calls may take beyond their deadline, as in the fault suite.
    """

    def __init__(
        self, folder: Path, seed: str, env: dict[str, str] | None = None, patience: float = 1.0
    ) -> None:
        super().__init__(folder, env={**(env or {}), "WATCH_FOLDER": str(folder)})
        self.patience = patience
        self.rng = random.Random(seed)
        self.bars: list[Bar] = []
        self.client_cpu = 0.0
        self.peak_mb = {"web": 0.0, "worker": 0.0}
        self.redis_connections = 0
        self.redis_mb = 0.0  # at most
        self._nonces = 0

    def fake_provider(self) -> Provider:
        self.load_provider = Provider()
        return self.load_provider

    def start_web(self, port: int) -> Process:
        command = [sys.executable, "-m", "gunicorn", "--config", str(CONFIG)]
        return self.start_process([*command, "--bind", f"127.0.0.1:{port}", "wsgi:app"], "web")

    def start_worker(self) -> Process:
        worker = self.start_process([sys.executable, "-m", "tests.load.watched_worker"], "worker")
        self.workers.append(worker)
        return worker

    # The load

    def asks(
        self,
        models: Sequence[str],
        count: int,
        over: float,
        *,
        streams: float = 0.5,
        begin: float = 0.0,
        leave: tuple[float, float] | None = None,
        rate: int = 0,
        image: int = 0,
        deadline: float = 60.0,
    ) -> list[Ask]:
        """Calls evenly spread over `over` seconds; this share of them streams.

        With `leave` their clients go after a random time between these two; `rate` is in bytes a
        second that they read (0: all), `image` in bytes.
        """
        made = []
        for number in range(count):
            self._nonces += 1
            nonce = f"n{self._nonces}x{self.rng.getrandbits(48):012x}"
            at = begin + over * number / count
            stream = self.rng.random() < streams
            gone = self.rng.uniform(*leave) if leave else 0.0
            model = f"fake/{self.rng.choice(models)}"
            made.append(Ask(nonce, model, stream, at, gone, rate, image, deadline))
        return made

    def load(self, asks: list[Ask], keep: bool = False) -> list[Call]:
        """Make these calls, wait for their ends, and look at the processes meanwhile."""
        over = threading.Event()
        sampler = threading.Thread(target=self._sample, args=(over,))
        sampler.start()
        try:
            result: Result = run(Load(self.port, self.key, asks, keep))
        finally:
            over.set()
            sampler.join()
        self.client_cpu = max(self.client_cpu, result.cpu)
        late = result.late
        if late > 0.1:
            self.note(f"clients up to {late * 1000:.0f} ms late")
        return result.calls

    def _sample(self, over: threading.Event) -> None:
        pids = {"web": tree(self.web.pid), "worker": tree(self.workers[0].pid)}
        while not over.wait(SAMPLE_SECONDS):
            for name, members in pids.items():
                self.peak_mb[name] = max(self.peak_mb[name], max(map(resident, members)))
            count = len(self.redis.client_list()) - 1
            self.redis_connections = max(self.redis_connections, count)
            self.redis_mb = max(self.redis_mb, self.redis.info("memory")["used_memory"] / 1e6)

    def resident_mb(self, name: str) -> float:
        """Resident megabytes of the web process, or of the worker, now."""
        process = self.web if name == "web" else self.workers[0]
        return max(map(resident, tree(process.pid)))

    def cpu(self) -> dict[str, float]:
        """Processor seconds so far."""
        pids = {
            "web": self.web.pid,
            "worker": self.workers[0].pid,
            "provider": self.upstream.process.pid,
            "Redis": self.server.process.pid if self.server.process else 0,
        }
        return {name: cpu_seconds([pid]) or 0.0 for name, pid in pids.items()}

    def redis_commands(self) -> int:
        """Commands that Redis has run so far."""
        return int(self.redis.info("stats")["total_commands_processed"])

    # The bars

    def note(self, measured: str) -> None:
        """A figure of which nothing is promised."""
        self.bars.append(Bar("", measured))

    def demand(self, held: bool, promise: str, measured: str) -> None:
        """A figure, and whether it is as promised."""
        self.bars.append(Bar(promise, measured, held))

    def at_most(self, what: str, value: float | None, bound: float, unit: str) -> None:
        """Demand a figure, and that it is not above this."""
        if value is None:
            self.demand(False, f"{what} ≤ {bound:g}{unit}", f"{what}: nothing measured")
        else:
            digits = 2 if 0 < value < 10 and unit == " s" else 0
            measured = f"{what} {value:.{digits}f}{unit}"
            self.demand(value <= bound, f"{what} ≤ {bound:.4g}{unit}", measured)

    def statuses(self, calls: Iterable[Call], allowed: Sequence[int]) -> None:
        """Demand that every call had one of these statuses."""
        count = Counter(call.status for call in calls)
        listed = ", ".join(f"{number} × {status}" for status, number in sorted(count.items()))
        promise = f"only {', '.join(map(str, allowed))}"
        self.demand(set(count) <= set(allowed), promise, listed)

    def nothing_broken(self, calls: Sequence[Call]) -> None:
        """Demand that no call was lost, doubled, mixed up, cut or left running."""
        allowed = Allowed().times(self.patience)
        defects = reconcile(calls, self.upstream.log(), allowed, time.time())
        kinds = Counter(defect.kind for defect in defects)
        listed = ", ".join(f"{number} {kind}" for kind, number in kinds.items())
        promise = "none lost, doubled, wrong, cut, orphaned"
        self.demand(not defects, promise, f"{listed}: {defects[0].what}" if defects else "none")

    def stall(self, name: str, since: float) -> tuple[float, float]:
        """The longest stall of the event loop of web or worker since then, and its own processor
        time in it; milliseconds."""
        time.sleep(2 * watch.LINE_SECONDS)  # for its last line
        return max(watch.stalls(self.folder, name, since), default=(0.0, 0.0))


class Health:
    """Asks /health ten times a second, over a new connection each, while it is entered."""

    def __init__(self, url: str) -> None:
        self.url = f"{url}/health"
        self.seconds: list[float] = []
        self.failed = 0
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._run)

    def __enter__(self) -> Health:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()

    def _run(self) -> None:
        while not self._over.wait(0.1):
            begun = time.monotonic()
            try:
                ok = requests.get(self.url, timeout=5).status_code == 200
            except requests.RequestException:
                ok = False
            self.seconds.append(time.monotonic() - begun)
            self.failed += not ok


def resident(pid: int) -> float:
    """Resident megabytes of one process; 0 where it has gone."""
    try:
        pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    except OSError:
        return 0.0
    return pages * os.sysconf("SC_PAGE_SIZE") / 1e6


def p(share: float, values: Iterable[float]) -> float | None:
    """A percentile; p(0.99, …) is the 99th."""
    return percentile(list(values), share)
