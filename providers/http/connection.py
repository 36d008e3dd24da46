"""Connections to providers: the only module that overrides parts of HTTP libraries.

Each override, what it is for, and what it saves. A call costs web process, worker and Redis about
1.0 ms of processor time together, the worker 0.45 ms. The saving is the difference that the
override makes to a call: median of 5 rounds that alternate with and without it, over loopback to a
server that keeps its connections, November 2026, Python 3.11.7. An override that only saves time,
and saves less than 3 % of a call (30 µs), is not worth its upkeep: sending head and body of a
request in one write saved 17 µs (20 µs with TLS) and was removed.

Library          Override                                 Reason                            Saves
http.client      HTTPResponse.begin, with its `fp`        to know that a response has begun -
  of Python      HTTPResponse._read_status                to skip 102 and 103 as well       -
  3.11 to 3.13   HTTPResponse._read1_chunked,             to read all chunks that have      305 µs
                   and _close_conn in it                    arrived, not one at a time        for 64
                 HTTPConnection.connect, response_class   to know whether a request may     -
                                                            have been sent
urllib3 2.8.0    HTTPConnection.is_connected              without a turn of gevent's loop   56 µs
                 HTTPConnectionPool.ConnectionCls,        to use the classes of this        -
                   PoolManager.pool_classes_by_scheme       module
                 HTTPConnection._new_conn, ._dns_host,    to resolve names one by one,      -
                   HTTPConnectionPool.conn_kw               and to see descriptors run out
                 HTTPConnectionPool.pool.queue, _put_conn to close idle connections that    -
                                                            are dead, old or too many
                 HTTPResponse._fp, ._error_catcher,       to read a body below the four     5 µs
                   .release_conn                            layers of read1                   a read
                 HTTPResponse._fp, .connection, and       to change the timeout between     -
                   SocketIO._sock                           head and body of a response
requests 2.34.2  HTTPAdapter.init_poolmanager,            to read certificates once, not    29 ms
                   proxy_manager_for, cert_verify           for each connection               each
                 HTTPAdapter                              to take each URL apart once       41 µs
                   .get_connection_with_tls_context
                 HTTPAdapter.build_response               no cookie jar; the saving is      27 µs,
                                                            with 0 and with 2 cookies set     185 µs

tests/unit/providers/http/test_seams.py fails for each that a new version has moved.
"""

from __future__ import annotations

import errno
import http
import http.client
import logging
import socket
import threading
import time
from typing import Any

from requests import Response
from requests.adapters import DEFAULT_CA_BUNDLE_PATH, HTTPAdapter
from urllib3.connection import HTTPConnection, HTTPSConnection
from urllib3.connectionpool import HTTPConnectionPool, HTTPSConnectionPool
from urllib3.exceptions import ConnectTimeoutError, NameResolutionError, NewConnectionError
from urllib3.util.ssl_ import create_urllib3_context

from gateway.errors import Overloaded
from providers.http.chunked import ChunkedBody
from providers.http.resolver import Resolver

log = logging.getLogger(__name__)

MAX_INTERIM = 8  # interim responses before the final one
MAX_HOSTS = 64  # pools of connections that are kept
LOG_SECONDS = 5.0  # between two lines about the same shortage


class Progress(threading.local):
    """How far the last request of this greenlet came, which no exception tells."""

    connected = True  # False while a connection is being made
    reused = True  # the connection was there before the request
    answered = False  # a byte of the response has arrived
    began = 0.0  # on the monotonic clock

    def begin(self) -> None:
        """Note that a request begins."""
        self.connected, self.reused, self.answered = True, True, False
        self.began = time.monotonic()


progress = Progress()


class RawResponse(http.client.HTTPResponse):
    """A response that notes its first byte, skips interim ones and reads many chunks at once."""

    _body: ChunkedBody | None = None

    def begin(self) -> None:
        if self.fp.peek(1):
            progress.answered = True
        super().begin()

    def _read_status(self) -> tuple[str, int, str]:
        # RFC 9110, section 15.2: a client skips interim responses. http.client skips 100 alone.
        for _ in range(MAX_INTERIM):
            line: tuple[str, int, str] = super()._read_status()  # type: ignore[misc]
            if not http.HTTPStatus.SWITCHING_PROTOCOLS < line[1] < http.HTTPStatus.OK:
                return line
            http.client.parse_headers(self.fp)
        raise http.client.HTTPException("too many interim responses")

    def _read1_chunked(self, n: int) -> bytes:
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


class _Ours:
    """A connection that notes when it connects, and resolves its host with the adapter's resolver.

    `adapter` is None for a connection that no Adapter has made: urllib3 resolves for it.
    """

    _dns_host: Any  # urllib3's: a name, or an address
    idle_since = 0.0  # on the monotonic clock

    def __init__(self, *args: Any, adapter: Adapter | None = None, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._adapter = adapter

    def connect(self) -> None:
        progress.connected = progress.reused = False
        super().connect()  # type: ignore[misc]
        progress.connected = True

    def _new_conn(self) -> socket.socket:
        if self._adapter is None:
            return self._connect_to(self._dns_host)
        try:
            return self._connect(self._adapter.resolver)
        except (NewConnectionError, ConnectTimeoutError) as error:
            if not _out_of_descriptors(error):
                raise
        self._adapter.close_idle()
        try:
            return self._connect(self._adapter.resolver)
        except (NewConnectionError, ConnectTimeoutError) as error:
            if not _out_of_descriptors(error):
                raise
        raise self._adapter.no_descriptors()

    def _connect(self, resolver: Resolver) -> socket.socket:
        host: str = self._dns_host
        try:
            addresses = resolver.addresses(host, self.timeout)  # type: ignore[attr-defined]
        except socket.gaierror as error:
            if _used_up():
                resolver.forget(host)
            raise NameResolutionError(host, self, error) from error  # type: ignore[arg-type]
        last: Exception | None = None
        for address in addresses:
            try:
                sock = self._connect_to(address)
            except (NewConnectionError, ConnectTimeoutError) as error:
                if _out_of_descriptors(error):
                    raise
                last = error
            else:
                if last is not None:
                    resolver.prefer(host, address)
                return sock
        resolver.doubt(host)
        assert last is not None
        raise last

    def _connect_to(self, address: str) -> socket.socket:
        # TLS and the Host header go by the name: it is away only while urllib3 makes the socket.
        name: str = self._dns_host
        self._dns_host = address
        try:
            sock: socket.socket = super()._new_conn()  # type: ignore[misc]
            return sock
        finally:
            self._dns_host = name


def _out_of_descriptors(error: Exception) -> bool:
    """Whether a connection failed because this process has no file descriptor left."""
    cause = error.__cause__
    if isinstance(cause, socket.gaierror):
        return _used_up()  # the resolver gives no reason
    return isinstance(cause, OSError) and cause.errno in (errno.EMFILE, errno.ENFILE)


def _used_up() -> bool:
    try:
        socket.socket().close()
    except OSError as error:
        return error.errno in (errno.EMFILE, errno.ENFILE)
    return False


class Connection(_Ours, HTTPConnection):
    """A connection without TLS."""

    response_class = RawResponse

    @property
    def is_connected(self) -> bool:
        """Whether the peer has kept the idle connection open.

        urllib3 calls poll(), which takes a turn of gevent's loop. A peek is one system call.
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
        return False  # the peer has closed it, or has sent something unasked


class SecureConnection(_Ours, HTTPSConnection):
    """A connection with TLS."""

    response_class = RawResponse


class _Tidy:
    """A pool whose idle connections can be looked at.

    urllib3 uses the latest connection first and looks at no other: after a burst of calls, hundreds
    of sockets would stay open, closed at the other end or not.
    """

    def _put_conn(self, conn: Any) -> None:
        if conn is not None:
            conn.idle_since = time.monotonic()
        super()._put_conn(conn)  # type: ignore[misc]

    def idle(self) -> list[Any]:
        """Return the idle connections that are open."""
        idle = getattr(self.pool, "queue", ())  # type: ignore[attr-defined]  # None: pool closed
        return [connection for connection in tuple(idle) if connection and connection.sock]

    def close_idle(self, connection: Any) -> None:
        """Close one of `idle`; it stays in the pool, and connects again when it is used."""
        # This greenlet may have waited since, and another have taken the connection.
        if connection in getattr(self.pool, "queue", ()):  # type: ignore[attr-defined]
            connection.close()


class Pool(_Tidy, HTTPConnectionPool):
    """Connections to one host without TLS."""

    ConnectionCls = Connection


class SecurePool(_Tidy, HTTPSConnectionPool):
    """Connections to one host with TLS."""

    ConnectionCls = SecureConnection


POOLS = {"http": Pool, "https": SecurePool}


class Adapter(HTTPAdapter):
    """requests' adapter with the pools of this module. Certificates are read when it is made."""

    def __init__(self, ca_bundle: str, pool_size: int, resolver: Resolver | None = None) -> None:
        self.resolver = resolver or Resolver()
        self._log_at = 0.0  # on the monotonic clock
        self._pools: dict[str, Any] = {}  # by URL
        self._tls = create_urllib3_context()
        self._tls.load_verify_locations(ca_bundle or DEFAULT_CA_BUNDLE_PATH)
        super().__init__(pool_connections=MAX_HOSTS, pool_maxsize=pool_size, max_retries=0)

    def init_poolmanager(self, *args: Any, **kwargs: Any) -> None:
        super().init_poolmanager(*args, ssl_context=self._tls, **kwargs)
        self.poolmanager.pool_classes_by_scheme = POOLS

    def proxy_manager_for(self, proxy: str, **kwargs: Any) -> Any:
        manager = super().proxy_manager_for(proxy, ssl_context=self._tls, **kwargs)
        manager.pool_classes_by_scheme = POOLS
        return manager

    def get_connection_with_tls_context(
        self, request: Any, verify: Any, proxies: Any = None, cert: Any = None
    ) -> Any:
        # Calls go to a few URLs. requests would take the URL apart for every call.
        pool = self._pools.get(request.url)
        if pool is None:
            pool = super().get_connection_with_tls_context(request, verify, proxies, cert)
            assert isinstance(pool, HTTPConnectionPool)
            pool.conn_kw["adapter"] = self
            self._pools[request.url] = pool
        return pool

    def cert_verify(self, conn: Any, url: str, verify: Any, cert: Any) -> None:
        # Given file names, each new connection would read all certificates again.
        conn.cert_reqs = "CERT_REQUIRED"

    def build_response(self, req: Any, resp: Any) -> Response:
        response = Response()
        response.status_code, response.headers, response.raw = resp.status, resp.headers, resp
        return response

    def tidy(self, most: int, seconds: float) -> None:
        """Close idle connections that providers have closed, that are old, or that are too many.

        Leaves at most `most`, none idle for longer than `seconds`.
        """
        before = time.monotonic() - seconds
        alive = []
        for pool in set(self._pools.values()):
            for connection in pool.idle():
                if connection.idle_since < before or not connection.is_connected:
                    pool.close_idle(connection)
                else:
                    alive.append((connection.idle_since, pool, connection))
        alive.sort(key=lambda each: each[0], reverse=True)
        for _, pool, connection in alive[most:]:
            pool.close_idle(connection)

    def close_idle(self) -> None:
        """Close all idle connections."""
        for pool in set(self._pools.values()):
            for connection in pool.idle():
                pool.close_idle(connection)

    def no_descriptors(self) -> Overloaded:
        """Return the error of a call that never left, for want of a file descriptor; log it."""
        now = time.monotonic()
        if now >= self._log_at:
            self._log_at = now + LOG_SECONDS
            log.error("no file descriptor is free for a connection: raise the limit (ulimit -n)")
        error = Overloaded("This worker has no free file descriptor. Try again in a moment.")
        error.retryable = True
        return error

    def close(self) -> None:
        """Close the idle connections."""
        # urllib3 forgets its pools and leaves the rest to the collector, but we hold references.
        for pool in set(self._pools.values()):
            pool.close()
        self._pools.clear()
        self.resolver.close()
        super().close()


def read_arrived(raw: Any, size: int) -> bytes:
    """Return what has arrived of a response's body, at most `size` bytes; empty at its end.

    Waits for the first byte. `raw` is the urllib3 response; raises what its `read1` would. That
    method passes four layers, which decode, count and buffer what needs none of it. They took a
    tenth of the worker's CPU for a token.
    """
    body = raw._fp
    try:
        data: bytes = body.read1(size)
        if not data and body.length:
            raise http.client.IncompleteRead(b"", body.length)
    except (OSError, http.client.HTTPException):
        with raw._error_catcher():  # translates the exception and closes the connection
            raise
    if body.length == 0:
        body.close()
    if body.isclosed():
        raw.release_conn()
    return data


def set_timeout(raw: Any, seconds: float) -> None:
    """Let the rest of a response pause this long; the next request sets its own timeout.

    `raw` is the urllib3 response. Does nothing once the response has been read to its end.
    """
    sock = raw.connection and raw.connection.sock
    if sock is None:
        # http.client drops the socket of a connection that will close; the response's file has it.
        file = getattr(raw._fp, "fp", None)
        sock = getattr(getattr(file, "raw", None), "_sock", None)
    if sock is not None:
        sock.settimeout(seconds)
