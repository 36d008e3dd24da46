"""Providers: the upstream dialects, and the HTTP transport that they share."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from providers.anthropic.wire import AnthropicTokenCounter, AnthropicWire
from providers.base import (
    ORDINARY,
    EmbeddingsWireFactory,
    Provider,
    TokenCounterFactory,
    WireFactory,
    WireOptions,
)
from providers.demo.provider import DemoProvider
from providers.http.provider import HttpProvider
from providers.http.transport import Transport
from providers.openai.chat import OpenAIWire
from providers.openai.embeddings import OpenAIEmbeddings


@dataclass(frozen=True, slots=True)
class Upstream:
    """How to reach one provider: the values of its row, and the transport that all share."""

    base_url: str
    api_key: str
    headers: Mapping[str, str]
    options: WireOptions
    transport: Transport


def over_http(
    wire: WireFactory,
    embeddings: EmbeddingsWireFactory | None = None,
    counter: TokenCounterFactory | None = None,
) -> Callable[[Upstream], HttpProvider]:
    """Return the factory of providers that are called over HTTP in this dialect."""

    def provider(to: Upstream) -> HttpProvider:
        return HttpProvider(
            wire(to.base_url, to.api_key, to.headers, to.options),
            to.transport,
            embeddings(to.base_url, to.api_key, to.headers) if embeddings else None,
            counter(to.base_url, to.api_key, to.headers) if counter else None,
        )

    return provider


# The only table of wires. The wires that MODELS_FILE may name are those of models.toml.
WIRES: dict[str, Callable[[Upstream], Provider]] = {
    "openai": over_http(OpenAIWire, OpenAIEmbeddings),
    "anthropic": over_http(AnthropicWire, counter=AnthropicTokenCounter),
    "demo": lambda to: DemoProvider(),
}


def create(
    wire: str,
    *,
    base_url: str,
    api_key: str,
    headers: Mapping[str, str],
    transport: Transport,
    options: WireOptions = ORDINARY,
) -> Provider:
    """Return the provider that speaks the dialect `wire` at `base_url`.

    Raises ValueError for an unknown wire.
    """
    if wire not in WIRES:
        raise ValueError(f"Unknown wire {wire!r}: expected one of {', '.join(WIRES)}")
    return WIRES[wire](Upstream(base_url, api_key, headers, options, transport))
