"""HTTP to providers: the only importer of requests."""

from __future__ import annotations

import copy
import http.client
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from typing import Any

import urllib3
from requests import PreparedRequest, Response
from requests import exceptions as failures
from requests.adapters import DEFAULT_CA_BUNDLE_PATH, HTTPAdapter
from requests.structures import CaseInsensitiveDict
from urllib3.util.ssl_ import create_urllib3_context

from gateway.errors import (
    GatewayError,
    UpstreamBadResponse,
    UpstreamError,
    UpstreamTimeout,
    UpstreamTLS,
    UpstreamTruncated,
    UpstreamUnreachable,
)
from providers.base import Request
from providers.http.connection import POOLS, progress

READ = 1 << 16  # bytes: at most this much of what has arrived
FAST = READ // 4  # bytes in one reading, of a provider that sends faster than we read
# The largest answer that is expected: 2,048 embeddings of 3,072 float32 are 32 MiB in base64, and
# what is around each of them wants room as well.
MAX_BODY = 34 << 20  # bytes
MAX_HOSTS = 64
USER_AGENT = "inference-service"  # some providers turn the library's own name away
STALE_SECONDS = 1.0  # a kept connection that is reset later than this was not stale
LINGER = 0.25  # seconds to wait for the end of a body whose answer is complete

LIBRARY_ERRORS = (failures.RequestException, urllib3.exceptions.HTTPError)

# The most specific first; what is in neither table is an UpstreamError.
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


class _Adapter(HTTPAdapter):
    """requests' adapter, with connections of our own and certificates that are read once."""

    def __init__(self, ca_bundle: str, pool_size: int) -> None:
        self._hosts: dict[str, Any] = {}
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
        # The same few addresses again and again: requests would take each apart for every call.
        pool = self._hosts.get(request.url)
        if pool is None:
            pool = super().get_connection_with_tls_context(request, verify, proxies, cert)
            self._hosts[request.url] = pool
        return pool

    def close_dead(self) -> None:
        for pool in set(self._hosts.values()):
            pool.close_dead()

    def close(self) -> None:
        # urllib3 forgets its pools and leaves the rest to the collector, while we remember them.
        for pool in set(self._hosts.values()):
            pool.close()
        self._hosts.clear()
        super().close()

    def build_response(self, req: Any, resp: Any) -> Response:
        # Without the cookie jar and the rest that a browser would want.
        response = Response()
        response.status_code, response.headers, response.raw = resp.status, resp.headers, resp
        return response

    def cert_verify(self, conn: Any, url: str, verify: Any, cert: Any) -> None:
        # Given file names, each new connection would read all certificates again.
        conn.cert_reqs = "CERT_REQUIRED"


class Transport:
    """Sends requests to providers through one pool of connections; knows no provider.

    Nothing comes from the environment: proxy and certificates are arguments, redirects are never
    followed, and nothing is sent twice. Timeouts are in seconds: `read_timeout` for an answer's
    first byte, `silence_timeout` (by default the same) between two of its bytes.
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
    ) -> None:
        self._timeouts = (connect_timeout, read_timeout)
        self._silence = silence_timeout or read_timeout
        self._proxies = {"http": proxy, "https": proxy} if proxy else {}
        self._limit = max_response_bytes
        self._adapter = _Adapter(ca_bundle, pool_size)

    def with_timeouts(
        self,
        connect: float | None = None,
        read: float | None = None,
        silence: float | None = None,
    ) -> Transport:
        """The same transport, connections included, with those of its timeouts replaced."""
        other = copy.copy(self)
        other._timeouts = (connect or self._timeouts[0], read or self._timeouts[1])
        other._silence = silence or self._silence
        return other

    @contextmanager
    def post(self, request: Request) -> Iterator[Answer]:
        """The answer, its body unread; raises UpstreamError.

        Left before the body has been read to its end, the connection is closed, otherwise kept.
        """
        prepared = PreparedRequest()
        prepared.method = "POST"
        prepared.url = request.url
        prepared.body = request.body
        prepared.headers = CaseInsensitiveDict(request.headers)
        prepared.headers["Content-Length"] = str(len(request.body))
        prepared.headers.setdefault("User-Agent", USER_AGENT)
        progress.begin()
        try:
            response = self._adapter.send(
                prepared, stream=True, timeout=self._timeouts, proxies=self._proxies
            )
        except LIBRARY_ERRORS as error:
            raise _unsent(error) or _translate(error) from error
        except ValueError:
            # A header that cannot be sent; its value, perhaps a key, is in the exception.
            raise UpstreamError() from None
        try:
            if self._silence != self._timeouts[1]:
                _be_patient(response.raw, self._silence)
            yield Answer(response, self._limit, self._silence)
        finally:
            response.close()

    def close_dead(self) -> None:
        """Closes the connections not in use that providers have hung up on."""
        self._adapter.close_dead()

    def close(self) -> None:
        """Closes the connections that are not in use."""
        self._adapter.close()


class Answer:
    """One answer of a provider, read at the pace it arrives.

    `silence` is how many seconds its content may pause, whatever else comes meanwhile.
    """

    def __init__(self, response: Response, limit: int, silence: float) -> None:
        self.silence = silence
        self.status = response.status_code
        self.headers: Mapping[str, str] = response.headers
        self._raw = response.raw
        self._limit = self._left = limit

    def read(self) -> bytes:
        """What has arrived, at least one byte; empty at the body's end. Raises UpstreamError."""
        try:
            piece: bytes = self._raw.read1(READ)
        except LIBRARY_ERRORS as error:
            raise _translate(error) from error
        self._left -= len(piece)
        if self._left < 0:
            raise _too_large()
        if len(piece) > FAST:
            time.sleep(
                0
            )  # more is there already: without a wait, no other call would have its turn
        return piece

    def read_all(self, at_most: int | None = None) -> bytes:
        """The whole body, or its first bytes; raises UpstreamError."""
        if at_most is None and (self._raw.length_remaining or 0) > self._limit:
            raise _too_large()  # before any of it takes memory
        body = bytearray()
        while (at_most is None or len(body) < at_most) and (piece := self.read()):
            body += piece
        return bytes(body[:at_most])

    def drain(self) -> None:
        """Gives the rest of a body, which nobody needs, a moment to end: its connection is kept."""
        connection = self._raw.connection
        if connection is None or connection.sock is None:
            return
        connection.sock.settimeout(LINGER)  # a provider may hold the stream open after its end mark
        with suppress(UpstreamError):
            self.read()


def _too_large() -> GatewayError:
    return UpstreamBadResponse("The provider's answer is too large.")


def _be_patient(raw: Any, seconds: float) -> None:
    """Let the rest of an answer be silent this long; the next request sets its own timeout."""
    # http.client has let go of the socket where the connection is not to be kept: the answer's
    # file still has it.
    holder = raw.connection
    sock = holder.sock if holder is not None else None
    if sock is None:
        file = getattr(raw._fp, "fp", None)
        sock = getattr(getattr(file, "raw", None), "_sock", None)
    if sock is not None:
        sock.settimeout(seconds)


def _unsent(error: Exception) -> GatewayError | None:
    """The error for a request that the provider cannot have acted on; None where it may have."""
    if isinstance(error, failures.SSLError):
        return None
    if not progress.connected:
        return UpstreamUnreachable()
    reset = any(isinstance(cause, ConnectionError) for cause in _causes(error))
    soon = time.monotonic() - progress.began < STALE_SECONDS
    if reset and soon and progress.reused and not progress.answered:
        # The provider closed an idle connection just as we sent.
        unseen = UpstreamError(code="upstream_connect")
        unseen.retryable = True
        return unseen
    return None


def _translate(error: Exception) -> GatewayError:
    for raised, made in FAILURES:
        if isinstance(error, raised):
            return made()
    causes = list(_causes(error))
    for cause, made in CAUSES:
        if any(isinstance(each, cause) for each in causes):
            return made()
    return UpstreamError()


def _causes(error: BaseException) -> Iterator[BaseException]:
    """What an exception wraps: urllib3 and requests keep it among their arguments."""
    for inner in (*error.args, getattr(error, "reason", None)):
        if isinstance(inner, BaseException):
            yield inner
            yield from _causes(inner)
