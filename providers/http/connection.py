"""Connections to providers: the only module that overrides parts of HTTP libraries.

urllib3 makes connections (names, TLS, proxies) and keeps idle ones; providers/http/http1.py speaks
over them.

urllib3 2.8.0                            Reason
HTTPConnection.is_connected              without a turn of gevent's loop: 56 µs of 1.0 ms a call
HTTPConnectionPool.ConnectionCls,        to use the classes of this module
  PoolManager.pool_classes_by_scheme
HTTPConnection._new_conn, ._dns_host,    to resolve names one by one, and to see descriptors run out
  HTTPConnectionPool.conn_kw
HTTPConnectionPool._get_conn, _put_conn, to take connections, to connect them here, and to close
  ._prepare_proxy, .pool.queue             idle ones that are dead, old or too many

tests/unit/providers/http/test_seams.py fails for each that a new version has moved.
"""

from __future__ import annotations

import errno
import logging
import socket
import time
from dataclasses import dataclass
from typing import Any
from urllib.parse import unquote

import certifi
from urllib3 import PoolManager, ProxyManager
from urllib3.connection import HTTPConnection, HTTPSConnection
from urllib3.connectionpool import HTTPConnectionPool, HTTPSConnectionPool
from urllib3.exceptions import ConnectTimeoutError, NameResolutionError, NewConnectionError
from urllib3.util import make_headers, parse_url
from urllib3.util.ssl_ import create_urllib3_context

from gateway.errors import Overloaded
from providers.http.resolver import Resolver

log = logging.getLogger(__name__)

MAX_HOSTS = 64  # pools of connections that are kept
LOG_SECONDS = 5.0  # between two lines about the same shortage


class _Ours:
    """A connection that resolves its host with the resolver of the Connections it belongs to.

    `owner` is None for a connection that no Connections has made: urllib3 resolves for it.
    """

    _dns_host: Any  # urllib3's: a name, or an address
    idle_since = 0.0  # on the monotonic clock

    def __init__(self, *args: Any, owner: Connections | None = None, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._owner = owner

    def _new_conn(self) -> socket.socket:
        if self._owner is None:
            return self._connect_to(self._dns_host)
        try:
            return self._connect(self._owner.resolver)
        except (NewConnectionError, ConnectTimeoutError) as error:
            if not _out_of_descriptors(error):
                raise
        self._owner.close_idle()
        try:
            return self._connect(self._owner.resolver)
        except (NewConnectionError, ConnectTimeoutError) as error:
            if not _out_of_descriptors(error):
                raise
        raise self._owner.no_descriptors()

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


@dataclass(frozen=True, slots=True)
class Route:
    """Where requests to one URL go: the pool of connections, and what a head says of the URL."""

    pool: Any
    target: str
    headers: dict[str, str]
    tunnel: bool  # through a proxy

    def take(self, timeout: float) -> Any:
        """Return an idle connection, or a new one that is not connected yet."""
        connection = self.pool._get_conn()
        connection.timeout = timeout
        return connection

    def connect(self, connection: Any) -> None:
        """Connect it. Raises OSError, HTTPException, urllib3's HTTPError, and Overloaded."""
        if self.tunnel:
            self.pool._prepare_proxy(connection)
        else:
            connection.connect()

    def give_back(self, connection: Any) -> None:
        """Keep a connection, open or closed."""
        self.pool._put_conn(connection)


class Connections:
    """The connections of one process to providers. Certificates are read when it is made.

    `pool_size` idle ones to a host are kept. `proxy` is the URL of an HTTP proxy, or "".
    """

    def __init__(
        self,
        ca_bundle: str,
        pool_size: int,
        resolver: Resolver | None = None,
        proxy: str = "",
    ) -> None:
        self.resolver = resolver or Resolver()
        self._log_at = 0.0  # on the monotonic clock
        self._routes: dict[str, Route] = {}  # by URL
        # Given file names, each new connection would read all certificates again.
        tls = create_urllib3_context()
        tls.load_verify_locations(ca_bundle or certifi.where())
        options: dict[str, Any] = {"maxsize": pool_size, "ssl_context": tls}
        options["cert_reqs"] = "CERT_REQUIRED"
        self._proxied = bool(proxy)
        self._headers = _proxy_headers(proxy)
        self._manager = (
            ProxyManager(proxy, MAX_HOSTS, proxy_headers=self._headers, **options)
            if proxy
            else PoolManager(MAX_HOSTS, **options)
        )
        self._manager.pool_classes_by_scheme = POOLS

    def route(self, url: str) -> Route:
        """Return where requests to this URL go."""
        # Calls go to a few URLs: each is taken apart once.
        route = self._routes.get(url)
        if route is None:
            route = self._routes[url] = self._new_route(url)
        return route

    def _new_route(self, url: str) -> Route:
        parsed = parse_url(url)._replace(fragment=None)
        pool = self._manager.connection_from_url(url)
        pool.conn_kw["owner"] = self
        headers = {"Host": parsed.netloc or ""}
        tunnel = self._proxied and parsed.scheme == "https"
        if self._proxied and not tunnel:
            return Route(pool, parsed._replace(auth=None).url, headers | self._headers, tunnel)
        return Route(pool, parsed.request_uri, headers, tunnel)

    def tidy(self, most: int, seconds: float) -> None:
        """Close idle connections that providers have closed, that are old, or that are too many.

        Leaves at most `most`, none idle for longer than `seconds`.
        """
        before = time.monotonic() - seconds
        alive = []
        for pool in self._pools():
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
        for pool in self._pools():
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
        for pool in self._pools():
            pool.close()
        self._routes.clear()
        self.resolver.close()
        self._manager.clear()

    def _pools(self) -> set[Any]:
        return {route.pool for route in self._routes.values()}


def _proxy_headers(proxy: str) -> dict[str, str]:
    """Return the headers for a proxy whose URL has a user and a password."""
    auth = parse_url(proxy).auth if proxy else None
    return dict(make_headers(proxy_basic_auth=unquote(auth))) if auth else {}
