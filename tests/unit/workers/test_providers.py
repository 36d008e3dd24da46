"""workers/providers.py: the catalogue's rows as providers, with the timeouts that are theirs."""

from __future__ import annotations

import socket
from typing import Any

import gevent
import pytest
from gevent import socket as green
from redis.exceptions import RedisError
from urllib3.util import connection

from gateway.catalogue.catalogue import Catalogue
from gateway.catalogue.file import ModelRow, ProviderRow, Rows
from gateway.chat import ChatCall
from gateway.errors import CallCancelled, StopCall, UpstreamTimeout
from gateway.settings import Settings
from gateway.timeouts import Timeouts
from workers.providers import (
    COPIES,
    MAX_BYTES,
    MIN_BYTES,
    UNKNOWN_BYTES,
    UNLIMITED_BYTES,
    connect,
    share_of,
)

CALL = ChatCall("model", {"messages": []})


def rows(url: str) -> Rows:
    models = {
        "acme/quick": ModelRow("acme/quick", "acme", timeouts=Timeouts(first_byte=0.05)),
        "acme/*": ModelRow("acme/*", "acme", timeouts=Timeouts(between_tokens=1)),
        "acme/plain": ModelRow("acme/plain", "acme"),
        "unset/model": ModelRow("unset/model", "unset", timeouts=Timeouts(total=1)),
    }
    providers = {
        "acme": ProviderRow("acme", "openai", url),
        "unset": ProviderRow("unset", "openai", url, key_variable="NOT_SET"),
    }
    return Rows(providers, {}, models)


def test_a_model_with_timeouts_of_its_own_has_a_provider_of_its_own() -> None:
    settings = Settings()
    made = connect(Catalogue(rows("http://127.0.0.1:9/v1"), settings), settings)
    assert made.keys() == {"acme", "acme/quick", "acme/*"}


def test_its_timeouts_are_those_of_its_row() -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        settings = Settings(first_byte_timeout=60)
        address = f"http://127.0.0.1:{silent.getsockname()[1]}/v1"
        made = connect(Catalogue(rows(address), settings), settings)
        with pytest.raises(UpstreamTimeout):
            made["acme/quick"].complete(CALL)


def test_a_call_that_is_stopped_while_it_connects_has_not_been_sent(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    stop = StopCall(CallCancelled())

    def connect_for_ever(*args: Any, **kwargs: Any) -> None:
        raise stop

    monkeypatch.setattr(connection, "create_connection", connect_for_ever)
    settings = Settings()
    providers = connect(Catalogue(rows("http://127.0.0.1:9/v1"), settings), settings)
    with pytest.raises(StopCall) as raised:
        providers["acme"].complete(CALL)
    assert (raised.value, stop.request_sent) == (stop, False)


def test_a_call_that_is_stopped_while_it_waits_has_been_sent(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    stop = StopCall(CallCancelled())
    monkeypatch.setattr(connection.socket, "socket", green.socket)
    with green.socket() as server:
        server.bind(("127.0.0.1", 0))
        server.listen()
        settings = Settings()
        address = f"http://127.0.0.1:{server.getsockname()[1]}/v1"
        providers = connect(Catalogue(rows(address), settings), settings)
        running = gevent.spawn(providers["acme"].complete, CALL)
        with gevent.Timeout(10):
            accepted, _ = server.accept()
            with accepted:
                accepted.recv(1)
                running.kill(stop)
    assert (running.exception, stop.request_sent) == (stop, True)


@pytest.mark.parametrize(
    ("memory", "expected"),
    [
        ({"maxmemory": 100_000_000}, 100_000_000 // COPIES),
        ({"maxmemory": 1_000}, MIN_BYTES),
        ({"maxmemory": 10**12}, MAX_BYTES),
        ({"maxmemory": 0}, UNLIMITED_BYTES),
        ({}, UNKNOWN_BYTES),
        (RedisError("NOPERM"), UNKNOWN_BYTES),
    ],
)
def test_responses_get_a_share_of_the_memory_of_redis(memory: Any, expected: int) -> None:
    class Info:
        def info(self, section: str) -> Any:
            if isinstance(memory, Exception):
                raise memory
            return memory

    assert share_of(Info()) == expected  # type: ignore[arg-type]
