"""api/http/disconnect.py on real sockets: who has gone, and who has only spoken."""

from __future__ import annotations

import socket
import struct
from collections.abc import Callable, Iterator
from types import SimpleNamespace

import gevent
import pytest
from gevent.event import Event as Signal

from api.http import disconnect
from api.http.disconnect import DisconnectWatcher

Pair = tuple[socket.socket, socket.socket]
PATIENCE = 10.0


@pytest.fixture(autouse=True)
def look_often(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(disconnect, "LOOK_SECONDS", 0.01)


def unix_pair() -> Pair:
    return socket.socketpair()


def tcp_pair() -> Pair:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        client = socket.create_connection(listener.getsockname())
        server, _ = listener.accept()
    return server, client


@pytest.fixture(params=[unix_pair, tcp_pair], ids=["unix", "tcp"])
def pair(request: pytest.FixtureRequest) -> Iterator[Pair]:
    """Our end of a connection, and the client's."""
    make: Callable[[], Pair] = request.param
    ours, theirs = make()
    yield ours, theirs
    ours.close()
    theirs.close()


class Watched:
    """A watcher, and how often it has called."""

    def __init__(self, ours: socket.socket | None) -> None:
        self.calls = 0
        self._called = Signal()
        self.watcher = DisconnectWatcher(ours, self._on_gone)

    def _on_gone(self) -> None:
        self.calls += 1
        self._called.set()

    def called(self) -> bool:
        return bool(self._called.wait(PATIENCE))

    def ended(self) -> bool:
        """Whether nothing more can come of it."""
        self.watcher.greenlet.join(PATIENCE)
        return bool(self.watcher.greenlet.dead)


def turn() -> None:
    """Let the event loop look at every socket once, and act upon what it saw."""
    for _ in range(3):
        gevent.sleep(0.001)


def test_a_client_that_hangs_up_is_noticed_once(pair: Pair) -> None:
    ours, theirs = pair
    watched = Watched(ours)
    turn()
    assert watched.calls == 0
    theirs.close()
    assert watched.called()
    assert watched.ended()
    assert watched.calls == 1


def test_a_client_that_had_gone_before_is_noticed(pair: Pair) -> None:
    ours, theirs = pair
    theirs.close()
    watched = Watched(ours)
    assert watched.called()
    assert watched.ended()
    assert watched.calls == 1


def test_a_client_that_has_sent_its_next_request_is_noticed_when_it_hangs_up(pair: Pair) -> None:
    ours, theirs = pair
    watched = Watched(ours)
    theirs.sendall(b"GET / HTTP/1.1\r\n\r\n")
    turn()
    for _ in range(5):
        gevent.sleep(disconnect.LOOK_SECONDS)
        assert watched.calls == 0
    theirs.close()
    assert watched.called()
    assert watched.ended()
    assert watched.calls == 1


def test_what_the_client_has_sent_is_left_for_who_reads_it(pair: Pair) -> None:
    ours, theirs = pair
    watched = Watched(ours)
    theirs.sendall(b"next")
    turn()
    watched.watcher.stop()
    assert watched.ended()
    assert ours.recv(10) == b"next"


def test_a_connection_that_is_reset_is_noticed_once() -> None:
    ours, theirs = tcp_pair()
    watched = Watched(ours)
    turn()
    theirs.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    theirs.close()
    assert watched.called()
    assert watched.ended()
    assert watched.calls == 1
    ours.close()


def test_a_connection_that_is_reset_after_data_is_noticed_once() -> None:
    ours, theirs = tcp_pair()
    watched = Watched(ours)
    theirs.sendall(b"next")
    turn()
    theirs.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    theirs.close()
    assert watched.called()
    assert watched.ended()
    assert watched.calls == 1
    ours.close()


@pytest.mark.parametrize("data", [b"", b"next"])
@pytest.mark.parametrize("begun", [True, False])
def test_a_watcher_that_was_stopped_never_calls(
    pair: Pair, data: bytes, begun: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(disconnect, "LOOK_SECONDS", 60)
    ours, theirs = pair
    watched = Watched(ours)
    theirs.sendall(data)
    if begun:
        turn()
    watched.watcher.stop()
    theirs.close()
    assert watched.ended()
    assert watched.calls == 0


def test_stopping_twice_or_after_the_end_changes_nothing(pair: Pair) -> None:
    ours, theirs = pair
    watched = Watched(ours)
    theirs.close()
    assert watched.called()
    watched.watcher.stop()
    watched.watcher.stop()
    assert watched.ended()
    assert watched.calls == 1


def test_without_a_connection_there_is_nothing_to_watch() -> None:
    watched = Watched(None)
    turn()
    watched.watcher.stop()
    assert watched.calls == 0


def test_a_watcher_stopped_in_the_moment_of_its_look_never_calls(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    looking, look = Signal(), Signal()
    calls: list[int] = []

    def sleep(seconds: float) -> None:
        looking.set()
        look.wait()

    monkeypatch.setattr(disconnect, "gevent", SimpleNamespace(spawn=gevent.spawn, sleep=sleep))
    ours, theirs = socket.socketpair()
    theirs.sendall(b"next")
    watcher = disconnect.DisconnectWatcher(ours, lambda: calls.append(1))
    assert looking.wait(PATIENCE)
    theirs.close()
    look.set()
    watcher.stop()
    watcher.greenlet.join(PATIENCE)
    ours.close()
    assert calls == []
