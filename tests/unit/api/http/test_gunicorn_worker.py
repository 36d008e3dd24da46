"""api/http/gunicorn_worker.py: what it takes from gunicorn, and clients that take nothing."""

from __future__ import annotations

import errno
import inspect
from typing import Any

import gunicorn
import pytest
from gunicorn.glogging import Logger
from gunicorn.http.message import Request
from gunicorn.http.parser import RequestParser
from gunicorn.workers.base import Worker as BaseWorker
from gunicorn.workers.base_async import AsyncWorker
from gunicorn.workers.ggevent import GeventWorker

from api.http import gunicorn_worker
from api.http.gunicorn_worker import SEND_SECONDS, StrictRequest, Worker

SEAMS = [
    (AsyncWorker, "handle", "(self, listener, client, addr)"),
    (AsyncWorker, "handle_request", "(self, listener_name, req, sock, addr)"),
    (GeventWorker, "handle", "(self, listener, client, addr)"),
    (GeventWorker, "handle_request", "(self, listener_name, req, sock, addr)"),
    (BaseWorker, "init_process", "(self)"),
    (Request, "parse", "(self, unreader)"),
    (Request, "_parse_fast", "(self, unreader, buf)"),
    (Logger, "warning", "(self, msg, *args, **kwargs)"),
]


@pytest.mark.parametrize(("owner", "name", "signature"), SEAMS)
def test_the_seam_is_where_the_installed_gunicorn_has_it(
    owner: type, name: str, signature: str
) -> None:
    seam = f"{owner.__module__}.{owner.__name__}.{name}"
    moved = f"gunicorn {gunicorn.__version__} moved {seam}: see api/http/gunicorn_worker.py"
    assert hasattr(owner, name), moved
    assert str(inspect.signature(getattr(owner, name))) == signature, moved


def test_gunicorn_makes_requests_of_the_class_that_its_parser_names() -> None:
    moved = f"gunicorn {gunicorn.__version__} moved RequestParser.mesg_class"
    assert RequestParser.mesg_class in (Request, StrictRequest), moved
    assert "mesg_class(" in inspect.getsource(RequestParser.__next__), moved


def test_the_module_names_the_installed_version() -> None:
    assert gunicorn_worker.__doc__ is not None
    assert f"gunicorn {gunicorn.__version__}" in gunicorn_worker.__doc__, "read the table again"


class FakeSocket:
    def __init__(self) -> None:
        self.timeouts: list[float | None] = []

    def settimeout(self, seconds: float | None) -> None:
        self.timeouts.append(seconds)


def handle(monkeypatch: pytest.MonkeyPatch, serve: Any) -> FakeSocket:
    monkeypatch.setattr(GeventWorker, "handle_request", lambda *_: serve())
    worker: Any = Worker.__new__(Worker)
    connection = FakeSocket()
    try:
        worker.handle_request(None, None, connection, None)
    finally:
        assert connection.timeouts == [SEND_SECONDS, None], "the next head has a time of its own"
    return connection


def test_a_request_is_served_under_a_time_limit_for_sends(monkeypatch: pytest.MonkeyPatch) -> None:
    handle(monkeypatch, lambda: True)


def test_a_client_that_takes_nothing_has_left(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def silent() -> None:
        raise TimeoutError("timed out")

    caplog.set_level("INFO")
    with pytest.raises(BrokenPipeError) as error:
        handle(monkeypatch, silent)
    assert error.value.errno == errno.EPIPE
    assert [record.levelname for record in caplog.records] == ["INFO"]


def test_other_errors_of_a_connection_are_gunicorns(monkeypatch: pytest.MonkeyPatch) -> None:
    def reset() -> None:
        raise ConnectionResetError(errno.ECONNRESET, "reset")

    with pytest.raises(ConnectionResetError):
        handle(monkeypatch, reset)
