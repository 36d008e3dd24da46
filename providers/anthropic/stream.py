"""Anthropic's event stream as OpenAI's chunks."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import orjson

from gateway.chat import Chunk
from providers import lenient_json
from providers.anthropic.json_text import ObjectText
from providers.base import ident_of
from providers.errors import rejection_inside

FINISH_REASONS = {
    "end_turn": "stop",
    "stop_sequence": "stop",
    "pause_turn": "stop",
    "max_tokens": "length",
    "model_context_window_exceeded": "length",
    "tool_use": "tool_calls",
    "refusal": "content_filter",
}

# Anthropic counts the tokens of a prompt in three parts.
PROMPT_COUNTS = ("input_tokens", "cache_creation_input_tokens", "cache_read_input_tokens")

TIERS = {"standard": "default", "priority": "priority"}
# Anthropic's count -> its place in OpenAI's usage. A count that Anthropic omits is left out.
DETAILS = (
    ("cache_read_input_tokens", "prompt_tokens_details", "cached_tokens"),
    ("cache_creation_input_tokens", "prompt_tokens_details", "cache_write_tokens"),
    ("cache_creation", "prompt_tokens_details", "cache_creation"),
    ("thinking_tokens", "completion_tokens_details", "reasoning_tokens"),
)


class AnthropicDecoder:
    """Decodes the events of one message. Tool calls are numbered; blocks of text are not.

    `json`: the text is to be one JSON object; what stands around it is left out, and a complete
    response without one is an error.
    """

    def __init__(self, secrets: Iterable[str] = (), json: bool = False) -> None:
        self._json = ObjectText() if json else None
        self.reads_text = json
        self.finished = False
        self.ended = False
        self.ident = ""
        self._secrets = tuple(secrets)
        self._role: Chunk = {"role": "assistant"}  # until the first delta has carried it
        self._tools: dict[int, _ToolCall] = {}  # by index of content block
        self._thinking: dict[int, Chunk] = {}  # open blocks of thinking, by index
        self._usage: dict[str, Any] = {}
        self._end: Chunk = {}  # the deltas of the message itself: how it ended

    def feed(self, event: str, data: str) -> Iterable[Chunk]:
        """Return the chunks of one event; raises UpstreamError for a broken one, or an error."""
        if self.ended:
            return ()
        try:
            body = orjson.loads(data)
        except orjson.JSONDecodeError:
            body = {"type": "error"} if event == "error" else lenient_json.event(data)
        match body:
            case {
                "type": "content_block_delta",
                "delta": {"type": "text_delta", "text": str(text)},
            }:
                return self._text(text)
            case {
                "type": "content_block_delta",
                "index": int(index),
                "delta": {"type": "input_json_delta", "partial_json": str(piece)},
            } if piece and index in self._tools:
                return self._delta(self._tools[index].more(piece))
            case {
                "type": "content_block_delta",
                "index": int(index),
                "delta": {"type": "thinking_delta" | "signature_delta"} as delta,
            } if index in self._thinking:
                return self._think(index, delta)
            case {
                "type": "content_block_start",
                "index": int(index),
                "content_block": {"type": "tool_use", "id": str(ident), "name": str(name)} as block,
            }:
                call = _ToolCall(len(self._tools), block.get("input"))
                self._tools[index] = call
                return self._delta(call.start(ident, name))
            case {
                "type": "content_block_start",
                "content_block": {"type": "text", "text": str(text)},
            }:
                return self._text(text)
            case {
                "type": "content_block_start",
                "index": int(index),
                "content_block": {"type": "thinking" | "redacted_thinking"} as block,
            }:
                self._thinking[index] = {}
                return self._think(index, block)
            case {"type": "content_block_stop", "index": int(index)} if index in self._tools:
                return self._delta(self._tools[index].rest())
            case {"type": "content_block_stop", "index": int(index)} if index in self._thinking:
                return self._delta({"thinking_blocks": [self._thinking.pop(index)]})
            case {"type": "message_start", "message": {"usage": dict(usage)} as message}:
                self.ident = ident_of(message)
                self._count(usage)
                return self._prompt_usage()
            case {"type": "message_delta"}:
                self._message_delta(body)
            case {"type": "message_stop"}:
                return self._stop()
            case {"type": "error"}:
                raise rejection_inside(body.get("error"), self._secrets)
        return ()  # pings, citations, and whatever Anthropic adds

    def _text(self, text: str) -> Iterable[Chunk]:
        if self._json is not None:
            text = self._json.feed(text)
        return self._delta({"content": text}) if text else ()

    def _delta(self, delta: Chunk | None) -> Iterable[Chunk]:
        if delta is None:
            return ()
        delta = {**self._role, **delta}
        self._role = {}
        return ({"choices": [{"index": 0, "delta": delta, "finish_reason": None}]},)

    def _think(self, index: int, delta: dict[str, Any]) -> Iterable[Chunk]:
        """Add a delta, or a start, to a block of thinking; its text is sent at once."""
        block = self._thinking[index]
        if delta["type"] == "redacted_thinking":
            block.update(type="redacted_thinking", data=_text(delta.get("data")))
            return ()
        text, signature = (_text(delta.get(name)) for name in ("thinking", "signature"))
        block["type"] = "thinking"
        block["thinking"] = block.get("thinking", "") + text
        block["signature"] = block.get("signature", "") + signature
        return self._delta({"reasoning_content": text}) if text else ()

    def _message_delta(self, body: dict[str, Any]) -> None:
        if isinstance(body.get("usage"), dict):
            self._count(body["usage"])
        if isinstance(body.get("delta"), dict):
            self._end.update((k, v) for k, v in body["delta"].items() if v is not None)

    def _count(self, usage: dict[str, Any]) -> None:
        # Counts are cumulative: a later one replaces an earlier one.
        self._usage.update((key, value) for key, value in usage.items() if value is not None)

    def _stop(self) -> Iterable[Chunk]:
        default = "tool_calls" if self._tools else "stop"
        native = self._end.get("stop_reason")
        reason = FINISH_REASONS.get(str(native), default)
        if self._json is not None and reason == "stop" and not self._tools:
            self._json.check()
        self.finished = self.ended = True
        last: Chunk = {"index": 0, "delta": self._role, "finish_reason": reason}
        if isinstance(native, str):
            last["native_finish_reason"] = native
        for name in ("stop_sequence", "stop_details"):
            if name in self._end:
                last[name] = self._end[name]
        chunk: Chunk = {"choices": [last]}
        if tier := TIERS.get(str(self._usage.get("service_tier"))):
            chunk["service_tier"] = tier
        chunks = [chunk]
        if self._has("input_tokens", "output_tokens"):
            chunks.append({"choices": [], "usage": self._openai_usage()})
        return chunks

    def _prompt_usage(self) -> Iterable[Chunk]:
        """The usage at the beginning of a message, which counts the prompt."""
        if not any(self._has(name) and self._usage[name] for name in PROMPT_COUNTS):
            return ()
        self._usage.setdefault("output_tokens", 0)
        return ({"choices": [], "usage": self._openai_usage()},)

    def _has(self, *names: str) -> bool:
        return all(isinstance(self._usage.get(name), int) for name in names)

    def _openai_usage(self) -> Chunk:
        prompt = sum(self._usage[name] for name in PROMPT_COUNTS if self._has(name))
        completion = self._usage["output_tokens"] if self._has("output_tokens") else 0
        usage: Chunk = {
            "prompt_tokens": prompt,
            "completion_tokens": completion,
            "total_tokens": prompt + completion,
            "prompt_tokens_details": {"cached_tokens": 0},
        }
        details = self._usage.get("output_tokens_details")
        counts = {**self._usage, **(details if isinstance(details, dict) else {})}
        for ours, group, name in DETAILS:
            if isinstance(counts.get(ours), dict if ours == "cache_creation" else int):
                usage.setdefault(group, {})[name] = counts[ours]
        return usage


def _text(value: Any) -> str:
    return value if isinstance(value, str) else ""


class _ToolCall:
    """One tool call of a message, while it streams."""

    def __init__(self, index: int, params: Any) -> None:
        self._index = index
        self._input = params  # arguments that came with the start; {} before streamed ones
        self._begun = False

    def start(self, ident: str, name: str) -> Chunk:
        function = {"name": name, "arguments": ""}
        return self._delta({"id": ident, "type": "function", "function": function})

    def more(self, piece: str) -> Chunk:
        self._begun = True
        return self._delta({"function": {"arguments": piece}})

    def rest(self) -> Chunk | None:
        """Return the arguments if none were streamed: clients parse them, and "" is not JSON."""
        return None if self._begun else self.more(orjson.dumps(self._input or {}).decode())

    def _delta(self, call: Chunk) -> Chunk:
        return {"tool_calls": [{"index": self._index, **call}]}
