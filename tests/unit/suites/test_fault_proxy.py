"""The proxy of the fault suite: each way of going wrong, and back."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.faults.proxy import FaultProxy


class Echo:
    """A server that sends back what it gets, and remembers it."""

    def __init__(self, listener: socket.socket) -> None:
        self.listener = listener
        self.heard = b""
        self.heard_some = threading.Condition()
        self._sockets: list[socket.socket] = []
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        while True:
            try:
                connection, _ = self.listener.accept()
            except OSError:
                return
            self._sockets.append(connection)
            threading.Thread(target=self._serve, args=(connection,), daemon=True).start()

    def _serve(self, connection: socket.socket) -> None:
        with connection:
            try:
                while data := connection.recv(65536):
                    with self.heard_some:
                        self.heard += data
                        self.heard_some.notify_all()
                    connection.sendall(data)
            except OSError:
                pass

    def until_heard(self, data: bytes) -> None:
        with self.heard_some:
            assert self.heard_some.wait_for(lambda: data in self.heard, 10)

    def close(self) -> None:
        # Closing alone does not wake a thread that waits in accept().
        self.listener.shutdown(socket.SHUT_RDWR)
        self.listener.close()


@pytest.fixture
def echo() -> Iterator[Echo]:
    server = Echo(socket.create_server(("127.0.0.1", 0)))
    yield server
    server.close()


@pytest.fixture
def proxy(echo: Echo) -> Iterator[FaultProxy]:
    with FaultProxy(echo.listener.getsockname()) as running:
        yield running


def connect(proxy: FaultProxy) -> socket.socket:
    return socket.create_connection(("127.0.0.1", proxy.port), timeout=10)


def said(connection: socket.socket, data: bytes) -> bytes:
    connection.sendall(data)
    got = b""
    while len(got) < len(data) and (piece := connection.recv(65536)):
        got += piece
    return got


def test_a_good_proxy_is_not_noticed(proxy: FaultProxy) -> None:
    with connect(proxy) as one, connect(proxy) as other:
        assert said(one, b"hello") == b"hello"
        assert said(other, b"x" * 1_000_000) == b"x" * 1_000_000
        assert proxy.open == 2


def test_a_unix_socket_can_be_behind_it(tmp_path_factory: pytest.TempPathFactory) -> None:
    path = f"/tmp/{tmp_path_factory.mktemp('p').name}-{time.monotonic_ns()}.sock"
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(path)
    listener.listen()
    server = Echo(listener)
    try:
        with FaultProxy(path) as proxy, connect(proxy) as connection:
            assert said(connection, b"hello") == b"hello"
    finally:
        server.close()
        Path(path).unlink()


def test_an_address_where_nobody_listens_resets(tmp_path: Path) -> None:
    with FaultProxy(str(tmp_path / "nobody")) as proxy:
        # The reset may come before `connect` has looked.
        with pytest.raises(ConnectionResetError), connect(proxy) as connection:
            connection.recv(1)


def test_refused_connections_are_taken_again_afterwards(proxy: FaultProxy) -> None:
    with connect(proxy) as kept:
        assert said(kept, b"one") == b"one"
        proxy.refuse()
        with pytest.raises(ConnectionRefusedError):
            connect(proxy)
        assert said(kept, b"two") == b"two"
        proxy.heal()
        with connect(proxy) as again:
            assert said(again, b"three") == b"three"


def test_a_reset_is_seen_on_both_sides(proxy: FaultProxy) -> None:
    with connect(proxy) as connection:
        assert said(connection, b"one") == b"one"
        assert proxy.reset() == 1
        with pytest.raises(ConnectionResetError):
            connection.recv(1)


def test_a_black_hole_swallows_and_what_lost_bytes_is_reset(proxy: FaultProxy, echo: Echo) -> None:
    with connect(proxy) as used, connect(proxy) as idle:
        assert said(used, b"one") == b"one"
        assert said(idle, b"two") == b"two"
        proxy.blackhole()
        used.sendall(b"lost")
        used.settimeout(0.1)
        with pytest.raises(TimeoutError):
            used.recv(1)
        proxy.heal()
        used.settimeout(10)
        with pytest.raises(ConnectionResetError):
            used.recv(1)
        assert said(idle, b"three") == b"three"
        assert b"lost" not in echo.heard


def test_a_delay_keeps_the_order(proxy: FaultProxy) -> None:
    with connect(proxy) as connection:
        began = time.monotonic()
        proxy.delay(0.05)
        connection.sendall(b"slow ")
        assert connection.recv(100) == b"slow "
        assert time.monotonic() - began >= 0.1
        for number in range(50):
            if number == 25:
                proxy.delay(0.0)
            connection.sendall(b"%02d" % number)
        got = b""
        while len(got) < 100:
            got += connection.recv(100)
        assert got == b"".join(b"%02d" % number for number in range(50))


def test_one_reply_is_dropped_and_its_request_is_not(proxy: FaultProxy, echo: Echo) -> None:
    proxy.drop_replies(b"SECRET")
    with connect(proxy) as other:
        assert said(other, b"an ordinary request") == b"an ordinary request"
    with connect(proxy) as connection:
        assert said(connection, b"a request wi") == b"a request wi"
        connection.sendall(b"th SEC")
        assert connection.recv(100) == b"th SEC"
        connection.sendall(b"RET in it")
        with pytest.raises(ConnectionResetError):
            connection.recv(1)
    echo.until_heard(b"RET in it")
    assert proxy.dropped == 1
    with connect(proxy) as connection:
        assert said(connection, b"SECRET") == b"SECRET"


def test_replies_are_handed_on_in_pieces_and_in_their_order(proxy: FaultProxy) -> None:
    sizes: list[int] = []

    def size() -> int:
        sizes.append(len(sizes) % 7 + 1)
        return sizes[-1]

    proxy.split_by(size)
    sent = b"".join(b"%04d" % number for number in range(200))
    with connect(proxy) as connection:
        got = b""
        for start in range(0, len(sent), 40):
            connection.sendall(sent[start : start + 40])
        while len(got) < len(sent):
            got += connection.recv(1000)
    assert got == sent
    assert len(sizes) >= len(sent) / 7


def test_a_connection_is_cut_at_its_byte(proxy: FaultProxy) -> None:
    sizes = iter([5, 1000])
    proxy.cut_after(lambda: next(sizes))
    for size in (5, 1000):
        with connect(proxy) as connection:
            assert said(connection, b"y" * 2000) == b"y" * size
    proxy.heal()
    with connect(proxy) as connection:
        assert said(connection, b"y" * 2000) == b"y" * 2000
