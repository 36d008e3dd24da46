"""api/http/gunicorn_worker.py: what it takes from gunicorn, and clients that take nothing."""

from __future__ import annotations

import errno
import inspect
import json
import socket
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import gunicorn
import pytest
from gunicorn import util
from gunicorn.config import Config
from gunicorn.glogging import Logger
from gunicorn.http import wsgi
from gunicorn.http.body import ChunkedReader, LengthReader
from gunicorn.http.message import Request
from gunicorn.http.parser import RequestParser
from gunicorn.http.unreader import SocketUnreader
from gunicorn.workers.base import Worker as BaseWorker
from gunicorn.workers.base_async import AsyncWorker
from gunicorn.workers.ggevent import GeventWorker

from api.http import gunicorn_worker
from api.http.gunicorn_worker import SEND_SECONDS, Response, StrictRequest, Worker

SEAMS: list[tuple[Any, str, str]] = [
    (AsyncWorker, "handle", "(self, listener, client, addr)"),
    (AsyncWorker, "handle_request", "(self, listener_name, req, sock, addr)"),
    (GeventWorker, "handle", "(self, listener, client, addr)"),
    (GeventWorker, "handle_request", "(self, listener_name, req, sock, addr)"),
    (BaseWorker, "init_process", "(self)"),
    (BaseWorker, "init_signals", "(self)"),
    (BaseWorker, "handle_error", "(self, req, client, addr, exc)"),
    (BaseWorker, "handle_exit", "(self, sig, frame)"),
    (BaseWorker, "handle_usr1", "(self, sig, frame)"),
    (GeventWorker, "handle_quit", "(self, sig, frame)"),
    (Request, "read_into", "(self, unreader, buf, stop=False)"),
    (Request, "should_close", "(self)"),
    (Request, "set_body_reader", "(self)"),
    (GeventWorker, "timeout_ctx", "(self)"),
    (wsgi.Response, "write", "(self, arg)"),
    (util, "http_date", "(timestamp=None)"),
    (util, "write_nonblock", "(sock, data, chunked=False)"),
    (Request, "parse", "(self, unreader)"),
    (Request, "_parse_fast", "(self, unreader, buf)"),
    (Logger, "warning", "(self, msg, *args, **kwargs)"),
]


@pytest.mark.parametrize(("owner", "name", "signature"), SEAMS)
def test_the_seam_is_where_the_installed_gunicorn_has_it(
    owner: Any, name: str, signature: str
) -> None:
    seam = f"{owner.__name__}.{name}"
    moved = f"gunicorn {gunicorn.__version__} moved {seam}: see api/http/gunicorn_worker.py"
    assert hasattr(owner, name), moved
    assert str(inspect.signature(getattr(owner, name))) == signature, moved


def test_gunicorn_makes_requests_of_the_class_that_its_parser_names() -> None:
    moved = f"gunicorn {gunicorn.__version__} moved RequestParser.mesg_class"
    assert RequestParser.mesg_class in (Request, StrictRequest), moved
    assert "mesg_class(" in inspect.getsource(RequestParser.__next__), moved


def test_gunicorn_looks_settings_up_where_attributes_are_read_first() -> None:
    settings = Config()
    settings.__dict__.update(keepalive=7)
    assert settings.keepalive == 7, f"gunicorn {gunicorn.__version__} moved Config.__getattr__"


def test_gunicorn_makes_responses_of_the_class_that_is_replaced() -> None:
    moved = f"gunicorn {gunicorn.__version__} moved wsgi.Response"
    assert "response_class = Response" in inspect.getsource(wsgi.create), moved
    assert "util.http_date()" in inspect.getsource(wsgi.Response.default_headers), moved


def test_the_module_names_the_installed_version() -> None:
    assert gunicorn_worker.__doc__ is not None
    assert f"gunicorn {gunicorn.__version__}" in gunicorn_worker.__doc__, "read the table again"


def test_gunicorn_writes_its_errors_with_the_function_that_is_replaced() -> None:
    moved = f"gunicorn {gunicorn.__version__} moved util.write_error"
    signature = str(inspect.signature(util.write_error)).replace(": Any", "").replace(": int", "")
    assert signature.startswith("(sock, status_int"), moved
    assert "util.write_error(client" in inspect.getsource(BaseWorker.handle_error), moved


def test_gunicorn_bounds_a_head_by_the_attribute_that_is_set() -> None:
    moved = f"gunicorn {gunicorn.__version__} moved max_buffer_headers"
    for parser in (Request._parse_fast, Request._parse_python):
        assert "self.max_buffer_headers" in inspect.getsource(parser), moved


def test_gunicorn_drops_unread_bodies_where_none_is_left_unread() -> None:
    moved = f"gunicorn {gunicorn.__version__} moved RequestParser.finish_body"
    text = inspect.getsource(RequestParser.__next__)
    assert 0 < text.find(".should_close()") < text.find("if not self.finish_body():"), moved


def test_gunicorns_readers_know_what_is_unread() -> None:
    moved = f"gunicorn {gunicorn.__version__} moved the state of body readers"
    assert "self.length -= size" in inspect.getsource(LengthReader.read), moved
    assert "self.parser = None" in inspect.getsource(ChunkedReader.read), moved


def test_gunicorn_asks_for_bodies_by_the_flag_that_is_cleared() -> None:
    moved = f"gunicorn {gunicorn.__version__} moved _expected_100_continue"
    assert "if req._expected_100_continue:" in inspect.getsource(wsgi.create), moved


@pytest.fixture
def connection() -> Iterator[tuple[socket.socket, socket.socket]]:
    client, server = socket.socketpair()
    with client, server:
        client.settimeout(60)
        yield client, server


def parse(server: socket.socket, number: int = 1, keepalive: float = 7) -> StrictRequest:
    config = Config()
    config.__dict__.update(keepalive=keepalive)
    return StrictRequest(config, SocketUnreader(server), ("127.0.0.1", 1), number)


@pytest.mark.parametrize("head", [b"", b"GET / HTTP/1.1\r\nHost: x\r\n"], ids=["no", "half a"])
def test_a_connection_with_no_whole_head_is_given_up(
    connection: tuple[socket.socket, socket.socket], head: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(gunicorn_worker, "HEAD_SECONDS", 0.01)
    client, server = connection
    client.sendall(head)
    with pytest.raises(StopIteration):
        parse(server)
    assert not StrictRequest.silent


def test_a_later_request_may_take_its_time_to_begin(
    connection: tuple[socket.socket, socket.socket],
) -> None:
    client, server = connection
    client.sendall(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
    parse(server, number=2)
    assert server.gettimeout() == 7


def test_a_connection_that_stays_idle_is_closed(
    connection: tuple[socket.socket, socket.socket],
) -> None:
    with pytest.raises(StopIteration):
        parse(connection[1], number=2, keepalive=0.01)


# What comes with the head, what comes later, and whether the body is unread then.
BODIES = {
    "none": (b"", b"", b"", False),
    "a length": (b"Content-Length: 5\r\n", b"12", b"345", True),
    "a length, with the head": (b"Content-Length: 5\r\n", b"12345", b"", False),
    "a length, and more": (b"Content-Length: 5\r\n", b"12345GET", b"", True),
    "no bytes": (b"Content-Length: 0\r\n", b"", b"", False),
    "chunks": (b"Transfer-Encoding: chunked\r\n", b"2\r\n12\r\n0\r\n\r\n", b"", True),
}


@pytest.mark.parametrize(("header", "came", "later", "unread"), BODIES.values(), ids=BODIES)
def test_a_connection_is_closed_unless_the_body_is_read(
    connection: tuple[socket.socket, socket.socket],
    header: bytes,
    came: bytes,
    later: bytes,
    unread: bool,
) -> None:
    client, server = connection
    client.sendall(b"POST / HTTP/1.1\r\nHost: x\r\n" + header + b"\r\n" + came)
    request = parse(server)
    client.sendall(later)
    assert (request.unread(), request.should_close()) == (unread, unread)
    body = request.body.read()
    assert (request.unread(), request.should_close()) == (False, False)
    assert body == (b"12345" if b"Length: 5" in header else b"12" if came else b"")


@pytest.mark.parametrize("parser_name", ["python", "auto"])
@pytest.mark.parametrize(
    "first", [b"POST / HTTP/1.1\r\nContent-Length: 3\r\n\r\none", b"GET / HTTP/1.1\r\n\r\n"]
)
def test_a_request_that_came_with_the_one_before_is_read_next(
    connection: tuple[socket.socket, socket.socket], first: bytes, parser_name: str
) -> None:
    client, server = connection
    client.sendall(first + b"POST / HTTP/1.1\r\nContent-Length: 3\r\n\r\ntwo")
    config = Config()
    config.set("http_parser", parser_name)
    parser = RequestParser(config, server, ("127.0.0.1", 1))
    parser.mesg_class = StrictRequest
    bodies = [next(parser).body.read() for _ in range(2)]
    assert bodies == [b"one" if first.endswith(b"one") else b"", b"two"]


def test_the_longest_silent_connection_makes_room_when_the_pool_is_nearly_full(
    connection: tuple[socket.socket, socket.socket], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(GeventWorker, "handle", lambda *_: None)
    client, server = connection
    worker: Any = Worker.__new__(Worker)
    worker.worker_connections = 8
    with socket.socket() as newer, socket.socket() as newest:
        monkeypatch.setattr(StrictRequest, "silent", {server: None, newer: None})
        worker.connections = 6
        worker.handle(None, newest, None)
        assert server in StrictRequest.silent
        worker.connections = 7
        worker.handle(None, newest, None)
        assert list(StrictRequest.silent) == [newer]
    assert client.recv(1) == b""


@pytest.mark.parametrize("status", [400, 403, 414, 417, 431, 500, 501])
def test_an_error_before_the_app_is_json_and_quotes_nothing(
    connection: tuple[socket.socket, socket.socket], status: int
) -> None:
    client, server = connection
    gunicorn_worker.write_error(server, status, "Reason", "sk-canary")
    server.close()
    head, _, body = client.recv(65_536).partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 %d Reason\r\nConnection: close\r\n" % status)
    error = json.loads(body)["error"]
    assert set(error) == {"message", "type", "param", "code", "request_id"}
    assert f"X-Request-Id: {error['request_id']}".encode() in head
    assert b"canary" not in head + body


def test_what_a_refused_client_still_sends_is_bounded(
    connection: tuple[socket.socket, socket.socket], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(gunicorn_worker, "LINGER_BYTES", 1000)
    client, server = connection
    client.sendall(b"x" * 70_000)
    gunicorn_worker.linger(server)
    assert client.recv(1) == b""
    assert server.recv(65_536) == b"x" * (70_000 - 65_536)


class FakeRequest:
    @staticmethod
    def unread() -> bool:
        return False


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
        worker.handle_request(None, FakeRequest(), connection, None)
    finally:
        assert connection.timeouts == [SEND_SECONDS]
    return connection


class SlowSocket:
    """A socket whose client takes ten bytes at first."""

    def __init__(self) -> None:
        self.taken = b""

    def send(self, data: bytes) -> int:
        self.taken += data[:10]
        return len(data[:10])

    def sendall(self, data: bytes) -> None:
        self.taken += data


def test_a_response_is_sent_whole_to_a_slow_client() -> None:
    request = SimpleNamespace(
        method="GET", version=(1, 1), proxy_protocol_info=None, should_close=lambda: False
    )
    client = SlowSocket()
    response = Response(request, client, Config())
    response.start_response("200 OK", [("Content-Length", "12")])
    response.write(b"hello ")
    response.write(b"there!")
    head, _, body = client.taken.partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 200 OK\r\n")
    assert body == b"hello there!"


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
