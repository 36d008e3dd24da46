"""Connections to providers: what urllib3's lack for a gateway."""

from __future__ import annotations

import http
import http.client
import socket
import threading
import time

from urllib3.connection import HTTPConnection, HTTPSConnection
from urllib3.connectionpool import HTTPConnectionPool, HTTPSConnectionPool

from providers.http.chunked import ChunkedBody

MOST_INTERIM = 8  # answers before the final one


class Progress(threading.local):
    """How far this greenlet's request has come, which no exception tells."""

    connected = True  # False while a connection is being made
    reused = True  # was the connection there before the request?
    answered = False  # has a byte of the answer arrived?
    began = 0.0  # on the monotonic clock

    def begin(self) -> None:
        self.connected, self.reused, self.answered = True, True, False
        self.began = time.monotonic()


progress = Progress()


def may_have_left() -> bool:
    """Whether the last request of this greenlet, or a part of it, may have reached its provider."""
    return progress.connected


class _Answer(http.client.HTTPResponse):
    _body: ChunkedBody | None = None

    def begin(self) -> None:
        if self.fp.peek(1):
            progress.answered = True
        super().begin()

    def _read_status(self) -> tuple[str, int, str]:
        # RFC 9110, section 15.2: a client passes over interim answers; http.client knows 100 alone.
        for _ in range(MOST_INTERIM):
            line: tuple[str, int, str] = super()._read_status()  # type: ignore[misc]
            if not http.HTTPStatus.SWITCHING_PROTOCOLS < line[1] < http.HTTPStatus.OK:
                return line
            http.client.parse_headers(self.fp)
        raise http.client.HTTPException("too many interim answers")

    def _read1_chunked(self, n: int) -> bytes:
        # http.client's own gives one chunk at a time.
        body = self._body = self._body or ChunkedBody()
        while not body.ended:
            data = self.fp.read1(n)
            try:
                payload = body.feed(data)
            except ValueError:
                data = b""
            if not data:
                raise http.client.IncompleteRead(b"")
            if body.ended:
                self._close_conn()
            if payload:
                return payload
        return b""


class _OneWrite:
    """Sends head and body of a request in one write: half the system calls, one TLS record."""

    _head: bytes | None = None

    def send(self, data: bytes) -> None:
        # While connecting, what is sent is a proxy's CONNECT; a request's head has its body follow.
        if progress.connected and self._head is None and data.endswith(b"\r\n\r\n"):
            self._head = data
            return
        head, self._head = self._head, None
        super().send(head + data if head is not None else data)  # type: ignore[misc]

    def connect(self) -> None:
        progress.connected = progress.reused = False
        super().connect()  # type: ignore[misc]
        progress.connected = True


class _Connection(_OneWrite, HTTPConnection):  # type: ignore[misc]
    response_class = _Answer

    @property
    def is_connected(self) -> bool:
        """Whether the peer has kept the idle connection open.

        urllib3 asks poll(), which costs a turn of gevent's loop; a peek costs one system call.
        """
        if self.sock is None:
            return False
        timeout = self.sock.gettimeout()
        self.sock.settimeout(0)
        try:
            self.sock.recv(1, socket.MSG_PEEK)
        except BlockingIOError:
            return True
        except OSError:
            return False
        finally:
            self.sock.settimeout(timeout)
        return False  # closed, or saying something that nobody asked for


class _SecureConnection(_OneWrite, HTTPSConnection):  # type: ignore[misc]
    response_class = _Answer


class _Tidy:
    """A pool that can let go of what its provider has hung up on.

    urllib3 uses the latest first and looks at no other: after a burst of calls, hundreds of
    sockets that are closed at the other end would stay open at this one.
    """

    def close_dead(self) -> None:
        """Close such idle connections; they stay in the pool, and connect when they are wanted."""
        idle = getattr(self.pool, "queue", ())  # type: ignore[attr-defined]  # None: pool closed
        for connection in tuple(idle):
            sock = connection and connection.sock
            if not sock or connection.is_connected:
                continue
            # Asking may have taken a turn of the loop, and somebody the connection.
            if connection.sock is sock and connection in idle:
                connection.close()


class _Pool(_Tidy, HTTPConnectionPool):
    ConnectionCls = _Connection


class _SecurePool(_Tidy, HTTPSConnectionPool):
    ConnectionCls = _SecureConnection


POOLS = {"http": _Pool, "https": _SecurePool}
