"""HTTP to providers: sends requests and reads responses as they arrive."""

from __future__ import annotations

import copy
import http.client
import ssl
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from typing import Any
from urllib.parse import urlsplit

import urllib3
from urllib3.util.ssl_match_hostname import CertificateError

from gateway.errors import (
    GatewayError,
    StopCall,
    UpstreamBadResponse,
    UpstreamError,
    UpstreamTimeout,
    UpstreamTLS,
    UpstreamTruncated,
    UpstreamUnreachable,
)
from providers.base import Request
from providers.http.budget import Budget, Reading
from providers.http.connection import Connections, Route
from providers.http.http1 import READ, Exchange, encode_head
from providers.http.resolver import Resolver

FAST = READ // 4  # bytes in one read of a provider that sends faster than we read
# The largest response expected: 2,048 embeddings of 3,072 float32 are 32 MiB in base64, and the
# JSON around them takes room as well.
MAX_BODY = 34 << 20  # bytes
IDLE_SECONDS = 60.0  # a connection that no call used for so long is closed
STALE_SECONDS = 1.0  # a kept connection that is reset later than this was not stale
LINGER = 0.25  # seconds to wait for the end of a body whose content is complete

# What urllib3 raises while it connects.
CONNECT_ERRORS = (OSError, http.client.HTTPException, urllib3.exceptions.HTTPError)
TLS_ERRORS = (ssl.SSLError, urllib3.exceptions.SSLError, CertificateError)


class Transport:
    """Sends requests to providers over connections that it keeps.

    It reads nothing from the environment (proxy and certificates are arguments), follows no
    redirects, and sends nothing twice. Timeouts are in seconds: `read_timeout` until the first byte
    of a response, `silence_timeout` (by default the same) between two of its bytes. `pool_size`
    connections to a host are kept while calls come, and `tidy` leaves `max_idle` to all hosts.
    `budget` bounds the bytes of whole responses.
    """

    def __init__(
        self,
        connect_timeout: float = 5.0,
        read_timeout: float = 60.0,
        silence_timeout: float | None = None,
        pool_size: int = 100,
        proxy: str = "",
        ca_bundle: str = "",
        max_response_bytes: int = MAX_BODY,
        max_idle: int | None = None,
        resolver: Resolver | None = None,
        budget: Budget | None = None,
    ) -> None:
        self._timeouts = (connect_timeout, read_timeout)
        self._silence = silence_timeout or read_timeout
        self._limit = max_response_bytes
        self._max_idle = pool_size if max_idle is None else max_idle
        self._budget = budget or Budget()
        self._headers: Callable[[], Mapping[str, str]] = dict
        self._connections = Connections(ca_bundle, pool_size, resolver, proxy)

    def with_timeouts(
        self,
        connect: float | None = None,
        read: float | None = None,
        silence: float | None = None,
    ) -> Transport:
        """Return a transport with other timeouts, in seconds, on the same connections."""
        transport = copy.copy(self)
        transport._timeouts = (connect or self._timeouts[0], read or self._timeouts[1])
        transport._silence = silence or self._silence
        return transport

    def with_headers(self, headers: Callable[[], Mapping[str, str]]) -> Transport:
        """Return a transport on the same connections that adds these headers to each request."""
        transport = copy.copy(self)
        transport._headers = headers
        return transport

    @contextmanager
    def post(self, request: Request) -> Iterator[Response]:
        """Send a request and give its response, the body unread; raises UpstreamError.

        On exit the connection is kept if the body has been read to its end, and closed otherwise.
        """
        route = self._connections.route(request.url)
        reading, exchange = Reading(self._budget), None
        connection = route.take(self._timeouts[0])
        try:
            exchange = self._exchange(route, connection, request)
            yield Response(exchange, self._limit, self._silence, reading)
        except GatewayError as error:
            error.host = urlsplit(request.url).hostname or ""
            if exchange is not None:
                error.upstream_status = exchange.status
            if isinstance(error.__cause__, CONNECT_ERRORS):
                error.cause = _words(error.__cause__)
            raise
        finally:
            reading.close()
            if exchange is None or not (exchange.ended and exchange.reusable):
                connection.close()
            route.give_back(connection)

    def _exchange(self, route: Route, connection: Any, request: Request) -> Exchange:
        """Send a request and return it with the head of its response read."""
        headers = {**route.headers, **request.headers, **self._headers()}
        try:
            head = encode_head(route.target, headers, len(request.body))
        except ValueError:
            # The exception holds the header's value, which may be a key.
            raise UpstreamError() from None
        began, reused = time.monotonic(), connection.sock is not None
        if not reused:
            _connect(route, connection)
        connection.sock.settimeout(self._timeouts[1])
        exchange = Exchange(connection.sock)
        try:
            exchange.send(head, request.body)
            exchange.read_head()
        except OSError as error:
            if isinstance(error, TimeoutError):
                raise UpstreamTimeout() from error
            if isinstance(error, ssl.SSLError):
                raise UpstreamTLS() from error
            soon = time.monotonic() - began < STALE_SECONDS
            if isinstance(error, ConnectionError) and reused and soon and not exchange.answered:
                # The provider closed an idle connection just as we sent: it cannot have acted.
                unsent = UpstreamError(code="upstream_connect")
                unsent.retryable = True
                raise unsent from error
            raise UpstreamError() from error
        exchange.sock.settimeout(self._silence)
        return exchange

    def tidy(self) -> None:
        """Close idle connections that are dead, that are older than a minute, or too many."""
        self._connections.tidy(self._max_idle, IDLE_SECONDS)

    def close(self) -> None:
        """Close the idle connections."""
        self._connections.close()


class Response:
    """The response of a provider to one request.

    `silence` is how many seconds its content may pause, even if pings arrive meanwhile.
    """

    def __init__(
        self, exchange: Exchange, limit: int, silence: float, reading: Reading | None = None
    ) -> None:
        self.silence = silence
        self.status = exchange.status
        self.headers: Mapping[str, str] = exchange.headers
        self._exchange = exchange
        self._left = limit
        self._reading = reading or Reading(Budget())

    def check_length(self) -> None:
        """Raise UpstreamBadResponse if the body is announced to be too large."""
        if (self._exchange.left or 0) > self._left:
            raise _too_large()  # before it takes memory

    def read(self) -> bytes:
        """Return what has arrived, at least one byte; empty at the end of the body.

        Waits for the first byte. Raises UpstreamError.
        """
        try:
            data = self._exchange.read()
        except TimeoutError as error:
            raise UpstreamTimeout() from error
        except OSError as error:
            raise UpstreamTruncated() from error
        self._left -= len(data)
        if self._left < 0:
            raise _too_large()
        if len(data) > FAST:
            # More has arrived: without a wait, no other call would get its turn.
            time.sleep(0)
        return data

    def read_all(self, start: bytes = b"") -> bytearray:
        """Return the whole body; `start` is what has been read of it.

        Waits for room in the transport's budget; raises Overloaded or PayloadTooLarge without.
        Raises UpstreamError.
        """
        self._reading.expect(len(start) + (self._exchange.left or 0))
        body = bytearray(start)
        while data := self.read():
            body += data
            self._reading.arrived(len(body))
        return body

    def read_some(self, at_most: int) -> bytes:
        """Return the first `at_most` bytes of the body; raises UpstreamError."""
        body = b""
        while len(body) < at_most and (data := self.read()):
            body += data
        return body[:at_most]

    def drain(self) -> None:
        """Wait a moment for the end of a body whose content is complete, to keep its connection."""
        # A provider may hold the stream open after its end mark.
        self._exchange.sock.settimeout(LINGER)
        with suppress(UpstreamError):
            self.read()


def _too_large() -> GatewayError:
    return UpstreamBadResponse("The provider's response is too large.")


def _connect(route: Route, connection: Any) -> None:
    try:
        route.connect(connection)
    except StopCall as stop:
        stop.request_sent = False
        raise
    except TLS_ERRORS as error:
        raise UpstreamTLS() from error
    except CONNECT_ERRORS as error:
        raise UpstreamUnreachable() from error


def _words(error: BaseException) -> str:
    """Return the system's or OpenSSL's words for the inmost cause of an error.

    The texts of libraries are left out: they may quote a URL or a header.
    """
    *_, inmost = (error, *_causes(error))
    while inmost.__cause__ is not None:  # urllib3 keeps the system's error there
        *_, inmost = (inmost.__cause__, *_causes(inmost.__cause__))
    words = getattr(inmost, "verify_message", "") or getattr(inmost, "strerror", "")
    name = type(inmost).__name__
    return f"{name}: {words}" if isinstance(words, str) and words else name


def _causes(error: BaseException) -> Iterator[BaseException]:
    """Yield the exceptions that one wraps: urllib3 keeps them in its arguments."""
    for inner in (*error.args, getattr(error, "reason", None)):
        if isinstance(inner, BaseException):
            yield inner
            yield from _causes(inner)
