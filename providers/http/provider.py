"""A provider over HTTP: what is the same for all dialects."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from dataclasses import replace
from itertools import chain
from typing import Any

import orjson

from gateway.chat import ChatCall, Chunk, fold, says_something
from gateway.errors import (
    UpstreamBadResponse,
    UpstreamError,
    UpstreamRejected,
    UpstreamTimeout,
    UpstreamTruncated,
)
from providers.base import EmbeddingsWire, Request, Wire, without_embeddings
from providers.errors import seconds_until
from providers.http.sse import EventSplitter
from providers.http.transport import Answer, Transport

MAX_ERROR_BODY = 1 << 16  # bytes

EVENTS = "text/event-stream"
JSON = "application/json"


class HttpProvider:
    """Any provider that is reached over HTTP: its dialects are the wires', the rest is here."""

    def __init__(
        self, wire: Wire, transport: Transport, embeddings: EmbeddingsWire | None = None
    ) -> None:
        self.streams_only = wire.streams_only
        self._wire = wire
        self._transport = transport
        self._embeddings = embeddings

    def complete(self, call: ChatCall) -> Chunk:
        """The whole answer; raises a GatewayError."""
        if self._wire.streams_only:
            return fold(chain.from_iterable(self.stream(call)))
        request = self._wire.request(replace(call, stream=False))
        with self._transport.post(request) as answer:
            if self._kind_of(answer) == EVENTS:
                return fold(chain.from_iterable(self._parts(answer)))
            return self._whole(answer)

    def stream(self, call: ChatCall) -> Iterator[list[Chunk]]:
        """The answer as it arrives; raises a GatewayError. Closing it closes the connection."""
        request = self._wire.request(replace(call, stream=True))
        with self._transport.post(request) as answer:
            if self._kind_of(answer) == EVENTS:
                yield from self._parts(answer)
            else:
                yield [unfold(self._whole(answer))]

    def embed(self, model: str, parameters: Mapping[str, Any]) -> Chunk:
        """The embeddings of an input; raises a GatewayError."""
        wire = self._embeddings
        if wire is None:
            raise without_embeddings(model)
        try:
            return self._embedded(wire, wire.request(model, parameters), parameters)
        except UpstreamRejected as refusal:
            if not wire.wants_plain(refusal, parameters):
                raise
        return self._embedded(wire, wire.request(model, parameters, plain=True), parameters)

    def _embedded(
        self, wire: EmbeddingsWire, request: Request, parameters: Mapping[str, Any]
    ) -> Chunk:
        with self._transport.post(request) as answer:
            if self._kind_of(answer) != JSON:
                raise UpstreamBadResponse()
            return wire.answer(_json(answer), parameters)

    def _kind_of(self, answer: Answer) -> str:
        """EVENTS or JSON; raises a GatewayError for every other answer."""
        # Never decoded: a few compressed bytes can hold gigabytes.
        encoding = answer.headers.get("content-encoding", "identity").strip().lower()
        if answer.status != 200:
            body = _error_body(answer) if encoding == "identity" else b""
            raise self._wire.error(answer.status, body, _without_date(answer.headers))
        if encoding != "identity":
            raise UpstreamBadResponse("The provider's answer is compressed.")
        kind = answer.headers.get("content-type", "").partition(";")[0].strip().lower()
        if kind not in (EVENTS, JSON):
            raise UpstreamBadResponse()
        return kind

    def _whole(self, answer: Answer) -> Chunk:
        return self._wire.answer(_json(answer))

    def _parts(self, answer: Answer) -> Iterator[list[Chunk]]:
        splitter, decoder = EventSplitter(), self._wire.decoder()
        said, quiet_since = False, 0.0  # on the monotonic clock; 0 while content comes
        piece = b"\n"
        while piece and not decoder.ended:
            try:
                piece = answer.read()
            except UpstreamError:
                if decoder.finished:  # only the end of the connection was lost
                    return
                raise
            parts: list[Chunk] = []
            failure = None
            try:
                for event, data in splitter.feed(piece) if piece else splitter.close():
                    parts.extend(decoder.feed(event, data))
            except UpstreamError as error:
                failure = error
            if parts:  # those before the failure are part of the answer
                said = said or any(map(says_something, parts))
                quiet_since = 0.0
                yield parts
            elif said and not decoder.finished:  # pings keep the connection from being silent
                quiet_since = quiet_since or time.monotonic()
                if time.monotonic() - quiet_since > answer.silence:
                    raise UpstreamTimeout("The provider's answer did not go on in time.")
            if failure:
                raise failure
        if not decoder.finished:
            raise UpstreamTruncated()
        answer.drain()


def unfold(answer: Chunk) -> Chunk:
    """A whole answer as the one part of a stream."""
    choices = []
    for choice in answer["choices"]:
        delta = dict(choice["message"])
        if delta.get("tool_calls"):
            delta["tool_calls"] = [{"index": i, **c} for i, c in enumerate(delta["tool_calls"])]
        rest = {key: value for key, value in choice.items() if key != "message"}
        choices.append({**rest, "delta": delta})
    return {**answer, "choices": choices}


def _json(answer: Answer) -> Mapping[str, Any]:
    try:
        body = orjson.loads(answer.read_all())
    except orjson.JSONDecodeError as error:
        raise UpstreamBadResponse() from error
    if not isinstance(body, dict):
        raise UpstreamBadResponse()
    return body


def _error_body(answer: Answer) -> bytes:
    try:
        return answer.read_all(MAX_ERROR_BODY)
    except UpstreamError:
        return b""  # the status says more than the way its text was lost


def _without_date(headers: Mapping[str, str]) -> dict[str, str]:
    """The headers in lower case, a date in `retry-after` as seconds: a wire has no clock."""
    known = {name.lower(): value for name, value in headers.items()}
    wait = seconds_until(known.get("retry-after", ""), time.time())
    if wait is not None:
        known["retry-after"] = str(wait)
    return known
