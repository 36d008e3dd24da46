"""Idle connections that are dead, old or too many do not stay open."""

from __future__ import annotations

import socket
import ssl
import threading
import time
from pathlib import Path

import pytest

from providers.base import Request
from providers.http.connection import POOLS, Connections
from providers.http.transport import Transport
from workers.providers import TIDY_SECONDS, keep_tidy

CERTIFICATES = Path(__file__).parents[3] / "faults" / "certificates"
ANSWER = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}"


class Provider:
    """Answers one request, then hangs up its side when told to, and sees when ours is."""

    def __init__(self, secure: bool) -> None:
        self.server = socket.create_server(("127.0.0.1", 0))
        self.server.settimeout(10)
        scheme = "https" if secure else "http"
        self.url = f"{scheme}://127.0.0.1:{self.server.getsockname()[1]}/"
        self.hang_up, self.hung_up = threading.Event(), threading.Event()
        self.closed = threading.Event()
        self._secure = secure
        self._thread = threading.Thread(target=self._serve)

    def __enter__(self) -> Provider:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.hang_up.set()
        self._thread.join()
        self.server.close()

    def _serve(self) -> None:
        connection, _ = self.server.accept()
        connection.settimeout(10)
        if self._secure:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            context.num_tickets = 0  # or one would lie unread, and the connection look dead
            context.load_cert_chain(CERTIFICATES / "good.pem")
            connection = context.wrap_socket(connection, server_side=True)
        with connection:
            assert connection.recv(1 << 16)
            connection.sendall(ANSWER)
            self.hang_up.wait(10)
            connection.shutdown(socket.SHUT_WR)
            self.hung_up.set()
            # Past TLS, whose own farewell does not matter here.
            raw = socket.socket(fileno=connection.detach())
        with raw:
            raw.settimeout(10)
            while raw.recv(1 << 16):
                pass
            self.closed.set()


@pytest.fixture(params=[False, True], ids=["plain", "tls"])
def provider(request):
    with Provider(request.param) as running:
        yield running


@pytest.fixture
def transport():
    running = Transport(read_timeout=5, ca_bundle=str(CERTIFICATES / "authority.pem"))
    yield running
    running.close()


def ask(transport, provider):
    with transport.post(Request(provider.url, {}, b"{}")) as answer:
        assert answer.read_all() == b"{}"


def test_a_connection_that_its_provider_has_closed_is_closed(provider, transport):
    ask(transport, provider)
    provider.hang_up.set()
    assert provider.hung_up.wait(5)
    transport.tidy()
    assert provider.closed.wait(5)


def test_one_that_lives_is_kept(provider, transport):
    ask(transport, provider)
    transport.tidy()
    assert not provider.closed.is_set()
    provider.hang_up.set()
    assert provider.hung_up.wait(5)
    assert not provider.closed.is_set()


def test_a_transport_that_is_closed_closes_its_idle_connections(provider, transport):
    ask(transport, provider)
    transport.close()
    provider.hang_up.set()
    assert provider.closed.wait(5)


def test_no_more_idle_connections_are_left_than_may_be(provider):
    transport = Transport(read_timeout=5, ca_bundle=str(CERTIFICATES / "authority.pem"), max_idle=0)
    ask(transport, provider)
    provider.hang_up.set()
    transport.tidy()
    assert provider.closed.wait(5)
    transport.close()


class Idle:
    """An idle connection in a pool."""

    is_connected = True

    def __init__(self, age: float) -> None:
        self.sock, self.idle_since = object(), time.monotonic() - age

    def close(self) -> None:
        self.sock = None


def connections_with(*ages):
    """Connections with one pool a scheme, and idle ones of these ages in them in turn."""
    connections = Connections("", 10)
    idle = [Idle(age) for age in ages]
    pools = []
    for scheme in POOLS:
        pools.append(connections.route(f"{scheme}://127.0.0.1:9/").pool)
        while pools[-1].pool.qsize():
            pools[-1].pool.get()
    for number, connection in enumerate(idle):
        pools[number % 2].pool.put(connection)
    return connections, idle


def test_of_too_many_the_longest_idle_are_closed_whatever_their_host():
    connections, idle = connections_with(4, 3, 2, 1)
    connections.tidy(3, 60)
    assert [each.sock is None for each in idle] == [True, False, False, False]
    connections.close()


def test_one_that_no_call_used_for_long_is_closed():
    connections, idle = connections_with(61, 59)
    connections.tidy(10, 60)
    assert [each.sock is None for each in idle] == [True, False]
    connections.close()


class Taken(Idle):
    """A connection that somebody takes out of the pool while it is asked whether it lives."""

    pool = None
    closed = False

    @property
    def is_connected(self) -> bool:
        self.pool.pool.queue.remove(self)
        return False

    def close(self) -> None:
        self.closed = True


@pytest.mark.parametrize("scheme", POOLS)
def test_one_that_is_taken_meanwhile_is_left_to_who_took_it(scheme):
    pool = POOLS[scheme]("127.0.0.1", maxsize=2)
    taken = Taken(0)
    taken.pool = pool
    pool.pool.get()
    pool.pool.put(taken)
    assert pool.idle() == [taken]
    assert not taken.is_connected
    pool.close_idle(taken)
    assert not taken.closed


@pytest.mark.parametrize("scheme", POOLS)
def test_a_pool_that_was_closed_has_none(scheme):
    pool = POOLS[scheme]("127.0.0.1")
    pool.close()
    assert pool.idle() == []


def test_a_worker_looks_for_them_now_and_then():
    class Enough(Exception):
        pass

    class Counted:
        looks = 0

        def tidy(self) -> None:
            self.looks += 1
            if self.looks == 1:
                raise ValueError  # a fault of one look does not end the looking

    def sleep(seconds: float) -> None:
        assert seconds == TIDY_SECONDS
        if transport.looks == 2:
            raise Enough

    transport = Counted()
    with pytest.raises(Enough):
        keep_tidy(transport, sleep)
