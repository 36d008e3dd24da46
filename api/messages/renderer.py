"""How an answer of Anthropic's Messages API looks on the wire, whole and as events.

Source: platform.claude.com/docs/en/build-with-claude/streaming, read in November 2026.
"""

from __future__ import annotations

from typing import Any

import orjson

from api.messages import errors as messages_errors
from api.messages import response as message_response
from api.messages.stream import Blocks, Event
from gateway.errors import GatewayError, UpstreamBadResponse


class MessageReply:
    """Renders one message."""

    def __init__(self, call_id: str, model: str, request_id: str = "") -> None:
        self._identity = {"id": f"msg_{call_id}", "model": model}
        self._request_id = request_id
        self._blocks = Blocks(self._identity["id"])
        self._begun = self._failed = False
        self._choice: dict[str, Any] = {}  # what was told of the end
        self._usage: dict[str, Any] = {}

    def whole(self, answer: bytes) -> bytes:
        """The message object."""
        return orjson.dumps(message_response.message(self._identity, orjson.loads(answer)))

    def whole_error(self, error: GatewayError) -> bytes:
        """Anthropic's error object."""
        return messages_errors.body(error, self._request_id)

    def events(self, payload: bytes) -> bytes:
        """The events of one payload: a line of JSON for each part."""
        events = self._begin()
        try:
            for line in payload.split(b"\n"):
                if line and not self._failed:
                    events += self._part(orjson.loads(line))
        except UpstreamBadResponse as error:
            # What was sent cannot be taken back, and breaking off would look like a full answer.
            self._failed = True
            return _sent(events) + _named("error", self.whole_error(error))
        return _sent(events)

    def end(self) -> bytes:
        """The last events of a stream that ended well."""
        if self._failed:
            return b""
        if self._blocks.unnamed:
            return self.error(UpstreamBadResponse("The provider's tool call has no name."))
        delta = message_response.stop(self._choice, self._blocks.used_tools)
        usage = message_response.usage(self._usage)
        last = {"type": "message_delta", "delta": delta, "usage": usage}
        return _sent([*self._begin(), *self._blocks.close(), last, {"type": "message_stop"}])

    def error(self, error: GatewayError) -> bytes:
        """The last event of a stream that failed after it began."""
        return b"" if self._failed else _named("error", self.whole_error(error))

    def _begin(self) -> list[Event]:
        if self._begun:
            return []
        self._begun = True
        start = {"type": "message_start", "message": message_response.empty(self._identity)}
        return [start, {"type": "ping"}]

    def _part(self, part: dict[str, Any]) -> list[Event]:
        self._usage = part.get("usage") or self._usage
        events: list[Event] = []
        for choice in part.get("choices") or ():
            if choice.get("index", 0) == 0:
                events += self._blocks.events(choice.get("delta") or {})
                self._choice |= {k: v for k, v in choice.items() if v is not None and k != "delta"}
        return events


def _sent(events: list[Event]) -> bytes:
    return b"".join(_named(event["type"], orjson.dumps(event)) for event in events)


def _named(name: str, data: bytes) -> bytes:
    return b"event: %s\ndata: %s\n\n" % (name.encode(), data)
