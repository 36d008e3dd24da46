"""A chat answer, in parts or whole, as a response of OpenAI's Responses API and its events.

A whole answer is one part to this: so a stream's last response is that of the unstreamed answer
wherever a provider reasons first, then speaks, then calls tools. Where it goes back to reasoning or
speaking, the stream has a further item for that; a whole answer, which knows no order, has not.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import Any

from api.responses import errors as responses_errors
from api.responses import response as response_object
from api.responses.items import Event, Item, Message, Reasoning, ToolCall
from api.responses.request import keeps_reasoning
from gateway.chat import Chunk
from gateway.errors import GatewayError


class ResponseEvents:
    """Makes the events of one response: made for one call, used once.

    `asked` is the checked request as the caller wrote it; `clock` tells Unix time in seconds.
    """

    def __init__(
        self,
        call_id: str,
        model: str,
        asked: Mapping[str, Any],
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._call_id, self._clock = call_id, clock
        self._keeps_reasoning = keeps_reasoning(asked)
        self._response = response_object.begun(asked, f"resp_{call_id}", model, int(clock()))
        self._reason: str | None = None
        self._told: list[Event] = []
        self._sequence = 0
        self._items: list[Item] = []
        self._ended: dict[int, dict[str, Any]] = {}  # what became of an item, by its place
        self._open: Reasoning | Message | None = None
        self._calls: dict[int, ToolCall] = {}  # by chat's index; open to the end, as chat's are

    def begun(self) -> list[Event]:
        """The first events."""
        for kind in ("response.created", "response.in_progress"):
            self._tell({"type": kind, "response": {**self._response}})
        return self._taken()

    def of(self, part: Chunk) -> list[Event]:
        """The events of one streamed part."""
        if counted := response_object.usage(part.get("usage")):
            self._response["usage"] = counted
        if part.get("service_tier"):
            self._response["service_tier"] = part["service_tier"]
        for choice in part.get("choices") or ():
            if choice.get("index"):
                continue  # a response has but one
            logprobs = (choice.get("logprobs") or {}).get("content") or []
            self._take(choice.get("delta") or {}, list(map(_with_bytes, logprobs)))
            self._reason = choice.get("finish_reason") or self._reason
        return self._taken()

    def ended(self) -> list[Event]:
        """The last events of a response that ended well, though maybe incomplete."""
        end = response_object.ended(self._reason)
        if end["status"] == "completed":
            self._say_something()
            end["completed_at"] = int(self._clock())
        self._close_all(end["status"])
        self._response |= {**end, "output": [self._ended[i.index] for i in self._items]}
        self._tell({"type": f"response.{end['status']}", "response": self._response})
        return self._taken()

    def failed(self, error: GatewayError) -> list[Event]:
        """The last events of a response that failed after it began.

        The first one's error is flat in OpenAI's reference and nested in what OpenAI sends: clients
        read one of the two, and the nested one makes OpenAI's own raise it.
        """
        told = responses_errors.renamed(error)
        inner = told.envelope()["error"]
        flat = {name: inner[name] for name in ("code", "message", "param")}
        self._tell({"type": "error", **flat, "error": inner})
        failed = {
            "status": "failed",
            "error": responses_errors.failure(told),
            "output": [self._ended.get(i.index) or i.shown("incomplete") for i in self._items],
        }
        self._tell({"type": "response.failed", "response": self._response | failed})
        return self._taken()

    def whole(self, answer: Chunk) -> dict[str, Any]:
        """The response of an unstreamed answer."""
        choices = [
            {**choice, "delta": _as_delta(choice["message"])} for choice in answer["choices"]
        ]
        self.of({**answer, "choices": choices})
        response: dict[str, Any] = self.ended()[-1]["response"]
        return response

    def _tell(self, *events: Event) -> None:
        for event in events:
            self._told.append({**event, "sequence_number": self._sequence})
            self._sequence += 1

    def _taken(self) -> list[Event]:
        told, self._told = self._told, []
        return told

    def _take(self, delta: Mapping[str, Any], logprobs: list[Any]) -> None:
        """Empty strings say nothing: streams begin with one, whatever comes after it."""
        thought, blocks = delta.get("reasoning_content") or "", delta.get("thinking_blocks") or []
        if thought or blocks:
            self._tell(*self._reasoning().grown(thought, blocks))
        if delta.get("content"):
            self._tell(*self._message().said(delta["content"], logprobs))
        if delta.get("annotations"):
            self._tell(*self._message().annotated(delta["annotations"]))
        if delta.get("refusal"):
            self._tell(*self._message().refused(delta["refusal"]))
        for call in delta.get("tool_calls") or ():
            self._tell(*self._call(call).grown(call))

    def _reasoning(self) -> Reasoning:
        if not isinstance(self._open, Reasoning):
            self._close_open()
            self._open = Reasoning(*self._place(), self._keeps_reasoning)
            self._items.append(self._open)
            self._tell(self._open.added())
        return self._open

    def _message(self) -> Message:
        if not isinstance(self._open, Message):
            self._close_open()
            self._open = Message(*self._place())
            self._items.append(self._open)
            self._tell(self._open.added())
        return self._open

    def _call(self, call: Mapping[str, Any]) -> ToolCall:
        index = call.get("index") or 0
        if index not in self._calls:
            self._close_open()
            custom = call.get("type") == "custom"
            self._calls[index] = ToolCall(*self._place(), custom)
            self._items.append(self._calls[index])
        return self._calls[index]

    def _place(self) -> tuple[str, int]:
        """What the next item is called, after the letters of its kind, and its place."""
        place = len(self._items)
        return f"{self._call_id}_{place}", place

    def _say_something(self) -> None:
        """Agents wait for a message or a call, and ask again when they get neither."""
        if not any(isinstance(item, Message | ToolCall) for item in self._items):
            self._tell(*self._message().said("", []))

    def _close_open(self) -> None:
        if self._open is not None:
            self._close(self._open, "completed")
            self._open = None

    def _close_all(self, status: str) -> None:
        """End what is still open; where the answer is incomplete, so is its last item alone."""
        for item in self._items:
            if item.index not in self._ended:
                self._close(item, status if item is self._items[-1] else "completed")

    def _close(self, item: Item, status: str) -> None:
        events = item.closed(status)
        self._ended[item.index] = events[-1]["item"]
        self._tell(*events)


def _as_delta(message: Mapping[str, Any]) -> dict[str, Any]:
    calls = message.get("tool_calls") or ()
    return {**message, "tool_calls": [{**call, "index": i} for i, call in enumerate(calls)]}


def _with_bytes(token: Mapping[str, Any]) -> dict[str, Any]:
    """A token of chat's log probabilities; here its bytes are wanted, which not all tell."""
    told = token.get("bytes")
    made = {**token, "bytes": list(token["token"].encode()) if told is None else told}
    if "top_logprobs" in token:
        made["top_logprobs"] = list(map(_with_bytes, token["top_logprobs"] or ()))
    return made
