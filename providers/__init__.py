"""Providers: the upstream dialects and the one transport that they share."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping

from providers.anthropic.wire import AnthropicWire
from providers.base import Provider
from providers.demo.provider import DemoProvider
from providers.http.provider import HttpProvider
from providers.http.transport import Transport
from providers.openai.chat import OpenAIWire
from providers.openai.embeddings import OpenAIEmbeddings

# A wire is made of its row's address, key, headers and what it keeps of messages.
Maker = Callable[[str, str, Mapping[str, str], Collection[str], Transport], Provider]
WIRES: dict[str, Maker] = {
    "openai": lambda url, key, headers, keeps, transport: HttpProvider(
        OpenAIWire(url, key, headers, keeps), transport, OpenAIEmbeddings(url, key, headers)
    ),
    "anthropic": lambda url, key, headers, keeps, transport: HttpProvider(
        AnthropicWire(url, key, headers), transport
    ),
    "demo": lambda url, key, headers, keeps, transport: DemoProvider(),
}


def create(
    wire: str,
    *,
    base_url: str,
    api_key: str,
    headers: Mapping[str, str],
    transport: Transport,
    keeps: Collection[str] = (),
) -> Provider:
    """The provider that speaks this dialect at this address; ValueError for an unknown dialect.

    `keeps` names what of messages it takes beyond OpenAI's: see gateway/models.toml.
    """
    if wire not in WIRES:
        raise ValueError(f"Unknown wire {wire!r}: expected one of {', '.join(WIRES)}")
    return WIRES[wire](base_url, api_key, headers, keeps, transport)
