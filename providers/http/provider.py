"""A provider that is called over HTTP, in any dialect."""

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
from providers.base import (
    IGNORE,
    EmbeddingsWire,
    OnHead,
    Request,
    TokenCounter,
    Wire,
    without_count,
    without_embeddings,
)
from providers.errors import seconds_until
from providers.http.events import EventReader
from providers.http.transport import Response, Transport

MAX_ERROR_BODY = 1 << 16  # bytes

EVENTS = "text/event-stream"
JSON = "application/json"


class HttpProvider:
    """A provider that is called over HTTP: the wires know its dialect, this class does the rest."""

    def __init__(
        self,
        wire: Wire,
        transport: Transport,
        embeddings: EmbeddingsWire | None = None,
        counter: TokenCounter | None = None,
    ) -> None:
        self.wire = wire
        self.embeddings = embeddings
        self.counter = counter
        self.streams_only = wire.streams_only
        self._transport = transport

    def complete(self, call: ChatCall, on_head: OnHead = IGNORE) -> Chunk:
        """Return the whole response; raises a GatewayError."""
        if self.streams_only:
            return fold(chain.from_iterable(self.stream(call)))
        request = self.wire.request(replace(call, stream=False))
        with self._transport.post(request) as response:
            media_type = self._media_type(response)
            on_head()
            if media_type == EVENTS:
                return fold(chain.from_iterable(self._chunks(call, response)))
            return self.wire.response(_json(response))

    def stream(self, call: ChatCall) -> Iterator[list[Chunk]]:
        """Yield the response as it arrives: lists of the chunks that came together.

        Raises a GatewayError. Closing the iterator closes the connection.
        """
        request = self.wire.request(replace(call, stream=True))
        with self._transport.post(request) as response:
            if self._media_type(response) == EVENTS:
                yield from self._chunks(call, response)
            else:
                yield [unfold(self.wire.response(_json(response)))]

    def embed(self, model: str, parameters: Mapping[str, Any], on_head: OnHead = IGNORE) -> Chunk:
        """Return the embeddings of an input, as Provider.embed says; raises a GatewayError."""
        wire = self.embeddings
        if wire is None:
            raise without_embeddings(model)
        try:
            return self._embed(wire, wire.request(model, parameters), parameters, on_head)
        except UpstreamRejected as refusal:
            if not wire.wants_plain(refusal, parameters):
                raise
        request = wire.request(model, parameters, plain=True)
        return self._embed(wire, request, parameters, on_head)

    def count_tokens(self, call: ChatCall) -> Chunk:
        """Return the tokens of a call's prompt; raises a GatewayError."""
        if self.counter is None:
            raise without_count(call.model)
        with self._transport.post(self.counter.request(call)) as response:
            if self._media_type(response) != JSON:
                raise UpstreamBadResponse()
            return self.counter.response(_json(response))

    def _embed(
        self,
        wire: EmbeddingsWire,
        request: Request,
        parameters: Mapping[str, Any],
        on_head: OnHead,
    ) -> Chunk:
        with self._transport.post(request) as response:
            if self._media_type(response) != JSON:
                raise UpstreamBadResponse()
            on_head()
            return wire.response(_json(response), parameters)

    def _media_type(self, response: Response) -> str:
        """Return EVENTS or JSON; raises a GatewayError for every other response."""
        # Never decompressed: a few compressed bytes can hold gigabytes.
        encoding = response.headers.get("content-encoding", "identity").strip().lower()
        if response.status != 200:
            body = _error_body(response) if encoding == "identity" else b""
            raise self.wire.error(response.status, body, _error_headers(response.headers))
        if encoding != "identity":
            raise UpstreamBadResponse("The provider's response is compressed.")
        media_type = response.headers.get("content-type", "").partition(";")[0].strip().lower()
        if media_type not in (EVENTS, JSON):
            raise UpstreamBadResponse()
        return media_type

    def _chunks(self, call: ChatCall, response: Response) -> Iterator[list[Chunk]]:
        decoder = self.wire.decoder(call)
        events = EventReader(decoder)
        started, quiet_since = False, 0.0  # on the monotonic clock; 0 while content comes
        data = b"\n"
        while data and not decoder.ended:
            try:
                data = response.read()
            except UpstreamError:
                if decoder.finished:  # only the end of the connection was lost
                    return
                raise
            chunks: list[Chunk] = []
            failure = None
            try:
                events.feed(data, chunks)
            except UpstreamError as error:
                failure = error
            if chunks:  # those before the failure belong to the response
                started = started or any(map(says_something, chunks))
                quiet_since = 0.0
                yield chunks
            elif started and not decoder.finished:  # pings keep the connection from being silent
                quiet_since = quiet_since or time.monotonic()
                if time.monotonic() - quiet_since > response.silence:
                    raise UpstreamTimeout("The provider's response did not continue in time.")
            if failure:
                raise failure
        if not decoder.finished:
            raise UpstreamTruncated()
        response.drain()


def unfold(response: Chunk) -> Chunk:
    """Return a whole response as the only chunk of a stream."""
    choices = []
    for choice in response["choices"]:
        delta = dict(choice["message"])
        if delta.get("tool_calls"):
            delta["tool_calls"] = [{"index": i, **c} for i, c in enumerate(delta["tool_calls"])]
        rest = {key: value for key, value in choice.items() if key != "message"}
        choices.append({**rest, "delta": delta})
    return {**response, "choices": choices}


def _json(response: Response) -> Mapping[str, Any]:
    try:
        body = orjson.loads(response.read_all())
    except orjson.JSONDecodeError as error:
        raise UpstreamBadResponse() from error
    if not isinstance(body, dict):
        raise UpstreamBadResponse()
    return body


def _error_body(response: Response) -> bytes:
    try:
        return response.read_all(MAX_ERROR_BODY)
    except UpstreamError:
        return b""  # the status says more than the loss of its text


def _error_headers(headers: Mapping[str, str]) -> dict[str, str]:
    """Return headers for Wire.error: a wire has no clock to read a date with."""
    lowered = {name.lower(): value for name, value in headers.items()}
    seconds = seconds_until(lowered.get("retry-after", ""), time.time())
    if seconds is not None:
        lowered["retry-after"] = str(seconds)
    return lowered
