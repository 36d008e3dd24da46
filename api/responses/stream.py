"""Turns a chat result, in chunks or whole, into a response of OpenAI's Responses API.

A whole result is treated as one chunk. So the last event of a stream holds the same response as the
unstreamed call, if the provider sends reasoning first, then text, then tool calls. If it returns to
reasoning or text, the stream has a further item, which a whole result, being unordered, has not.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import Any

from api.responses import errors as responses_errors
from api.responses import response as response_object
from api.responses.items import Event, Item, Message, Reasoning, ToolCall
from api.responses.request import keeps_reasoning
from api.responses.tools import Tools
from gateway.chat import Chunk
from gateway.errors import GatewayError


class ResponseEvents:
    """Makes the events of one response. Each call needs its own.

    `response` is the response so far, which has its output at the end.

    `request` is the checked request as the caller wrote it. `clock` returns Unix time in seconds,
    `created` is one, by default now.
    """

    def __init__(
        self,
        call_id: str,
        model: str,
        request: Mapping[str, Any],
        clock: Callable[[], float] = time.time,
        created: int | None = None,
    ) -> None:
        self._call_id, self._clock = call_id, clock
        self._keeps_reasoning = keeps_reasoning(request)
        self._tools = Tools(request)
        created = int(clock()) if created is None else created
        self.response = response_object.begun(request, f"resp_{call_id}", model, created)
        self._created = False
        self._reason: str | None = None
        self._events: list[Event] = []
        self._sequence = 0
        self._items: list[Item] = []
        self._ended: dict[int, dict[str, Any]] = {}  # finished items, by their position
        self._open: Reasoning | Message | None = None
        self._calls: dict[int, ToolCall] = {}  # by chat's index; open until the end, as in chat

    def created(self) -> list[Event]:
        """The first events of a response that waits in the queue."""
        self._created = True
        for kind in ("response.created", "response.queued"):
            self._emit({"type": kind, "response": {**self.response, "status": "queued"}})
        return self._take_events()

    def begun(self) -> list[Event]:
        """The events with which the response begins."""
        for kind in ("response.created", "response.in_progress")[self._created :]:
            self._emit({"type": kind, "response": {**self.response}})
        return self._take_events()

    def chunk(self, chunk: Chunk) -> list[Event]:
        """The events of one chunk of a stream."""
        if usage := response_object.usage(chunk.get("usage")):
            self.response["usage"] = usage
        if chunk.get("service_tier"):
            self.response["service_tier"] = chunk["service_tier"]
        for choice in chunk.get("choices") or ():
            if choice.get("index"):
                continue  # a response has only one
            logprobs = (choice.get("logprobs") or {}).get("content") or []
            self._add(choice.get("delta") or {}, list(map(_with_bytes, logprobs)))
            self._reason = choice.get("finish_reason") or self._reason
        return self._take_events()

    def ended(self) -> list[Event]:
        """The last events of a response that ended without an error; it may be incomplete."""
        end = response_object.ended(self._reason)
        if end["status"] == "completed":
            self._ensure_output()
            end["completed_at"] = int(self._clock())
        self._close_all(end["status"])
        self.response |= {**end, "output": [self._ended[i.index] for i in self._items]}
        self._emit({"type": f"response.{end['status']}", "response": self.response})
        return self._take_events()

    def failed(self, error: GatewayError) -> list[Event]:
        """The last events of a response that failed after it began.

        The error of the first event is flat in OpenAI's reference, and nested in what OpenAI sends.
        Clients read either; OpenAI's own client raises the nested one.
        """
        error = responses_errors.renamed(error)
        inner = error.envelope()["error"]
        flat = {name: inner[name] for name in ("code", "message", "param")}
        self._emit({"type": "error", **flat, "error": inner})
        failed = {
            "status": "failed",
            "error": responses_errors.failure(error),
            "output": [self._ended.get(i.index) or i.shown("incomplete") for i in self._items],
        }
        self.response |= failed
        self._emit({"type": "response.failed", "response": self.response})
        return self._take_events()

    def whole(self, answer: Chunk) -> dict[str, Any]:
        """The response object of an unstreamed call."""
        choices = [
            {**choice, "delta": _as_delta(choice["message"])} for choice in answer["choices"]
        ]
        self.chunk({**answer, "choices": choices})
        response: dict[str, Any] = self.ended()[-1]["response"]
        return response

    def _emit(self, *events: Event) -> None:
        for event in events:
            self._events.append({**event, "sequence_number": self._sequence})
            self._sequence += 1

    def _take_events(self) -> list[Event]:
        events, self._events = self._events, []
        return events

    def _add(self, delta: Mapping[str, Any], logprobs: list[Any]) -> None:
        # Empty strings are skipped: streams begin with one, whatever comes after it.
        text, blocks = delta.get("reasoning_content") or "", delta.get("thinking_blocks") or []
        if text or blocks:
            self._emit(*self._reasoning().add(text, blocks))
        if delta.get("content"):
            self._emit(*self._message().add_text(delta["content"], logprobs))
        if delta.get("annotations"):
            self._emit(*self._message().add_annotations(delta["annotations"]))
        if delta.get("refusal"):
            self._emit(*self._message().add_refusal(delta["refusal"]))
        for call in delta.get("tool_calls") or ():
            self._emit(*self._call(call).add(call))

    def _reasoning(self) -> Reasoning:
        if not isinstance(self._open, Reasoning):
            self._close_open()
            self._open = Reasoning(*self._next_place(), self._keeps_reasoning)
            self._items.append(self._open)
            self._emit(self._open.added())
        return self._open

    def _message(self) -> Message:
        if not isinstance(self._open, Message):
            self._close_open()
            self._open = Message(*self._next_place())
            self._items.append(self._open)
            self._emit(self._open.added())
        return self._open

    def _call(self, call: Mapping[str, Any]) -> ToolCall:
        index = call.get("index") or 0
        if index not in self._calls:
            self._close_open()
            custom = call.get("type") == "custom"
            self._calls[index] = ToolCall(*self._next_place(), custom, self._tools)
            self._items.append(self._calls[index])
        return self._calls[index]

    def _next_place(self) -> tuple[str, int]:
        """The id of the next item, after the prefix of its type, and its position."""
        place = len(self._items)
        return f"{self._call_id}_{place}", place

    def _ensure_output(self) -> None:
        """Add an empty message if there is no message or call: agents would repeat the request."""
        if not any(isinstance(item, Message | ToolCall) for item in self._items):
            self._emit(*self._message().add_text("", []))

    def _close_open(self) -> None:
        if self._open is not None:
            self._close(self._open, "completed")
            self._open = None

    def _close_all(self, status: str) -> None:
        """End all open items. If the response is incomplete, only its last item is."""
        for item in self._items:
            if item.index not in self._ended:
                self._close(item, status if item is self._items[-1] else "completed")

    def _close(self, item: Item, status: str) -> None:
        events = item.closed(status)
        self._ended[item.index] = events[-1]["item"]
        self._emit(*events)


def _as_delta(message: Mapping[str, Any]) -> dict[str, Any]:
    calls = message.get("tool_calls") or ()
    return {**message, "tool_calls": [{**call, "index": i} for i, call in enumerate(calls)]}


def _with_bytes(token: Mapping[str, Any]) -> dict[str, Any]:
    """A token of chat's log probabilities, with the bytes that some providers leave out."""
    data = token.get("bytes")
    copy = {**token, "bytes": list(token["token"].encode()) if data is None else data}
    if "top_logprobs" in token:
        copy["top_logprobs"] = list(map(_with_bytes, token["top_logprobs"] or ()))
    return copy
