"""A provider that is called over HTTP, in any dialect."""

from __future__ import annotations

import re
import time
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import replace
from itertools import chain
from typing import Any

import gevent

from gateway.chat import ChatCall, Chunk, fold, says_something
from gateway.errors import (
    UpstreamBadResponse,
    UpstreamError,
    UpstreamRejected,
    UpstreamTimeout,
    UpstreamTruncated,
)
from gateway.stalls import give_turn
from providers import lenient_json
from providers.base import (
    IGNORE,
    EmbeddingsWire,
    OnHead,
    Request,
    TokenCounter,
    Wire,
    ident_of,
    without_count,
    without_embeddings,
)
from providers.errors import seconds_until
from providers.http.events import EventReader
from providers.http.transport import Response, Transport

MAX_ERROR_BODY = 1 << 16  # bytes

OUTPUT_LIMITS = ("max_completion_tokens", "max_tokens")
EVENTS = "text/event-stream"
TELLING = 8  # bytes that tell what a body is
# The fields and comments of server-sent events, an object without a field's name among them.
_EVENTS = re.compile(rb"(\xef\xbb\xbf)?\s*(data|event|id|retry)?(:|\{)")
_OBJECT = re.compile(rb"(\xef\xbb\xbf)?\s*[\[{]")


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
        if self.streams_only or self._is_long(call):
            return fold(chain.from_iterable(self.stream(call)))
        request = self.wire.request(replace(call, stream=False) if call.stream else call)
        with self._transport.post(request) as response:
            body = self._body(response, on_head)
            if isinstance(body, bytes):
                return fold(chain.from_iterable(self._chunks(call, response, body)))
            call.upstream["id"] = ident_of(body)
            return self.wire.response(body)

    def stream(self, call: ChatCall) -> Iterator[list[Chunk]]:
        """Yield the response as it arrives: lists of the chunks that came together.

        Raises a GatewayError. Closing the iterator closes the connection.
        """
        request = self.wire.request(replace(call, stream=True))
        with self._transport.post(request) as response:
            body = self._body(response)
            if isinstance(body, bytes):
                yield from self._chunks(call, response, body)
            else:
                call.upstream["id"] = ident_of(body)
                yield [unfold(self.wire.response(body))]

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
            body = self._body(response)
            if isinstance(body, bytes):
                raise UpstreamBadResponse()
            return self.counter.response(body)

    def _embed(
        self,
        wire: EmbeddingsWire,
        request: Request,
        parameters: Mapping[str, Any],
        on_head: OnHead,
    ) -> Chunk:
        with self._transport.post(request) as response:
            body = self._body(response, on_head)
            if isinstance(body, bytes):
                raise UpstreamBadResponse()
            return wire.response(body, parameters)

    def _is_long(self, call: ChatCall) -> bool:
        """Return whether the upstream refuses so long a response unstreamed."""
        above = self.wire.stream_above
        limits = [call.parameters.get(name) for name in OUTPUT_LIMITS]
        return above is not None and any(type(n) is int and n > above for n in limits)

    def _body(self, response: Response, on_head: OnHead = IGNORE) -> Mapping[str, Any] | bytes:
        """Return the object that a response is, or the first bytes of its events.

        Calls `on_head` before it reads the body of a response that is no error. What the bytes are
        counts, not the content type. Raises a GatewayError for any other response.
        """
        # Never decompressed: a few compressed bytes can hold gigabytes.
        encoding = response.headers.get("content-encoding", "identity").strip().lower()
        if response.status != 200:
            body = _error_body(response) if encoding == "identity" else b""
            raise self.wire.error(response.status, body, _error_headers(response.headers))
        if encoding != "identity":
            raise UpstreamBadResponse("The provider's response is compressed.")
        response.check_length()
        on_head()
        media_type = response.headers.get("content-type", "").partition(";")[0].strip().lower()
        start = _start(response, at_least=1 if media_type == EVENTS else TELLING)
        if _OBJECT.match(start):
            whole = response.read_all(start)
            _give_turn(len(whole))
            with suppress(ValueError):
                found = _object(whole)
                _give_turn(len(whole))  # to write it again takes as long as to read it
                return found
            start = bytes(whole)
        if media_type != EVENTS and not _EVENTS.match(start):
            raise UpstreamBadResponse()
        return start

    def _chunks(self, call: ChatCall, response: Response, start: bytes) -> Iterator[list[Chunk]]:
        decoder = self.wire.decoder(call)
        events = EventReader(decoder)
        started, quiet_since = False, 0.0  # on the monotonic clock; 0 while content comes
        data = start
        while data and not decoder.ended:
            try:
                data, start = start or response.read(), b""
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
                if not started:
                    call.upstream["id"] = decoder.ident
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


def _give_turn(size: int) -> None:
    """Let others run before work on a response that is complete: its attempt is not late."""
    with suppress(gevent.Timeout):
        give_turn(size)


def _start(response: Response, at_least: int) -> bytes:
    """Return the beginning of a body, so many bytes or more; white space does not count."""
    start = b""
    while len(start) < at_least and (data := response.read()):
        start = (start + data).lstrip() if not start else start + data
    return start


def _object(body: bytearray) -> Mapping[str, Any]:
    """Return the object that a body is; raises ValueError."""
    value = lenient_json.loads(body)
    if isinstance(value, list) and len(value) == 1:
        value = value[0]  # as Google sends errors
    if not isinstance(value, dict):
        raise ValueError("not an object")
    return value


def _error_body(response: Response) -> bytes:
    try:
        return response.read_some(MAX_ERROR_BODY)
    except UpstreamError:
        return b""  # the status says more than the loss of its text


def _error_headers(headers: Mapping[str, str]) -> dict[str, str]:
    """Return headers for Wire.error: a wire has no clock to read a date with."""
    lowered = {name.lower(): value for name, value in headers.items()}
    seconds = seconds_until(lowered.get("retry-after", ""), time.time())
    if seconds is not None:
        lowered["retry-after"] = str(seconds)
    return lowered
