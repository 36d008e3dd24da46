"""A reply's head and body in one write, whatever the reply is."""

from __future__ import annotations

import errno

import pytest

from api.http.gunicorn_worker import ReplySocket

HEAD = b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\n"


class FakeSocket:
    def __init__(self) -> None:
        self.written: list[bytes] = []
        self.room = 1_000_000

    def send(self, data: bytes) -> int:
        self.written.append(data[: self.room])
        return len(data[: self.room])

    def sendall(self, data: bytes) -> None:
        self.written.append(data)

    def fileno(self) -> int:
        return 7


@pytest.fixture
def connection() -> FakeSocket:
    return FakeSocket()


@pytest.fixture
def reply(connection: FakeSocket) -> ReplySocket:
    return ReplySocket(connection)  # type: ignore[arg-type]


def test_head_and_body_go_out_together(connection: FakeSocket, reply: ReplySocket) -> None:
    reply.sendall(HEAD)
    assert connection.written == []
    reply.sendall(b"body")
    reply.flush()
    assert connection.written == [HEAD + b"body"]


def test_a_reply_without_a_body_goes_out_at_its_end(
    connection: FakeSocket, reply: ReplySocket
) -> None:
    reply.sendall(HEAD)
    reply.flush()
    reply.flush()
    assert connection.written == [HEAD]


def test_only_the_head_is_held(connection: FakeSocket, reply: ReplySocket) -> None:
    reply.sendall(HEAD)
    for chunk in (b"5\r\na\r\n\r\n\r\n", b"0\r\n\r\n"):
        reply.sendall(chunk)
    assert connection.written == [HEAD + b"5\r\na\r\n\r\n\r\n", b"0\r\n\r\n"]


def test_what_does_not_fit_at_once_follows(connection: FakeSocket, reply: ReplySocket) -> None:
    connection.room = 10
    reply.sendall(HEAD)
    reply.sendall(b"body")
    assert len(connection.written) == 2
    assert b"".join(connection.written) == HEAD + b"body"


def test_all_else_is_the_sockets(reply: ReplySocket) -> None:
    assert reply.fileno() == 7


@pytest.mark.parametrize("step", ["send", "sendall"])
def test_a_client_that_takes_nothing_has_left(
    connection: FakeSocket,
    reply: ReplySocket,
    step: str,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    def silent(data: bytes) -> int:
        raise TimeoutError("timed out")

    caplog.set_level("INFO")
    connection.room = 2
    monkeypatch.setattr(connection, step, silent)
    with pytest.raises(BrokenPipeError) as error:
        reply.sendall(b"event")
    assert error.value.errno == errno.EPIPE
    assert [record.levelname for record in caplog.records] == ["INFO"]
    assert "event" not in caplog.text
