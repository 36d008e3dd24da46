"""Renders a chat answer as a message of Anthropic's Messages API, whole and as events.

Source: platform.claude.com/docs/en/build-with-claude/streaming, read in November 2026.
"""

from __future__ import annotations

from typing import Any

import orjson

from api.http import sse
from api.messages import errors as messages_errors
from api.messages import response as message_response
from api.messages.stream import ContentBlocks, Event
from api.reply import Renderer
from gateway.errors import GatewayError, UpstreamBadResponse


class MessageRenderer(Renderer):
    """Renders one message.

    `prompt_tokens` is an estimate: a stream begins with it where the provider has not counted yet,
    and ends with the provider's number.
    """

    api = "messages"
    full_names = True

    def __init__(
        self,
        call_id: str,
        model: str,
        request_id: str = "",
        prompt_tokens: int = 0,
        created: int = 0,
    ) -> None:
        self._prompt_tokens = prompt_tokens
        self._identity = {"id": f"msg_{call_id}", "model": model}
        self._request_id = request_id
        self._blocks = ContentBlocks(self._identity["id"])
        self._begun = self._failed = False
        self._choice: dict[str, Any] = {}  # the choice's fields besides its deltas
        self._usage: dict[str, Any] = {}

    def whole(self, result: bytes) -> bytes:
        """The message object."""
        return orjson.dumps(message_response.message(self._identity, orjson.loads(result)))

    def whole_error(self, error: GatewayError) -> bytes:
        """Anthropic's error object."""
        return messages_errors.body(error, self._request_id)

    def events(self, payload: bytes) -> bytes:
        """The events of one payload."""
        chunks = [orjson.loads(line) for line in payload.split(b"\n") if line]
        for chunk in chunks:
            self._usage = chunk.get("usage") or self._usage
        events = self._begin()
        try:
            for chunk in chunks:
                if not self._failed:
                    events += self._chunk(chunk)
        except UpstreamBadResponse as error:
            # Sent events cannot be taken back, and a stream that just stops looks complete.
            self._failed = True
            return sse.typed_events(events) + sse.event(self.whole_error(error), "error")
        return sse.typed_events(events)

    def end(self) -> bytes:
        """The last events of a stream that ended well."""
        if self._failed:
            return b""
        if self._blocks.unnamed:
            return self.error(UpstreamBadResponse("The provider's tool call has no name."))
        delta = message_response.stop(self._choice, self._blocks.used_tools)
        usage = message_response.usage(self._usage)
        last = {"type": "message_delta", "delta": delta, "usage": usage}
        stop = {"type": "message_stop"}
        return sse.typed_events([*self._begin(), *self._blocks.close(), last, stop])

    def error(self, error: GatewayError) -> bytes:
        """The last event of a stream that failed after it began."""
        return b"" if self._failed else sse.event(self.whole_error(error), "error")

    def _begin(self) -> list[Event]:
        if self._begun:
            return []
        self._begun = True
        message = message_response.empty(self._identity)
        counted = self._usage or {"prompt_tokens": self._prompt_tokens}
        message["usage"] = message_response.usage(counted)
        return [{"type": "message_start", "message": message}, {"type": "ping"}]

    def _chunk(self, chunk: dict[str, Any]) -> list[Event]:
        events: list[Event] = []
        for choice in chunk.get("choices") or ():
            if choice.get("index", 0) == 0:
                events += self._blocks.events(choice.get("delta") or {})
                self._choice |= {k: v for k, v in choice.items() if v is not None and k != "delta"}
        return events


class CountRenderer(Renderer):
    """Renders a count of tokens, which a worker sends as Anthropic's API does."""

    api = "messages.count_tokens"

    def __init__(self, call_id: str, model: str, request_id: str = "", **_: int) -> None:
        self._request_id = request_id

    def whole(self, result: bytes) -> bytes:
        """The count."""
        return result

    def whole_error(self, error: GatewayError) -> bytes:
        """Anthropic's error object."""
        return messages_errors.body(error, self._request_id)
