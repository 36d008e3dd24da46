"""HTTP/1.1 as this client of providers speaks it (RFC 9112): one request, one response.

http.client and urllib3 took a quarter of a worker's CPU for a call and read one chunk at a time.
Whatever a proxy on the way may read differently is an error here.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from gateway.errors import UpstreamBadResponse, UpstreamTruncated
from providers.http.chunked import ChunkedBody

READ = 1 << 16  # bytes: at most this much is read at once
MAX_HEAD = 1 << 16  # bytes of one head of a response
MAX_INTERIM = 8  # interim responses before the final one
JOINED = 1 << 16  # bytes of a body that are copied, to be in one write with the head

_HEAD_END = re.compile(rb"\n\r?\n")
_STATUS = re.compile(r"HTTP/1\.(\d) +([1-9]\d\d)(?: .*)?", re.DOTALL)
_LENGTH = re.compile(r"[0-9]{1,18}")
_SWITCHING_PROTOCOLS = 101


def encode_head(target: str, headers: Mapping[str, str], size: int) -> bytes:
    """Return the head of a POST with a body of `size` bytes.

    Raises ValueError for a header that cannot be sent.
    """
    lines = [f"POST {target} HTTP/1.1", *map(": ".join, headers.items())]
    head = "\r\n".join(lines)
    if head.count("\r") != len(headers) or head.count("\n") != len(headers) or "\0" in head:
        raise ValueError("a header with a line break")
    return f"{head}\r\nContent-Length: {size}\r\n\r\n".encode("latin-1")


class Exchange:
    """A request and its response over a connected socket.

    `answered` is whether a byte of the response has arrived. After `read_head`, `status` and
    `headers` (with names in lower case) are those of the response. `ended` is whether its body has
    been read, and `reusable` whether the connection can then take another request. `left` counts
    the bytes of the body that are to come; None: unknown.

    The socket's own exceptions are OSErrors and pass.
    """

    def __init__(self, sock: Any) -> None:
        self.sock = sock
        self.answered = self.ended = self.reusable = False
        self.status = 0
        self.headers: dict[str, str] = {}
        self.left: int | None = None
        self._chunks: ChunkedBody | None = None
        self._arrived = b""  # and not read

    def send(self, head: bytes, body: bytes) -> None:
        """Send a request. A server that has closed its side may have responded all the same."""
        try:
            whole = head + body[:JOINED]
            sent = self.sock.send(whole)  # nearly always all; sendall() asks for buffer sizes first
            if sent < len(whole):
                self.sock.sendall(whole[sent:])
            if len(body) > JOINED:
                self.sock.sendall(memoryview(body)[JOINED:])
        except (BrokenPipeError, ConnectionResetError):
            pass

    def read_head(self) -> None:
        """Read the head of the response, and skip interim ones.

        Raises UpstreamBadResponse if it is malformed or too long, and ConnectionResetError if the
        connection ends before it does.
        """
        for _ in range(MAX_INTERIM):
            self._parse(self._next_head())
            if not 100 <= self.status < 200 or self.status == _SWITCHING_PROTOCOLS:
                return
        raise UpstreamBadResponse()

    def _next_head(self) -> str:
        data = self._arrived
        while not (end := _HEAD_END.search(data)):
            if len(data) > MAX_HEAD:
                raise UpstreamBadResponse()
            more = self.sock.recv(READ)
            if not more:
                raise ConnectionResetError("closed before the end of the head")
            self.answered = True
            data += more
        if end.start() > MAX_HEAD:
            raise UpstreamBadResponse()
        self._arrived = data[end.end() :]
        return data[: end.start()].decode("latin-1")

    def _parse(self, head: str) -> None:
        first, *lines = head.split("\n")
        match = _STATUS.fullmatch(first.rstrip("\r"))
        if match is None:
            raise UpstreamBadResponse()
        self.status, self.headers = int(match[2]), _headers(lines)
        options = self.headers.get("connection", "").lower()
        self.reusable = "close" not in options if match[1] != "0" else "keep-alive" in options

        self.left, self._chunks = None, None
        coding = self.headers.get("transfer-encoding", "identity")
        length = self.headers.get("content-length")
        if self.status in (204, 304) or self.status < 200:
            self.left = 0
        elif (codings := _items(coding.lower())) == {"chunked"}:
            self._chunks = ChunkedBody()
        elif codings != {"identity"}:
            raise UpstreamBadResponse()
        elif length is not None:
            [length, *others] = _items(length)
            if others or not _LENGTH.fullmatch(length):
                raise UpstreamBadResponse()
            self.left = int(length)
        else:
            self.reusable = False  # its end is that of the connection
        self.ended = self.left == 0

    def read(self, size: int = READ) -> bytes:
        """Return what has arrived of the body, at least one byte; empty at its end.

        Waits for the first byte. Raises UpstreamTruncated if the body is cut short.
        """
        while not self.ended:
            data, self._arrived = self._arrived or self.sock.recv(size), b""
            if self._chunks is not None:
                data = self._dechunked(data)
            elif self.left is None:
                self.ended = not data
            elif not data:
                raise UpstreamTruncated()
            else:
                self.reusable = self.reusable and len(data) <= self.left
                data = data[: self.left]
                self.left -= len(data)
                self.ended = self.left == 0
            if data:
                return data
        return b""

    def _dechunked(self, data: bytes) -> bytes:
        chunks = self._chunks
        assert chunks is not None
        if not data:
            raise UpstreamTruncated()
        try:
            payload = chunks.feed(data)
        except ValueError:
            raise UpstreamTruncated() from None
        if chunks.ended:
            self.ended = True
            self.reusable = self.reusable and not chunks.rest
        return payload


def _items(value: str) -> set[str]:
    """Return the items of a header that is a list; proxies may repeat them."""
    return {each.strip() for each in value.split(",")}


def _headers(lines: list[str]) -> dict[str, str]:
    """Return the headers in these lines; those with the same name are joined by commas."""
    headers: dict[str, str] = {}
    name = ""
    for line in lines:
        if name and line[:1] in (" ", "\t"):  # folded (RFC 9112, section 5.2)
            headers[name] += f" {line.strip()}"
            continue
        name, colon, value = line.partition(":")
        name = name.lower()
        if not colon or not name or name != name.strip():
            raise UpstreamBadResponse()
        value = value.strip()
        headers[name] = f"{headers[name]}, {value}" if name in headers else value
    return headers
