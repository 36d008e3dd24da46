"""Models that need no network: for a first try, for tests, and for showing each kind of failure."""

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
from providers.base import without_embeddings
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
    """Answers by the model's name (see MODELS), always the same way; `sleep` is for tests."""

    streams_only = False

    def __init__(self, sleep: Callable[[float], None] | None = None) -> None:
        self._sleep = sleep or time.sleep

    def complete(self, call: ChatCall) -> Chunk:
        """The whole answer; raises what the model is there to raise."""
        return fold(chain.from_iterable(self.stream(call)))

    def embed(self, model: str, parameters: Mapping[str, Any]) -> Chunk:
        """The embeddings of an input; raises InvalidRequest for a model that makes none."""
        if model != "embed":
            raise without_embeddings(model)
        return embeddings(parameters)

    def stream(self, call: ChatCall) -> Iterator[list[Chunk]]:
        """The answer word by word; raises what the model is there to raise."""
        if call.model not in MODELS:
            raise ModelNotFound(f"The model '{call.model}' does not exist.", param="model")
        plan = MODELS[call.model](call)
        said = 0
        delta: Chunk = {"role": "assistant"}
        for piece in plan.deltas:
            if plan.pause:
                self._sleep(plan.pause)
            said += _length(piece)
            yield [_part({**delta, **piece})]
            delta = {}
        if plan.cut:
            raise UpstreamTruncated()
        prompt, completion = _tokens(len(_all_text(call))), _tokens(said)
        usage = {
            "prompt_tokens": prompt,
            "completion_tokens": completion,
            "total_tokens": prompt + completion,
        }
        yield [_part(delta, plan.finish_reason), {"choices": [], "usage": usage}]


@dataclass(frozen=True, slots=True)
class Plan:
    """What one call is answered with."""

    deltas: list[Chunk]
    finish_reason: str = "stop"
    pause: float = 0  # seconds before each delta
    cut: bool = False  # does the stream end before the answer does?


def _echo(call: ChatCall) -> Plan:
    return Plan(_words(_last_user_text(call) or NOTHING_TO_ECHO))


def _slow(call: ChatCall) -> Plan:
    return Plan(_words(SLOW_TEXT), pause=SLOW_WORD)


def _cut(call: ChatCall) -> Plan:
    return Plan(_words(CUT_TEXT), cut=True)


def _error(call: ChatCall) -> Plan:
    raise UpstreamFailed()


def _throttled(call: ChatCall) -> Plan:
    raise UpstreamThrottled(retry_after=2)


def _tool(call: ChatCall) -> Plan:
    last = call.parameters["messages"][-1]
    if last["role"] == "tool":
        return Plan(_words(f"The tool says: {_text(last)}"))
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
    return Plan([{"tool_calls": [each]} for each in (start, *more)], "tool_calls")


MODELS: dict[str, Callable[[ChatCall], Plan]] = {
    "echo": _echo,
    "slow": _slow,
    "error": _error,
    "throttled": _throttled,
    "cut": _cut,
    "tool": _tool,
}


def _part(delta: Chunk, finish_reason: str | None = None) -> Chunk:
    return {"choices": [{"index": 0, "delta": delta, "finish_reason": finish_reason}]}


def _words(text: str) -> list[Chunk]:
    """Word by word; a long text in larger pieces, since the worker has other calls as well."""
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
