"""The service with samplers in web process and worker."""

from __future__ import annotations

import sys
from pathlib import Path

from gateway.account.database import schema
from tests.soak import sampler
from tests.support.stack import Process, Stack
from tests.support.upstream import Upstream


class SampledStack(Stack):
    """A stack whose processes tell what they hold: see `socket`.

    A database takes the account: without one Redis keeps the last 10,000 records.
    """

    def __init__(self, folder: Path, *, workers: int = 1, trace: bool = False) -> None:
        url = f"sqlite:///{folder}/account.db"
        schema.upgrade_url(url)
        env = {"DATABASE_URL": url, **({"PYTHONTRACEMALLOC": "1"} if trace else {})}
        super().__init__(folder, workers=workers, env=env)
        self._sockets: dict[int, Path] = {}

    def socket(self, process: Process) -> Path:
        """Where to ask this process' sampler."""
        return self._sockets[process.pid]

    def start_web(self, port: int) -> Process:
        command = [sys.executable, "-m", "gunicorn", "--config", "tests/soak/gunicorn_conf.py"]
        return self.start_process([*command, "--bind", f"127.0.0.1:{port}", "wsgi:app"], "web")

    def start_worker(self) -> Process:
        worker = self.start_process([sys.executable, "-m", "tests.soak.worker"], "worker")
        self.workers.append(worker)
        return worker

    def restart_upstream(self) -> None:
        """The fake provider again, at its old address."""
        self.upstream = self.ending.enter_context(Upstream(self.upstream.port))

    def start_process(self, command: list[str], name: str) -> Process:
        socket = self.folder / f"{name}-{len(self._sockets)}.sock"
        usual, self.env = self.env, {**self.env, sampler.SOCKET: str(socket)}
        try:
            process = super().start_process(command, name)
        finally:
            self.env = usual
        self._sockets[process.pid] = socket
        return process
