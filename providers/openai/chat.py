"""Chat completions of OpenAI and of compatible upstreams."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Mapping
from typing import Any

import orjson

from gateway.chat import EXTENSIONS, IDENTITY, ChatCall, Chunk
from gateway.errors import GatewayError, UpstreamBadResponse, UpstreamFailed
from providers.base import Endpoint, Request
from providers.errors import rejection, rejection_inside
from providers.openai.request import request_body
from providers.openai.shapes import shape_choice, shape_message, shape_usage

# Finish reasons of compatible servers -> OpenAI's.
FINISH_REASONS = {
    "eos": "stop",
    "eos_token": "stop",
    "end_turn": "stop",
    "stop_sequence": "stop",
    "max_tokens": "length",
    "model_length": "length",
    "tool_use": "tool_calls",
    "safety": "content_filter",
    "refusal": "content_filter",
}
BROKEN = frozenset({"error", "insufficient_system_resource"})  # the response is incomplete

# Fields that are not copied: identity, padding, and those that are checked first.
_OWN = IDENTITY | {"choices", "usage", "obfuscation", "error"}

_LONE_SURROGATE = re.compile(
    r"\\ud[89ab][0-9a-f]{2}(?!\\ud[c-f][0-9a-f]{2})"
    r"|(?<!\\ud[89ab][0-9a-f]{2})\\ud[c-f][0-9a-f]{2}",
    re.IGNORECASE,
)


class OpenAIWire:
    """The dialect of OpenAI and of compatible upstreams.

    `keeps` names the fields of messages beyond OpenAI's that the upstream takes: see
    gateway.chat.EXTENSIONS. The others are left out of requests.
    """

    streams_only = False

    def __init__(
        self,
        base_url: str,
        api_key: str = "",
        headers: Mapping[str, str] | None = None,
        keeps: Collection[str] = (),
    ) -> None:
        self._endpoint = Endpoint.build(base_url, "/chat/completions", api_key, headers)
        self._unwanted = EXTENSIONS.difference(keeps)

    def request(self, call: ChatCall) -> Request:
        """Return the call without the fields that this upstream would refuse."""
        return self._endpoint.request(request_body(call, self._unwanted))

    def response(self, body: Mapping[str, Any]) -> Chunk:
        """Return the response, completed where the upstream left something out.

        Raises UpstreamError.
        """
        secrets = self._endpoint.secrets
        if body.get("error"):
            raise rejection_inside(body["error"], secrets)
        choices = body.get("choices")
        if not isinstance(choices, list):
            raise UpstreamBadResponse()
        return _chunk(body, [_whole(choice, i, secrets) for i, choice in enumerate(choices)])

    def decoder(self, call: ChatCall | None = None) -> OpenAIDecoder:
        """Return a new decoder for one stream."""
        return OpenAIDecoder(self._endpoint.secrets)

    def error(self, status: int, body: bytes, headers: Mapping[str, str]) -> GatewayError:
        """Return the error for an HTTP response whose status is not 200."""
        return rejection(status, body, headers, self._endpoint.secrets)


class OpenAIDecoder:
    """Decodes a stream: every choice gets one role and at most one finish reason."""

    reads_text = False

    def __init__(self, secrets: Iterable[str] = ()) -> None:
        self.finished = False
        self.ended = False
        self._secrets = tuple(secrets)
        self._seen = False
        self._choices: dict[int, _Choice] = {}
        self._open = 0  # choices begun that have no finish reason yet

    def feed(self, event: str, data: str) -> Iterable[Chunk]:
        """Return the chunk of one event, if it holds one.

        Raises the UpstreamError of an event that reports an error.
        """
        if self.ended:
            return ()
        if data.startswith("[DONE]"):
            return self._done()
        body = _loads(data)
        if event == "error" or (body and body.get("error")):
            raise rejection_inside((body or {}).get("error") or body, self._secrets)
        if body is None or not isinstance(body.get("choices") or [], list):
            return ()
        self._seen = True
        choices = []
        for position, choice in enumerate(body.get("choices") or ()):
            if isinstance(choice, dict) and (delta := self._delta(choice, position)):
                choices.append(delta)
        chunk = _chunk(body, choices)
        return (chunk,) if choices or len(chunk) > 1 else ()

    def _delta(self, choice: Chunk, position: int) -> Chunk | None:
        reason = choice.get("finish_reason")
        if reason is not None or "error" in choice:
            reason = _reason(choice, self._secrets)
        index = _index(choice, position)
        state = self._choices.get(index)
        delta = choice.pop("delta", None) or choice.pop("message", None) or {}
        if not isinstance(delta, dict):
            delta = {}
        delta.pop("role", None)
        if "reasoning" in delta:
            _name_reasoning(delta)
        shape_message(delta)
        shape_choice(choice)
        if state is None:
            state = self._choices[index] = _Choice()
            self._open += 1
            self.finished = False
            delta = {"role": "assistant", **delta}
        elif state.finished:
            # OpenRouter finishes twice: keep only what the second chunk adds.
            reason = None
            if not any(delta.values()):
                return None
        if delta.get("tool_calls"):
            state.number(delta["tool_calls"])
        if reason:
            state.finished = True
            self._open -= 1
            self.finished = not self._open
        choice.pop("message", None)
        return {**choice, "index": index, "delta": delta, "finish_reason": reason}

    def _done(self) -> Iterable[Chunk]:
        self.ended = True
        # The marker does not finish a response without a choice, or without a finish reason: an
        # upstream that leaves out the reason may have left out content.
        self.finished = self._seen and not self._open
        return ()


class _Choice:
    """The state of one choice of a stream."""

    __slots__ = ("calls", "finished")

    def __init__(self) -> None:
        self.finished = False
        self.calls = 0

    def number(self, calls: Any) -> None:
        """Give each tool call's delta the index that some upstreams leave out."""
        for call in calls:
            index = call.get("index")
            if not isinstance(index, int):
                # Only the first delta of a call has an id.
                index = self.calls if call.get("id") else max(self.calls - 1, 0)
                call["index"] = index
            if index >= self.calls:
                self.calls = index + 1
                call.setdefault("type", "function")


def _chunk(body: Mapping[str, Any], choices: list[Chunk]) -> Chunk:
    chunk: Chunk = {"choices": choices}
    for key, value in body.items():
        if key not in _OWN and value is not None:
            chunk[key] = value
    usage = body.get("usage")
    if usage and (checked := _usage(usage)):
        chunk["usage"] = checked
    return chunk


def _usage(usage: Any) -> Chunk | None:
    if not isinstance(usage, dict):
        return None
    prompt, completion = usage.get("prompt_tokens"), usage.get("completion_tokens")
    if not isinstance(prompt, int) or not isinstance(completion, int):
        return None
    total = usage.get("total_tokens")
    shape_usage(usage)
    return {**usage, "total_tokens": total if isinstance(total, int) else prompt + completion}


def _whole(choice: Any, position: int, secrets: Iterable[str]) -> Chunk:
    if not isinstance(choice, dict) or not isinstance(choice.get("message"), dict):
        raise UpstreamBadResponse()
    reason = _reason(choice, secrets)
    shape_choice(choice)
    message = {"content": None, "refusal": None, **choice["message"]}
    message["role"] = message.get("role") or "assistant"
    if "reasoning" in message:
        _name_reasoning(message)
    shape_message(message)
    if calls := message.get("tool_calls"):
        message["tool_calls"] = [_whole_call(call) for call in calls]
    return {
        "logprobs": None,
        **choice,
        "index": _index(choice, position),
        "message": message,
        "finish_reason": reason or ("tool_calls" if calls else "stop"),
    }


def _name_reasoning(message: Chunk) -> None:
    """Rename `reasoning`, as OpenRouter, Groq and vLLM call it, to `reasoning_content`."""
    text = message["reasoning"]
    if text is None or isinstance(text, str):
        del message["reasoning"]
        if text and not message.get("reasoning_content"):
            message["reasoning_content"] = text


def _whole_call(call: Chunk) -> Chunk:
    return {"type": "function", **{key: value for key, value in call.items() if key != "index"}}


def _index(choice: Chunk, position: int) -> int:
    index = choice.get("index")
    return index if isinstance(index, int) else position


def _reason(choice: Chunk, secrets: Iterable[str]) -> str | None:
    if choice.get("error"):
        raise rejection_inside(choice["error"], secrets)
    reason = choice.get("finish_reason")
    if not isinstance(reason, str) or not reason:
        return None
    if reason in BROKEN:
        raise UpstreamFailed()
    return FINISH_REASONS.get(reason, reason)


def _loads(data: str) -> dict[str, Any] | None:
    try:
        body = orjson.loads(data)
    except orjson.JSONDecodeError:
        try:
            # Half an emoji, whose other half is in the next chunk, must not lose the whole chunk.
            body = orjson.loads(_LONE_SURROGATE.sub(r"\\ufffd", data))
        except orjson.JSONDecodeError:
            return None
    return body if isinstance(body, dict) else None
