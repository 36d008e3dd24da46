"""Requests as they are written, and responses as they are read, byte for byte."""

from __future__ import annotations

import pytest

from gateway.errors import UpstreamBadResponse, UpstreamTruncated
from providers.http.http1 import JOINED, MAX_HEAD, Exchange, encode_head


class Wire:
    """A socket that gives these pieces, then its end, and takes so many bytes at once."""

    def __init__(self, *pieces: bytes, broken: bool = False, takes: int = 1 << 20) -> None:
        self.takes = takes
        self.pieces, self.sent, self.broken = list(pieces), b"", broken

    def recv(self, size: int) -> bytes:
        piece = self.pieces.pop(0) if self.pieces else b""
        if len(piece) > size:
            self.pieces.insert(0, piece[size:])
        return piece[:size]

    def send(self, data: bytes) -> int:
        taken = data[: self.takes]
        self.sendall(taken)
        return len(taken)

    def sendall(self, data: bytes) -> None:
        if self.broken:
            raise BrokenPipeError
        self.sent += data


def response(*pieces: bytes) -> Exchange:
    exchange = Exchange(Wire(*pieces))
    exchange.read_head()
    return exchange


def body(exchange: Exchange) -> bytes:
    return b"".join(iter(exchange.read, b""))


def test_a_head_holds_the_headers_and_the_length_of_the_body() -> None:
    head = encode_head("/v1?a=b", {"Host": "x:1", "X": "ä"}, 7)
    lines = "POST /v1?a=b HTTP/1.1\r\nHost: x:1\r\nX: ä\r\nContent-Length: 7\r\n\r\n"
    assert head == lines.encode("latin-1")


@pytest.mark.parametrize("value", ["a\nb", "a\rb", "a\r\nb: c", "a\0b", "€"])
def test_a_header_that_cannot_be_sent_is_refused(value: str) -> None:
    with pytest.raises(ValueError):
        encode_head("/", {"X": value}, 0)


@pytest.mark.parametrize("takes", [3, 1 << 20])
@pytest.mark.parametrize("size", [0, JOINED, JOINED + 1])
def test_a_body_of_any_size_is_sent_whole(size: int, takes: int) -> None:
    wire = Wire(takes=takes)
    Exchange(wire).send(b"head", b"x" * size)
    assert wire.sent == b"head" + b"x" * size


def test_a_server_may_respond_before_it_has_read_everything() -> None:
    exchange = Exchange(Wire(b"HTTP/1.1 413 Too Large\r\nContent-Length: 0\r\n\r\n", broken=True))
    exchange.send(b"head", b"body")
    exchange.read_head()
    assert exchange.status == 413


WHOLE = (
    b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nX-One: 1\r\nx-one:2\r\nFolded: a\r\n  b\r\n\r\nhello"
)


@pytest.mark.parametrize("step", [1, 7, 1000])
@pytest.mark.parametrize("line_end", [b"\r\n", b"\n"])
def test_a_response_may_come_in_any_pieces(step: int, line_end: bytes) -> None:
    data = WHOLE.replace(b"\r\n", line_end)
    exchange = response(*(data[at : at + step] for at in range(0, len(data), step)))
    assert (exchange.status, exchange.left) == (200, 5)
    assert exchange.headers == {"content-length": "5", "x-one": "1, 2", "folded": "a b"}
    assert body(exchange) == b"hello"
    assert exchange.ended and exchange.reusable


CHUNKED = b"HTTP/1.1 200\r\nTransfer-Encoding: Chunked\r\n\r\n"
FRAMINGS = {
    # head and body: content, whether the connection can be used again
    b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nab": (b"ab", True),
    b"HTTP/1.1 200 OK\r\nContent-Length: 2, 2\r\n\r\nab": (b"ab", True),
    b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: Close\r\n\r\nab": (b"ab", False),
    b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nabHTTP/1.1 200 OK\r\n": (b"ab", False),
    b"HTTP/1.0 200 OK\r\nContent-Length: 2\r\n\r\nab": (b"ab", False),
    b"HTTP/1.0 200 OK\r\nContent-Length: 2\r\nConnection: keep-alive\r\n\r\nab": (b"ab", True),
    b"HTTP/1.1 200 OK\r\n\r\nab": (b"ab", False),
    b"HTTP/1.1 200 OK\r\nTransfer-Encoding: identity\r\n\r\nab": (b"ab", False),
    b"HTTP/1.1 204 No Content\r\nContent-Length: 2\r\n\r\n": (b"", True),
    b"HTTP/1.1 304 Not Modified\r\n\r\n": (b"", True),
    b"HTTP/1.1 101 Switching\r\n\r\n": (b"", True),
    CHUNKED + b"2\r\nab\r\n1\r\nc\r\n0\r\n\r\n": (b"abc", True),
    CHUNKED + b"2\r\nab\r\n0\r\n\r\nHTTP/1.1": (b"ab", False),
    CHUNKED.replace(b"\r\n\r\n", b"\r\nContent-Length: 9\r\n\r\n") + b"1\r\na\r\n0\r\n\r\n": (
        b"a",
        True,
    ),
    b"HTTP/1.1 103 Early\r\nContent-Length: 9\r\n\r\n" + CHUNKED + b"0\r\n\r\n": (b"", True),
    b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\n\r\nab": (b"ab", False),
}


@pytest.mark.parametrize("data", FRAMINGS)
def test_a_body_ends_where_its_head_says(data: bytes) -> None:
    exchange = response(data)
    content, reusable = FRAMINGS[data]
    assert body(exchange) == content
    assert (exchange.ended, exchange.reusable) == (True, reusable)


@pytest.mark.parametrize(
    "head",
    [
        b"SSH-2.0-OpenSSH\r\n\r\n",
        b"HTTP/2 200 OK\r\n\r\n",
        b"HTTP/1.1 20 OK\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nno colon\r\n\r\n",
        b"HTTP/1.1 200 OK\r\n: no name\r\n\r\n",
        b"HTTP/1.1 200 OK\r\n folded: 1\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length : 2\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Length: 3\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: -2\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length:\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: " + b"9" * 5_000 + b"\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip, chunked\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nX: " + b"x" * MAX_HEAD + b"\r\n\r\n",
        b"x" * (2 * MAX_HEAD),
        b"HTTP/1.1 102 Processing\r\n\r\n" * 9,
    ],
)
def test_a_malformed_head_is_an_error(head: bytes) -> None:
    with pytest.raises(UpstreamBadResponse):
        response(head)


@pytest.mark.parametrize(("data", "answered"), [(b"", False), (b"HTTP/1.1 200 OK\r\n", True)])
def test_a_connection_that_ends_before_the_head_does_is_a_reset(
    data: bytes, answered: bool
) -> None:
    exchange = Exchange(Wire(*[data] if data else []))
    with pytest.raises(ConnectionResetError):
        exchange.read_head()
    assert exchange.answered is answered


@pytest.mark.parametrize(
    "data",
    [
        b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nab",
        CHUNKED + b"5\r\nab",
        CHUNKED + b"2\r\nab\r\n",
        CHUNKED + b"zz\r\n",
    ],
)
def test_a_body_that_is_cut_short_is_an_error(data: bytes) -> None:
    exchange = response(data)
    with pytest.raises(UpstreamTruncated):
        body(exchange)
    assert not exchange.ended
