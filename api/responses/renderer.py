"""Renders a chat answer as a response of OpenAI's Responses API, whole and as events."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

import orjson

from api.http import sse
from api.reply import Renderer
from api.responses import errors
from api.responses.stream import ResponseEvents
from gateway.errors import GatewayError


class ResponseRenderer(Renderer):
    """Renders one response; `request` is the checked request as the caller wrote it."""

    api = "responses"
    full_names = True

    def __init__(
        self,
        call_id: str,
        model: str,
        request: Mapping[str, Any],
        created: int | None = None,
        prompt_tokens: int = 0,
    ) -> None:
        self._response = ResponseEvents(call_id, model, request, self._now, created)
        self._begun = False

    def whole(self, result: bytes) -> bytes:
        """The response object."""
        return orjson.dumps(self._response.whole(orjson.loads(result)))

    def whole_error(self, error: GatewayError) -> bytes:
        """OpenAI's error envelope."""
        return errors.body(error)

    def events(self, payload: bytes) -> bytes:
        """The events of one payload."""
        chunks = (orjson.loads(line) for line in payload.split(b"\n") if line)
        return self._begin() + b"".join(
            sse.typed_events(self._response.chunk(chunk)) for chunk in chunks
        )

    def end(self) -> bytes:
        """The last events; OpenAI sends no end marker here."""
        return self._begin() + sse.typed_events(self._response.ended())

    def error(self, error: GatewayError) -> bytes:
        """The last events of a response that failed after it began."""
        return self._begin() + sse.typed_events(self._response.failed(error))

    def queued(self) -> bytes:
        """The response object of a call that waits in the queue."""
        return orjson.dumps({**self.response, "status": "queued"})

    def first(self) -> bytes:
        """The events that say that the response waits in the queue."""
        return sse.typed_events(self._response.created())

    @property
    def response(self) -> dict[str, Any]:
        """The response object so far, which has its output once it has ended."""
        return self._response.response

    def _now(self) -> float:
        return self.completed_at or time.time()

    def _begin(self) -> bytes:
        if self._begun:
            return b""
        self._begun = True
        return sse.typed_events(self._response.begun())


class CountRenderer(Renderer):
    """Renders a count of input tokens, which a worker sends as Anthropic's API does."""

    api = "responses.count_tokens"

    def __init__(self, *_: str, **__: int) -> None:
        """Create the renderer of one call: nothing of it is part of a count."""

    def whole(self, result: bytes) -> bytes:
        """OpenAI's object with the count."""
        return orjson.dumps({"object": "response.input_tokens", **orjson.loads(result)})

    def whole_error(self, error: GatewayError) -> bytes:
        """OpenAI's error envelope."""
        return errors.body(error)
