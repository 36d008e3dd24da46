"""The output items of OpenAI's Responses API while they grow, and their events.

Source: OpenAI's API reference, "Streaming events". An event here is the object of its `data:` line,
without the sequence number.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any

from api.responses.reasoning import ThinkingBlock, sealed
from api.responses.tools import Tools

Event = dict[str, Any]


class Item(ABC):
    """One item of a response's output: what all types of items share."""

    def __init__(self, item_id: str, index: int) -> None:
        self.id, self.index = item_id, index

    @abstractmethod
    def shown(self, status: str) -> dict[str, Any]:
        """The item so far; `status` is "in_progress", "completed" or "incomplete"."""

    def added(self) -> Event:
        """Its first event."""
        return self._item_event("added", "in_progress")

    @abstractmethod
    def closed(self, status: str) -> list[Event]:
        """The events that end it; the last one holds the whole item."""

    def done(self, status: str) -> Event:
        """Its last event."""
        return self._item_event("done", status)

    def event(self, kind: str, **more: Any) -> Event:
        """An event about a piece of it."""
        place = {"item_id": self.id, "output_index": self.index}
        return {"type": f"response.{kind}", **place, **more}

    def _item_event(self, kind: str, status: str) -> Event:
        place = {"type": f"response.output_item.{kind}", "output_index": self.index}
        return {**place, "item": self.shown(status)}


class Reasoning(Item):
    """The model's reasoning: its text as a summary, and its blocks for the client to keep.

    `with_blocks`: whether the client gets the blocks. The summary begins with the first text.
    """

    def __init__(self, number: str, index: int, with_blocks: bool) -> None:
        super().__init__(f"rs_{number}", index)
        self._with_blocks = with_blocks
        self._pieces: list[str] = []
        self._blocks: list[ThinkingBlock] = []

    def shown(self, status: str) -> dict[str, Any]:
        # No status: OpenAI's have none either, and clients send items back unchanged.
        summary = [self._part()] if self._pieces else []
        item: dict[str, Any] = {"id": self.id, "type": "reasoning", "summary": summary}
        if self._blocks and self._with_blocks:
            item["encrypted_content"] = sealed(self._blocks)
        return item

    def add(self, text: str, blocks: list[ThinkingBlock]) -> list[Event]:
        """The events of more text, more finished blocks, or both."""
        self._blocks += blocks
        if not text:
            return []
        events = []
        if not self._pieces:
            empty = self._part()
            events = [self.event("reasoning_summary_part.added", summary_index=0, part=empty)]
        self._pieces.append(text)
        return [*events, self.event("reasoning_summary_text.delta", summary_index=0, delta=text)]

    def closed(self, status: str) -> list[Event]:
        if not self._pieces:
            return [self.done(status)]
        part = self._part()
        return [
            self.event("reasoning_summary_text.done", summary_index=0, text=part["text"]),
            self.event("reasoning_summary_part.done", summary_index=0, part=part),
            self.done(status),
        ]

    def _part(self) -> dict[str, Any]:
        return {"type": "summary_text", "text": "".join(self._pieces)}


class _Part:
    """One part of a message: a refusal, or text with its annotations and log probabilities."""

    def __init__(self, kind: str) -> None:
        self.kind = kind
        self.pieces: list[str] = []
        self.annotations: list[Any] = []
        self.logprobs: list[Any] = []

    def shown(self) -> dict[str, Any]:
        text = "".join(self.pieces)
        if self.kind == "refusal":
            return {"type": "refusal", "refusal": text}
        facts = {"annotations": [*self.annotations], "logprobs": [*self.logprobs]}
        return {"type": "output_text", "text": text, **facts}


class Message(Item):
    """A message of the model: parts of text and refusals. Each ends where the next begins."""

    def __init__(self, number: str, index: int) -> None:
        super().__init__(f"msg_{number}", index)
        self._parts: list[_Part] = []

    def shown(self, status: str) -> dict[str, Any]:
        content = [part.shown() for part in self._parts]
        item = {"id": self.id, "type": "message", "status": status, "role": "assistant"}
        return {**item, "content": content}

    def add_text(self, text: str, logprobs: list[Any]) -> list[Event]:
        """The events of more text."""
        part, events = self._part_of("output_text")
        part.pieces.append(text)
        part.logprobs += logprobs
        return [*events, self._piece("output_text.delta", delta=text, logprobs=logprobs)]

    def add_annotations(self, annotations: list[Any]) -> list[Event]:
        """The events of the text's annotations, which come in chat's format."""
        part, events = self._part_of("output_text")
        for annotation in map(_flat, annotations):
            facts = {"annotation_index": len(part.annotations), "annotation": annotation}
            part.annotations.append(annotation)
            events.append(self._piece("output_text.annotation.added", **facts))
        return events

    def add_refusal(self, text: str) -> list[Event]:
        """The events of more of a refusal."""
        part, events = self._part_of("refusal")
        part.pieces.append(text)
        return [*events, self._piece("refusal.delta", delta=text)]

    def closed(self, status: str) -> list[Event]:
        return [*self._part_closed(), self.done(status)]

    def _part_of(self, kind: str) -> tuple[_Part, list[Event]]:
        """The current part, or a new one of this kind and the events that begin it."""
        if self._parts and self._parts[-1].kind == kind:
            return self._parts[-1], []
        events = self._part_closed()
        part = _Part(kind)
        self._parts.append(part)
        return part, [*events, self._piece("content_part.added", part=part.shown())]

    def _part_closed(self) -> list[Event]:
        if not self._parts:
            return []
        part = self._parts[-1].shown()
        if part["type"] == "refusal":
            done = self._piece("refusal.done", refusal=part["refusal"])
        else:
            done = self._piece("output_text.done", text=part["text"], logprobs=part["logprobs"])
        return [done, self._piece("content_part.done", part=part)]

    def _piece(self, kind: str, **more: Any) -> Event:
        return self.event(kind, content_index=len(self._parts) - 1, **more)


class ToolCall(Item):
    """A tool call of the model; a `custom` tool takes text in place of JSON.

    It has the name, and the namespace, under which `tools` has the tool.

    No event is sent before the name has arrived, since clients read it from the first one.
    """

    def __init__(self, number: str, index: int, custom: bool, tools: Tools) -> None:
        super().__init__(f"{'ctc' if custom else 'fc'}_{number}", index)
        self._tools = tools
        self._kind, self._field, self._events = CUSTOM if custom else FUNCTION
        self._call_id = f"call_{number}"  # for providers that send none: results refer to it
        self._name = ""
        self._pieces: list[str] = []
        self._sent = False

    def shown(self, status: str) -> dict[str, Any]:
        item = {"id": self.id, "type": self._kind, "status": status, "call_id": self._call_id}
        namespace, name = self._tools.own_name(self._name)
        item |= {"namespace": namespace} if namespace else {}
        return {**item, "name": name, self._field: "".join(self._pieces)}

    def add(self, call: dict[str, Any]) -> list[Event]:
        """The events of one delta of chat."""
        facts = call.get("function") or call.get("custom") or {}
        self._call_id = call.get("id") or self._call_id
        self._name += facts.get("name") or ""
        if piece := facts.get(self._field):
            self._pieces.append(piece)
        if not self._sent:
            return self._first() if self._name else []
        return [self._more(piece)] if piece else []

    def closed(self, status: str) -> list[Event]:
        events = [] if self._sent else self._first()
        done = self.event(f"{self._events}.done", **self._facts())
        return [*events, done, self.done(status)]

    def added(self) -> Event:
        event = super().added()
        event["item"][self._field] = ""  # the input so far follows as a delta
        return event

    def _first(self) -> list[Event]:
        self._sent = True
        text = "".join(self._pieces)
        return [self.added(), *([self._more(text)] if text else [])]

    def _more(self, piece: str) -> Event:
        return self.event(f"{self._events}.delta", delta=piece)

    def _facts(self) -> dict[str, Any]:
        name = self._tools.own_name(self._name)[1]
        return {"name": name, self._field: "".join(self._pieces)}


# Type of the item, the field of its input, and the first part of its events' names.
FUNCTION = ("function_call", "arguments", "function_call_arguments")
CUSTOM = ("custom_tool_call", "input", "custom_tool_call_input")


def _flat(annotation: dict[str, Any]) -> dict[str, Any]:
    """An annotation of chat without the level that is named after its type."""
    kind = annotation.get("type", "url_citation")
    return {"type": kind, **(annotation.get(kind) or {})}
