"""Providers: the upstream dialects and the one transport that they share."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from providers.anthropic import AnthropicWire
from providers.demo import DemoProvider
from providers.http_provider import HttpProvider
from providers.openai import OpenAIWire
from providers.openai_embeddings import OpenAIEmbeddings
from providers.transport import Transport
from providers.wire import Provider

WIRES: dict[str, Callable[[str, str, Mapping[str, str], Transport], Provider]] = {
    "openai": lambda url, key, headers, transport: HttpProvider(
        OpenAIWire(url, key, headers), transport, OpenAIEmbeddings(url, key, headers)
    ),
    "anthropic": lambda url, key, headers, transport: HttpProvider(
        AnthropicWire(url, key, headers), transport
    ),
    "demo": lambda url, key, headers, transport: DemoProvider(),
}


def create(
    wire: str,
    *,
    base_url: str,
    api_key: str,
    headers: Mapping[str, str],
    transport: Transport,
) -> Provider:
    """The provider that speaks this dialect at this address; ValueError for an unknown dialect."""
    if wire not in WIRES:
        raise ValueError(f"Unknown wire {wire!r}: expected one of {', '.join(WIRES)}")
    return WIRES[wire](base_url, api_key, headers, transport)
