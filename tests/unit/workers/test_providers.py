"""workers/providers.py: the catalogue's rows as providers, with the timeouts that are theirs."""

from __future__ import annotations

import json
import socket
from typing import Any

import gevent
import pytest
from gevent import socket as green
from redis.exceptions import RedisError
from urllib3.util import connection

from gateway.catalogue.catalogue import Catalogue
from gateway.catalogue.file import Deployment, ModelRow, ProviderRow, Rows
from gateway.catalogue.parameters import Rule
from gateway.chat import ChatCall
from gateway.errors import CallCancelled, StopCall, UpstreamThrottled, UpstreamTimeout
from gateway.settings import Settings
from gateway.timeouts import Timeouts
from providers.base import Provider
from tests.support.whole import CannedTransport
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


KEYED = Rows(
    {
        "acme": ProviderRow("acme", "openai", "http://acme/v1", key_variable="ACME_KEY"),
        "azure": ProviderRow(
            "azure",
            "openai",
            "http://azure/v1",
            key_variable="AZURE_KEY",
            key_header="api-key",
            parameters={"seed": (Rule(drop=True),)},
        ),
        "away": ProviderRow("away", "openai", "http://away/v1", key_variable="NOT_SET"),
    },
    {},
    {
        "acme/m": ModelRow("acme/m", "acme"),
        "acme/timed": ModelRow("acme/timed", "acme", timeouts=Timeouts(first_byte=5)),
        "spread": ModelRow(
            "spread",
            "acme",
            "m",
            deployments=(
                Deployment("acme", weight=1),
                Deployment("azure", "my-m", 2),
                Deployment("away"),
            ),
        ),
    },
)


class Sent(CannedTransport):
    """Keeps the requests, and shares them with transports of other timeouts."""

    def __init__(self, refused: str = "") -> None:
        super().__init__()
        self.requests: list[Any] = []
        self.refused = refused

    def post(self, request: Any) -> Any:
        self.requests.append(request)
        if self.refused and self.refused in str(request.headers):
            raise UpstreamThrottled(retry_after=30)
        return super().post(request)

    def with_timeouts(self, **timeouts: Any) -> Any:
        return self


def connected(transport: Sent, keys: str = "k-1, k-2,") -> dict[str, Provider]:
    settings = Settings(variables={"ACME_KEY": keys, "AZURE_KEY": "k-3"})
    return connect(Catalogue(KEYED, settings), settings, transport)


def credentials(transport: Sent) -> list[str]:
    names = ("Authorization", "api-key")
    return [next(r.headers[n] for n in names if n in r.headers) for r in transport.requests]


def test_a_call_goes_on_with_another_key_while_one_rests() -> None:
    transport = Sent(refused="k-1")
    providers = connected(transport)
    providers["acme"].complete(CALL)
    providers["acme"].complete(CALL)
    assert credentials(transport) == ["Bearer k-1", "Bearer k-2", "Bearer k-2"]


def test_the_rest_of_a_key_holds_for_models_with_timeouts_of_their_own() -> None:
    transport = Sent(refused="k-1")
    providers = connected(transport)
    providers["acme"].complete(CALL)
    providers["acme/timed"].complete(CALL)
    assert credentials(transport) == ["Bearer k-1", "Bearer k-2", "Bearer k-2"]


def test_one_key_needs_no_pool() -> None:
    transport = Sent()
    connected(transport, "k-1")["acme"].complete(CALL)
    assert credentials(transport) == ["Bearer k-1"]


def test_deployments_take_calls_by_their_weights_and_names_and_rules() -> None:
    transport = Sent()
    provider = connected(transport)["spread"]
    streams = [provider.stream(ChatCall("m", {"messages": [], "seed": 1})) for _ in range(3)]
    for stream in streams:
        next(iter(stream))
    bodies = [json.loads(request.body) for request in transport.requests]
    assert [(body["model"], "seed" in body) for body in bodies] == [
        ("my-m", False), ("m", True), ("my-m", False)
    ]  # fmt: skip


def test_a_deployment_that_fails_leaves_its_call_to_another() -> None:
    transport = Sent(refused="k-3")
    provider = connected(transport)["spread"]
    provider.complete(CALL)
    assert credentials(transport) == ["k-3", "Bearer k-1"]


def test_a_service_account_s_tokens_are_the_keys(monkeypatch: pytest.MonkeyPatch) -> None:
    class Account:
        token, valid = "ya29", True

    paths = []

    def account(path: str, http: Any) -> Any:
        paths.append(path)
        return Account(), None

    monkeypatch.setattr("workers.providers.service_account", account)
    row = ProviderRow("vertex", "openai", "http://v/v1", key_variable="FILE", auth="google")
    settings = Settings(variables={"FILE": "/key.json"})
    transport = Sent()
    catalogue = Catalogue(Rows({"vertex": row}, {}, {}), settings)
    connect(catalogue, settings, transport)["vertex"].complete(CALL)
    assert (paths, credentials(transport)) == (["/key.json"], ["Bearer ya29"])
