"""Turns the deltas of a chat stream into the content blocks of an Anthropic message."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, TypeAlias

from api.messages.response import thinking, tool_use
from gateway.errors import UpstreamBadResponse

Data: TypeAlias = Mapping[str, Any]
Event: TypeAlias = dict[str, Any]

TEXT = "text"
THINKING = "thinking"


class ContentBlocks:
    """Opens, fills and closes the blocks of one message; only the last one is ever open.

    A chat stream does not mark where a text or a call ends: the next one ends it.
    """

    def __init__(self, message_id: str) -> None:
        self._message_id = message_id
        self._count = 0
        self._open: str | int | None = None  # TEXT, THINKING or the index of a tool call
        self._thinking = ""  # the text of the open thinking block
        self._unnamed_calls: dict[int, Event] = {}  # calls whose name has not arrived
        self._begun: set[int] = set()

    @property
    def used_tools(self) -> bool:
        """Whether the message uses any tool."""
        return bool(self._begun)

    @property
    def unnamed(self) -> bool:
        """Whether the name of some tool call has not arrived."""
        return bool(self._unnamed_calls)

    def events(self, delta: Data) -> Iterator[Event]:
        """The events of one delta.

        Raises UpstreamBadResponse for a call that continues after another one has begun, which a
        message cannot express.
        """
        if text := delta.get("reasoning_content"):
            yield from self._thinking_text(text)
        for block in delta.get("thinking_blocks") or ():
            yield from self._thinking_block(block)
        for text in (delta.get("content"), delta.get("refusal")):
            if text:
                yield from self._enter(TEXT, {"type": "text", "text": ""})
                yield self._delta({"type": "text_delta", "text": text})
        for call in delta.get("tool_calls") or ():
            yield from self._call(call)

    def close(self) -> Iterator[Event]:
        """The event that ends the open block, if there is one."""
        if self._open is not None:
            self._open = None
            yield {"type": "content_block_stop", "index": self._count - 1}

    def _enter(self, kind: str | int, block: Data) -> Iterator[Event]:
        if self._open != kind:
            yield from self.close()
            yield {"type": "content_block_start", "index": self._count, "content_block": block}
            self._count += 1
            self._open = kind

    def _delta(self, delta: Data) -> Event:
        return {"type": "content_block_delta", "index": self._count - 1, "delta": delta}

    def _thinking_text(self, text: str) -> Iterator[Event]:
        if self._open != THINKING:
            self._thinking = ""
        yield from self._enter(THINKING, thinking())
        self._thinking += text
        yield self._delta({"type": "thinking_delta", "thinking": text})

    def _thinking_block(self, block: Data) -> Iterator[Event]:
        """A complete block. Its text has been sent already, unless the provider hides it."""
        if block["type"] != "thinking":
            yield from self._enter(block["type"], block)
            yield from self.close()
            return
        if self._open != THINKING:
            self._thinking = ""
            yield from self._enter(THINKING, thinking())
        if rest := block["thinking"].removeprefix(self._thinking):
            yield self._delta({"type": "thinking_delta", "thinking": rest})
        if block.get("signature"):
            yield self._delta({"type": "signature_delta", "signature": block["signature"]})
        yield from self.close()

    def _call(self, call: Data) -> Iterator[Event]:
        index = call.get("index", 0)
        function = call.get("function") or {}
        arguments = function.get("arguments") or ""
        if index not in self._begun:
            empty = {"id": None, "name": "", "arguments": ""}
            unnamed = self._unnamed_calls.setdefault(index, empty)
            unnamed["id"] = call.get("id") or unnamed["id"]
            unnamed["name"] += function.get("name") or ""
            unnamed["arguments"] += arguments
            if not unnamed["name"]:
                return
            arguments = self._unnamed_calls.pop(index)["arguments"]
            self._begun.add(index)
            ident, name = unnamed["id"], unnamed["name"]
            yield from self._enter(index, tool_use(ident, name, self._message_id, index))
        if not arguments:
            return
        if self._open != index:
            raise UpstreamBadResponse("The provider's tool calls are mixed up in its stream.")
        yield self._delta({"type": "input_json_delta", "partial_json": arguments})
