"""Connecting to a provider: its addresses are tried in turn; no free descriptor is our fault."""

from __future__ import annotations

import contextlib
import errno
import logging
import socket
import ssl
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from urllib3.util import connection as urllib3_connection

from gateway.errors import Overloaded, UpstreamError, UpstreamTLS, UpstreamUnreachable
from providers.base import Request
from providers.http.resolver import Resolver
from providers.http.transport import Transport
from tests.support.raw_upstream import serving
from workers.breaker import counts

CERTIFICATES = Path(__file__).parents[3] / "faults" / "certificates"
ANSWER = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}"
NOBODY = "127.0.0.2"  # loopback, where the server of a test does not listen


class Names:
    def __init__(self, *addresses: str) -> None:
        self.addresses, self.lookups = list(addresses), 0

    def __call__(self, host: str) -> list[str]:
        self.lookups += 1
        if not self.addresses:
            raise socket.gaierror(socket.EAI_AGAIN, "try again")
        return self.addresses


@pytest.fixture
def transports() -> Iterator[list[Transport]]:
    made: list[Transport] = []
    yield made
    for each in made:
        each.close()


def transport(transports: list[Transport], names: Names) -> Transport:
    made = Transport(connect_timeout=5, read_timeout=5, resolver=Resolver(names))
    transports.append(made)
    return made


def ask(transport: Transport, url: str) -> bytes:
    with transport.post(Request(url, {}, b"{}")) as response:
        return response.read_all()


def named(url: str) -> str:
    return url.replace("127.0.0.1", "provider.example")


def test_the_next_address_is_tried_where_one_cannot_be_reached(
    transports: list[Transport],
) -> None:
    names = Names(NOBODY, "127.0.0.1")
    with serving(ANSWER) as url:
        assert ask(transport(transports, names), named(url)) == b"{}"
    assert names.lookups == 1


def test_the_provider_is_told_its_name_and_not_its_address(transports: list[Transport]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.settimeout(10)
        made = Transport(read_timeout=0.01, resolver=Resolver(Names("127.0.0.1")))
        transports.append(made)
        port = server.getsockname()[1]
        with pytest.raises(UpstreamError):
            ask(made, f"http://provider.example:{port}/")
        accepted, _ = server.accept()
        with accepted:
            assert f"Host: provider.example:{port}\r\n".encode() in accepted.recv(1 << 16)


def test_tls_goes_by_the_name(transports: list[Transport]) -> None:
    names: list[str | None] = []
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(CERTIFICATES / "good.pem")  # for another name
    context.sni_callback = lambda sock, name, _: names.append(name)

    def accept() -> None:
        accepted, _ = server.accept()
        with accepted, contextlib.suppress(OSError):
            context.wrap_socket(accepted, server_side=True)

    with socket.create_server(("127.0.0.1", 0)) as server:
        server.settimeout(10)
        thread = threading.Thread(target=accept)
        thread.start()
        with pytest.raises(UpstreamTLS):
            url = f"https://provider.example:{server.getsockname()[1]}/"
            ask(transport(transports, Names("127.0.0.1")), url)
        thread.join()
    assert names == ["provider.example"]


class Proxy:
    """An HTTP proxy that answers one request itself, or in a tunnel with a certificate."""

    def __init__(self, tunnel: bool) -> None:
        self.heads: list[bytes] = []
        self._tunnel = tunnel
        self._server = socket.create_server(("127.0.0.1", 0))
        self._server.settimeout(10)
        self.url = f"http://us%40er:secret@127.0.0.1:{self._server.getsockname()[1]}"
        self._thread = threading.Thread(target=self._serve)

    def __enter__(self) -> Proxy:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._thread.join()
        self._server.close()

    def _serve(self) -> None:
        accepted, _ = self._server.accept()
        accepted.settimeout(10)
        if self._tunnel:
            self.heads.append(accepted.recv(1 << 16))
            accepted.sendall(b"HTTP/1.1 200 Connected\r\n\r\n")
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            context.load_cert_chain(CERTIFICATES / "good.pem")
            accepted = context.wrap_socket(accepted, server_side=True)
        with accepted:
            self.heads.append(accepted.recv(1 << 16))
            accepted.sendall(ANSWER)


CREDENTIALS = b"roxy-Authorization: Basic dXNAZXI6c2VjcmV0\r\n"


def test_a_proxy_is_sent_the_whole_url_and_its_credentials(transports: list[Transport]) -> None:
    with Proxy(tunnel=False) as proxy:
        made = Transport(read_timeout=5, proxy=proxy.url)
        transports.append(made)
        assert ask(made, "http://provider.example/v1?a=b#c") == b"{}"
    (head,) = proxy.heads
    assert head.startswith(b"POST http://provider.example/v1?a=b HTTP/1.1\r\n")
    assert b"Host: provider.example\r\n" in head
    assert CREDENTIALS.lower() in head.lower()


def test_tls_goes_through_a_tunnel_whose_proxy_alone_gets_the_credentials(
    transports: list[Transport],
) -> None:
    with Proxy(tunnel=True) as proxy:
        authority = str(CERTIFICATES / "authority.pem")
        made = Transport(read_timeout=5, proxy=proxy.url, ca_bundle=authority)
        transports.append(made)
        assert ask(made, "https://127.0.0.1:9/v1") == b"{}"
    tunnel, head = proxy.heads
    assert tunnel.startswith(b"CONNECT 127.0.0.1:9 HTTP/1.")
    assert CREDENTIALS.lower() in tunnel.lower()
    assert head.startswith(b"POST /v1 HTTP/1.1\r\nHost: 127.0.0.1:9\r\n")
    assert b"uthorization" not in head


@pytest.mark.parametrize("addresses", [[], [NOBODY], [NOBODY, NOBODY]])
def test_a_provider_without_an_address_to_reach_is_unreachable(
    transports: list[Transport], addresses: list[str]
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server, pytest.raises(UpstreamUnreachable):
        port = server.getsockname()[1]
        ask(transport(transports, Names(*addresses)), f"http://provider.example:{port}/")


class NoDescriptors:
    """Sockets cannot be made until `free` descriptors are set."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.tries = 0
        self.free = False
        self._make = urllib3_connection.create_connection
        monkeypatch.setattr(urllib3_connection, "create_connection", self)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        self.tries += 1
        if not self.free:
            raise OSError(errno.EMFILE, "Too many open files")
        return self._make(*args, **kwargs)


def test_without_a_free_descriptor_a_call_fails_by_our_fault(
    transports: list[Transport], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    sockets = NoDescriptors(monkeypatch)
    with pytest.raises(Overloaded) as raised:
        ask(transport(transports, Names("127.0.0.1")), "http://provider.example:9/")
    assert (sockets.tries, raised.value.retryable, raised.value.should_retry) == (2, True, True)
    assert not counts(raised.value)  # opens no breaker
    (record,) = [record for record in caplog.records if record.levelno == logging.ERROR]
    assert "file descriptor" in record.getMessage()


def test_idle_connections_make_room_for_a_new_one(
    transports: list[Transport], monkeypatch: pytest.MonkeyPatch
) -> None:
    made = transport(transports, Names("127.0.0.1"))
    with serving(ANSWER, b"") as idle, serving(ANSWER) as url:
        assert ask(made, idle) == b"{}"
        sockets = NoDescriptors(monkeypatch)

        def look(*args: Any, **kwargs: Any) -> Any:
            # The first server ends once its idle connection is closed.
            sockets.free = sockets.tries > 0
            return sockets(*args, **kwargs)

        monkeypatch.setattr(urllib3_connection, "create_connection", look)
        assert ask(made, url) == b"{}"
        assert sockets.tries == 2


def test_a_lookup_that_fails_without_a_free_descriptor_is_not_the_names(
    transports: list[Transport], monkeypatch: pytest.MonkeyPatch
) -> None:
    names = Names()
    made = transport(transports, names)

    def no_socket(*args: Any, **kwargs: Any) -> Any:
        raise OSError(errno.EMFILE, "Too many open files")

    with monkeypatch.context() as patched:
        patched.setattr(socket, "socket", no_socket)
        with pytest.raises(Overloaded):
            ask(made, "http://provider.example:9/")
    names.addresses = ["127.0.0.1"]
    with serving(ANSWER) as url:
        assert ask(made, named(url)) == b"{}"
