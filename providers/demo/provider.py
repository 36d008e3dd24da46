"""Models without a network: for a first try, for tests, and to show each kind of failure."""

from __future__ import annotations

import math
import re
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from itertools import chain
from typing import Any

from gateway.chat import ChatCall, Chunk, fold
from gateway.errors import ModelNotFound, UpstreamFailed, UpstreamThrottled, UpstreamTruncated
from providers.base import IGNORE, OnHead, without_embeddings
from providers.demo.embeddings import embeddings

SLOW_WORD = 0.5  # seconds

LONG_TEXT = 20_000  # characters
LONG_TEXT_PIECES = 1000

SLOW_TEXT = (
    "This answer takes its time and arrives one word after the other "
    "so that you can watch it grow on the screen."
)
CUT_TEXT = "This answer will never be"
NOTHING_TO_ECHO = "Say something and it comes back."
TOOL = "get_weather"
TOOL_ARGUMENTS = ('{"city":', ' "Paris",', ' "unit":', ' "celsius"}')

_WORD = re.compile(r"\S+\s*|\s+")


class DemoProvider:
    """Answers as the model's name says (see MODELS). `sleep` is time.sleep, or a test's."""

    streams_only = False

    def __init__(self, sleep: Callable[[float], None] | None = None) -> None:
        self._sleep = sleep or time.sleep

    def complete(self, call: ChatCall, on_head: OnHead = IGNORE) -> Chunk:
        """Return the whole response, or raise the error that the model is for."""
        return fold(chain.from_iterable(self.stream(call)))

    def embed(self, model: str, parameters: Mapping[str, Any], on_head: OnHead = IGNORE) -> Chunk:
        """Return the embeddings of an input; raises InvalidRequest for a model that has none."""
        if model != "embed":
            raise without_embeddings(model)
        return embeddings(parameters)

    def count_tokens(self, call: ChatCall) -> Chunk:
        """Return the tokens of a call's prompt, as responses of these models count them."""
        return {"input_tokens": _tokens(len(_all_text(call)))}

    def stream(self, call: ChatCall) -> Iterator[list[Chunk]]:
        """Yield the response word by word, or raise the error that the model is for."""
        if call.model not in MODELS:
            raise ModelNotFound(f"The model '{call.model}' does not exist.", param="model")
        script = MODELS[call.model](call)
        length = 0
        delta: Chunk = {"role": "assistant"}
        for each in script.deltas:
            if script.pause:
                self._sleep(script.pause)
            length += _length(each)
            yield [_chunk({**delta, **each})]
            delta = {}
        if script.cut:
            raise UpstreamTruncated()
        prompt, completion = _tokens(len(_all_text(call))), _tokens(length)
        usage = {
            "prompt_tokens": prompt,
            "completion_tokens": completion,
            "total_tokens": prompt + completion,
        }
        yield [_chunk(delta, script.finish_reason), {"choices": [], "usage": usage}]


@dataclass(frozen=True, slots=True)
class Script:
    """The response to one call."""

    deltas: list[Chunk]
    finish_reason: str = "stop"
    pause: float = 0  # seconds before each delta
    cut: bool = False  # whether the stream ends before the response is complete


def _echo(call: ChatCall) -> Script:
    return Script(_words(_last_user_text(call) or NOTHING_TO_ECHO))


def _slow(call: ChatCall) -> Script:
    return Script(_words(SLOW_TEXT), pause=SLOW_WORD)


def _cut(call: ChatCall) -> Script:
    return Script(_words(CUT_TEXT), cut=True)


def _error(call: ChatCall) -> Script:
    raise UpstreamFailed()


def _throttled(call: ChatCall) -> Script:
    raise UpstreamThrottled(retry_after=2)


def _tool(call: ChatCall) -> Script:
    last = call.parameters["messages"][-1]
    if last["role"] == "tool":
        return Script(_words(f"The tool says: {_text(last)}"))
    names = [t["function"]["name"] for t in call.parameters.get("tools") or () if "function" in t]
    if not names:
        return _echo(call)
    name = TOOL if TOOL in names else names[0]
    start = {
        "index": 0,
        "id": "call_demo_0",
        "type": "function",
        "function": {"name": name, "arguments": ""},
    }
    more = [{"index": 0, "function": {"arguments": piece}} for piece in TOOL_ARGUMENTS]
    return Script([{"tool_calls": [each]} for each in (start, *more)], "tool_calls")


MODELS: dict[str, Callable[[ChatCall], Script]] = {
    "echo": _echo,
    "slow": _slow,
    "error": _error,
    "throttled": _throttled,
    "cut": _cut,
    "tool": _tool,
}


def _chunk(delta: Chunk, finish_reason: str | None = None) -> Chunk:
    return {"choices": [{"index": 0, "delta": delta, "finish_reason": finish_reason}]}


def _words(text: str) -> list[Chunk]:
    """Return deltas of one word; of more for a long text, which would hold up other calls."""
    if len(text) <= LONG_TEXT:
        return [{"content": word} for word in _WORD.findall(text)]
    size = math.ceil(len(text) / LONG_TEXT_PIECES)
    return [{"content": text[at : at + size]} for at in range(0, len(text), size)]


def _tokens(characters: int) -> int:
    return max(characters // 4, 1)


def _length(delta: Chunk) -> int:
    calls = delta.get("tool_calls") or ()
    return len(delta.get("content") or "") + sum(len(c["function"]["arguments"]) for c in calls)


def _all_text(call: ChatCall) -> str:
    return "".join(map(_text, call.parameters["messages"]))


def _last_user_text(call: ChatCall) -> str:
    users = [m for m in call.parameters["messages"] if m["role"] == "user"]
    return _text(users[-1]) if users else ""


def _text(message: Mapping[str, Any]) -> str:
    content = message.get("content") or ""
    if isinstance(content, str):
        return content
    return "".join(part.get("text") or "" for part in content)
