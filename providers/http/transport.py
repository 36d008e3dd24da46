"""HTTP to providers: sends requests and reads responses as they arrive."""

from __future__ import annotations

import copy
import http.client
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from urllib.parse import urlsplit

import requests
import urllib3
from requests import PreparedRequest
from requests import exceptions as failures

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
from providers.http.connection import Adapter, progress, read_arrived, set_timeout
from providers.http.resolver import Resolver

READ = 1 << 16  # bytes: at most this much is read at once
FAST = READ // 4  # bytes in one read of a provider that sends faster than we read
# The largest response expected: 2,048 embeddings of 3,072 float32 are 32 MiB in base64, and the
# JSON around them takes room as well.
MAX_BODY = 34 << 20  # bytes
IDLE_SECONDS = 60.0  # a connection that no call used for so long is closed
STALE_SECONDS = 1.0  # a kept connection that is reset later than this was not stale
LINGER = 0.25  # seconds to wait for the end of a body whose content is complete

LIBRARY_ERRORS = (failures.RequestException, urllib3.exceptions.HTTPError)

# The most specific first. An exception in neither table is an UpstreamError.
FAILURES: tuple[tuple[type[Exception], type[GatewayError]], ...] = (
    (failures.ConnectTimeout, UpstreamUnreachable),
    (failures.ProxyError, UpstreamUnreachable),
    (failures.SSLError, UpstreamTLS),
    (failures.ReadTimeout, UpstreamTimeout),
    (failures.InvalidHeader, UpstreamBadResponse),
    (urllib3.exceptions.ReadTimeoutError, UpstreamTimeout),
    (urllib3.exceptions.ProtocolError, UpstreamTruncated),
)
CAUSES: tuple[tuple[type[BaseException], type[GatewayError]], ...] = (
    (urllib3.exceptions.NewConnectionError, UpstreamUnreachable),
    (ConnectionError, UpstreamError),  # ahead of HTTPException: RemoteDisconnected is both
    (TimeoutError, UpstreamTimeout),
    (http.client.HTTPException, UpstreamBadResponse),
)


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
        self._proxies = {"http": proxy, "https": proxy} if proxy else {}
        self._limit = max_response_bytes
        self._max_idle = pool_size if max_idle is None else max_idle
        self._budget = budget or Budget()
        self._adapter = Adapter(ca_bundle, pool_size, resolver)

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

    @contextmanager
    def post(self, request: Request) -> Iterator[Response]:
        """Send a request and give its response, the body unread; raises UpstreamError.

        On exit the connection is kept if the body has been read to its end, and closed otherwise.
        """
        prepared = PreparedRequest()
        prepared.method = "POST"
        prepared.url = request.url
        prepared.body = request.body
        # A dict will do: requests' own kind of dict takes 17 µs a call.
        headers = {**request.headers, "Content-Length": str(len(request.body))}
        prepared.headers = headers  # type: ignore[assignment]
        progress.begin()
        try:
            response = self._adapter.send(
                prepared, stream=True, timeout=self._timeouts, proxies=self._proxies
            )
        except LIBRARY_ERRORS as error:
            raise _placed(_unsent(error) or _translate(error), request, error) from error
        except GatewayError as error:
            _placed(error, request)
            raise
        except StopCall as stop:
            stop.request_sent = progress.connected
            raise
        except ValueError:
            # A header that cannot be sent. The exception holds its value, which may be a key.
            raise _placed(UpstreamError(), request) from None
        reading = Reading(self._budget)
        try:
            if self._silence != self._timeouts[1]:
                set_timeout(response.raw, self._silence)
            yield Response(response, self._limit, self._silence, reading)
        except GatewayError as error:
            error.upstream_status = response.status_code
            _placed(error, request)
            raise
        finally:
            reading.close()
            response.close()

    def tidy(self) -> None:
        """Close idle connections that are dead, that are older than a minute, or too many."""
        self._adapter.tidy(self._max_idle, IDLE_SECONDS)

    def close(self) -> None:
        """Close the idle connections."""
        self._adapter.close()


class Response:
    """The response of a provider to one request.

    `silence` is how many seconds its content may pause, even if pings arrive meanwhile.
    """

    def __init__(
        self,
        response: requests.Response,
        limit: int,
        silence: float,
        reading: Reading | None = None,
    ) -> None:
        self.silence = silence
        self.status = response.status_code
        self.headers: Mapping[str, str] = response.headers
        self._raw = response.raw
        self._left = limit
        self._reading = reading or Reading(Budget())

    def check_length(self) -> None:
        """Raise UpstreamBadResponse if the body is announced to be too large."""
        if (self._raw.length_remaining or 0) > self._left:
            raise _too_large()  # before it takes memory

    def read(self) -> bytes:
        """Return what has arrived, at least one byte; empty at the end of the body.

        Waits for the first byte. Raises UpstreamError.
        """
        try:
            data = read_arrived(self._raw, READ)
        except LIBRARY_ERRORS as error:
            raise _caused(_translate(error), error) from error
        self._left -= len(data)
        if self._left < 0:
            raise _too_large()
        if len(data) > FAST:
            # More has arrived: without a wait, no other call would get its turn.
            time.sleep(0)
        return data

    def read_all(self, at_most: int | None = None) -> bytes:
        """Return the whole body, or its first `at_most` bytes.

        Waits for room in the transport's budget; raises Overloaded or PayloadTooLarge without.
        Raises UpstreamError.
        """
        if at_most is None:
            self._reading.expect(self._raw.length_remaining or 0)
        body = bytearray()
        while (at_most is None or len(body) < at_most) and (data := self.read()):
            body += data
            if at_most is None:
                self._reading.arrived(len(body))
        return bytes(body[:at_most])

    def drain(self) -> None:
        """Wait a moment for the end of a body whose content is complete, to keep its connection."""
        connection = self._raw.connection
        if connection is None or connection.sock is None:
            return
        connection.sock.settimeout(LINGER)  # a provider may hold the stream open after its end mark
        with suppress(UpstreamError):
            self.read()


def _too_large() -> GatewayError:
    return UpstreamBadResponse("The provider's response is too large.")


def _unsent(error: Exception) -> GatewayError | None:
    """Return the error of a request that the provider cannot have acted on; None if it may have."""
    if isinstance(error, failures.SSLError):
        return None
    if not progress.connected:
        return UpstreamUnreachable()
    reset = any(isinstance(cause, ConnectionError) for cause in _causes(error))
    soon = time.monotonic() - progress.began < STALE_SECONDS
    if reset and soon and progress.reused and not progress.answered:
        # The provider closed an idle connection just as we sent.
        unsent = UpstreamError(code="upstream_connect")
        unsent.retryable = True
        return unsent
    return None


def _translate(error: Exception) -> GatewayError:
    for failure, kind in FAILURES:
        if isinstance(error, failure):
            return kind()
    causes = list(_causes(error))
    for cause, kind in CAUSES:
        if any(isinstance(each, cause) for each in causes):
            return kind()
    return UpstreamError()


def _placed(
    failure: GatewayError, request: Request, error: Exception | None = None
) -> GatewayError:
    """Return the failure with the host it happened at, and with its cause."""
    failure.host = urlsplit(request.url).hostname or ""
    return failure if error is None else _caused(failure, error)


def _caused(failure: GatewayError, error: BaseException) -> GatewayError:
    """Return the failure with its cause: the system's or OpenSSL's words for the inmost error.

    The texts of libraries are left out: they may quote a URL or a header.
    """
    *_, inmost = (error, *_causes(error))
    while inmost.__cause__ is not None:  # urllib3 keeps the system's error there
        *_, inmost = (inmost.__cause__, *_causes(inmost.__cause__))
    words = getattr(inmost, "verify_message", "") or getattr(inmost, "strerror", "")
    name = type(inmost).__name__
    failure.cause = f"{name}: {words}" if isinstance(words, str) and words else name
    return failure


def _causes(error: BaseException) -> Iterator[BaseException]:
    """Yield the exceptions that one wraps: urllib3 and requests keep them in its arguments."""
    for inner in (*error.args, getattr(error, "reason", None)):
        if isinstance(inner, BaseException):
            yield inner
            yield from _causes(inner)
