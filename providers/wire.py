"""What a provider is: the contract between the workers and every upstream dialect."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from gateway.chat import ChatCall, Part
from gateway.errors import GatewayError


class Provider(Protocol):
    """Something that answers chat calls."""

    def complete(self, call: ChatCall) -> Part:
        """The whole answer (`message` in its choices); raises a GatewayError."""
        ...

    def stream(self, call: ChatCall) -> Iterator[list[Part]]:
        """The answer as it arrives: each item the parts (with `delta`s) that came together.

        Raises a GatewayError; closing the iterator closes the upstream connection.
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

    def answer(self, body: Mapping[str, Any]) -> Part:
        """An unstreamed answer's JSON as a Part; raises UpstreamError."""
        ...

    def decoder(self) -> Decoder:
        """A fresh decoder for one stream."""
        ...

    def error(self, status: int, body: bytes, headers: Mapping[str, str]) -> GatewayError:
        """What an HTTP answer that is not 200 means to our caller."""
        ...


class Decoder(Protocol):
    """Turns one stream's server-sent events into parts. Holds that stream's state: use it once."""

    finished: bool  # has the upstream said that the answer is complete?
    ended: bool  # has it said that nothing at all follows? (usage may follow a finished answer)

    def feed(self, event: str, data: str) -> Iterable[Part]:
        """The parts that one event carries: often one, sometimes none; raises an UpstreamError."""
        ...
