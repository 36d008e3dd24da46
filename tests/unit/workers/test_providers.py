"""workers/providers.py: the catalogue's rows as providers, with the timeouts that are theirs."""

from __future__ import annotations

import socket

import pytest

from gateway.catalogue.catalogue import Catalogue
from gateway.catalogue.file import ModelRow, ProviderRow, Rows
from gateway.chat import ChatCall
from gateway.errors import UpstreamTimeout
from gateway.settings import Settings
from workers.providers import connect

CALL = ChatCall("model", {"messages": []})


def rows(url: str) -> Rows:
    models = {
        "acme/quick": ModelRow("acme/quick", "acme", timeouts={"first_byte": 0.05}),
        "acme/*": ModelRow("acme/*", "acme", timeouts={"between_tokens": 1}),
        "acme/plain": ModelRow("acme/plain", "acme"),
        "unset/model": ModelRow("unset/model", "unset", timeouts={"total": 1}),
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
