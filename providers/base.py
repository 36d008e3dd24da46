"""What a provider is: the contract between the workers and every upstream dialect."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from gateway.chat import ChatCall, Chunk
from gateway.errors import GatewayError, InvalidRequest, UpstreamRejected


class Provider(Protocol):
    """Something that answers chat calls, and calls for embeddings."""

    streams_only: bool  # its whole answers are streams, folded

    def complete(self, call: ChatCall) -> Chunk:
        """The whole answer (`message` in its choices); raises a GatewayError."""
        ...

    def stream(self, call: ChatCall) -> Iterator[list[Chunk]]:
        """The answer as it arrives: each item the parts (with `delta`s) that came together.

        Raises a GatewayError; closing the iterator closes the upstream connection.
        """
        ...

    def embed(self, model: str, parameters: Mapping[str, Any]) -> Chunk:
        """The embeddings of `input`, which is among OpenAI's parameters for embeddings.

        `{"data": [...]}` and, where it was counted, `"usage"`. Each embedding is base64 of
        little-endian float32, or a list of numbers where that was asked for (`encoding_format`, by
        default "float") and the provider answers so. Raises a GatewayError.
        """
        ...


@dataclass(frozen=True, slots=True)
class Request:
    """One HTTP request to an upstream, not yet sent; always a POST."""

    url: str
    headers: Mapping[str, str]
    body: bytes


class Wire(Protocol):
    """One upstream's dialect as pure functions: no I/O, no clock, no randomness."""

    streams_only: bool  # never asked for a whole answer: `complete` folds the stream

    def request(self, call: ChatCall) -> Request:
        """What to send; raises InvalidRequest for what this upstream cannot do."""
        ...

    def answer(self, body: Mapping[str, Any]) -> Chunk:
        """An unstreamed answer's JSON as a Chunk; raises UpstreamError."""
        ...

    def decoder(self) -> Decoder:
        """A fresh decoder for one stream."""
        ...

    def error(self, status: int, body: bytes, headers: Mapping[str, str]) -> GatewayError:
        """What an HTTP answer that is not 200 means to our caller."""
        ...


class EmbeddingsWire(Protocol):
    """One upstream's dialect of embeddings as pure functions."""

    def request(self, model: str, parameters: Mapping[str, Any], plain: bool = False) -> Request:
        """What to send; `plain` leaves the encoding to the upstream."""
        ...

    def wants_plain(self, refusal: UpstreamRejected, parameters: Mapping[str, Any]) -> bool:
        """Whether the upstream might answer the `plain` request where it refused the other."""
        ...

    def answer(self, body: Mapping[str, Any], parameters: Mapping[str, Any]) -> Chunk:
        """The answer's JSON as Provider.embed promises it; raises UpstreamError."""
        ...


def without_embeddings(model: str) -> InvalidRequest:
    """The refusal of a provider, or a model, that makes no embeddings."""
    return InvalidRequest(
        f"The model `{model}` does not make embeddings.", param="model", code="invalid_value"
    )


class Decoder(Protocol):
    """Turns one stream's server-sent events into parts. Holds that stream's state: use it once."""

    finished: bool  # has the upstream said that the answer is complete?
    ended: bool  # has it said that nothing at all follows? (usage may follow a finished answer)

    def feed(self, event: str, data: str) -> Iterable[Chunk]:
        """The parts that one event carries: often one, sometimes none; raises an UpstreamError."""
        ...
