"""What gunicorn.conf.py decides about connections."""

from __future__ import annotations

import runpy
import socket
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from gunicorn.workers.ggevent import GeventWorker

from api.http.gunicorn_worker import UNSENT_BYTES, Worker
from gateway.settings import Settings

CONFIG = Path(__file__).parents[4] / "gunicorn.conf.py"


@pytest.fixture
def config(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    monkeypatch.setenv("KEY_PEPPER", "p" * 40)
    return runpy.run_path(str(CONFIG))


class FakeRequest:
    closed = False

    def force_close(self) -> None:
        self.closed = True


def closes(config: dict[str, Any], connections: int) -> bool:
    request = FakeRequest()
    worker = SimpleNamespace(requests_running=0, connections=connections)
    config["pre_request"](worker, request)
    return request.closed


def test_a_connection_is_kept_unless_there_are_many(config: dict[str, Any]) -> None:
    assert not closes(config, config["KEPT_CONNECTIONS"])
    assert closes(config, config["KEPT_CONNECTIONS"] + 1)


@pytest.mark.parametrize("name", ["max_requests", "preload_app"])
def test_a_setting_of_gunicorn_that_cannot_work_is_refused(
    config: dict[str, Any], name: str
) -> None:
    cfg = {"max_requests": 0, "preload_app": False}
    config["on_starting"](SimpleNamespace(cfg=SimpleNamespace(**cfg)))
    with pytest.raises(SystemExit, match=name):
        config["on_starting"](SimpleNamespace(cfg=SimpleNamespace(**{**cfg, name: 1})))


def test_gunicorns_file_needs_no_tmp(config: dict[str, Any]) -> None:
    if Path("/dev/shm").is_dir():
        assert config["worker_tmp_dir"] == "/dev/shm"


def test_kept_connections_leave_room_for_all_calls_that_may_run(config: dict[str, Any]) -> None:
    most = config["KEPT_CONNECTIONS"] + Settings.from_env().max_in_flight
    assert config["worker_connections"] > most + 500


def test_open_connections_are_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    worker: Any = Worker.__new__(Worker)
    worker.worker_connections = 4_000
    counts: list[int] = []

    def broken(self: Any, listener: Any, client: Any, addr: Any) -> None:
        counts.append(self.connections)
        raise OSError

    monkeypatch.setattr(GeventWorker, "handle", broken)
    for _ in range(2):
        with socket.socket() as client, pytest.raises(OSError):
            worker.handle(None, client, None)
    assert (counts, worker.connections) == ([1, 1], 0)


def test_the_system_takes_little_for_a_client_that_does_not_read(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(GeventWorker, "handle", lambda *_: None)
    worker: Any = Worker.__new__(Worker)
    worker.worker_connections = 4_000
    taken = 0
    with socket.create_server(("127.0.0.1", 0)) as server, socket.socket() as reader:
        reader.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        reader.connect(server.getsockname())
        writer, _ = server.accept()
        with writer:
            worker.handle(None, writer, None)
            writer.setblocking(False)
            with pytest.raises(BlockingIOError):
                while taken < 100 * UNSENT_BYTES:
                    taken += writer.send(b"x" * 10_000)
    assert taken < 4 * UNSENT_BYTES


def test_what_is_no_tcp_socket_is_served_as_well(monkeypatch: pytest.MonkeyPatch) -> None:
    served: list[Any] = []
    monkeypatch.setattr(GeventWorker, "handle", lambda self, *_: served.append(_))
    worker: Any = Worker.__new__(Worker)
    worker.worker_connections = 4_000
    one, other = socket.socketpair()
    with one, other:
        worker.handle(None, one, None)
    assert len(served) == 1
