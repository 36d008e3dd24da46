"""Models without a network: for a first try, for tests, and to show each kind of failure."""

from __future__ import annotations

import json
import math
import re
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from itertools import chain
from typing import Any

from gateway.chat import CALLED, ChatCall, Chunk, fold
from gateway.errors import ModelNotFound, UpstreamFailed, UpstreamThrottled, UpstreamTruncated
from providers.base import IGNORE, OnHead, without_embeddings
from providers.demo.arguments import sample
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
CUSTOM_INPUT = "some input in plain text"
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
    tools = [tool for tool in call.parameters.get("tools") or () if tool.get("type") in CALLED]
    tool = next((tool for tool in tools if _name(tool) == TOOL), tools[0] if tools else None)
    chosen = call.parameters.get("tool_choice")
    if tool is None or chosen == "none":
        return _echo(call)
    if isinstance(chosen, Mapping):
        tool = next((tool for tool in tools if _name(tool) == _name(chosen)), tool)
    kind = tool["type"]
    field = CALLED[kind]
    start = {
        "index": 0,
        "id": "call_demo_0",
        "type": kind,
        kind: {"name": _name(tool), field: ""},
    }
    more = [{"index": 0, kind: {field: piece}} for piece in _arguments(tool)]
    return Script([{"tool_calls": [each]} for each in (start, *more)], "tool_calls")


def _name(tool: Mapping[str, Any]) -> str | None:
    called = tool.get(tool.get("type") or "")
    return called.get("name") if isinstance(called, Mapping) else None


def _arguments(tool: Mapping[str, Any]) -> list[str]:
    """Return the arguments in pieces: those of the tool of the examples, or some that fit."""
    if tool["type"] == "custom":
        return _WORD.findall(CUSTOM_INPUT)
    schema = tool["function"].get("parameters") or {"type": "object"}
    if tool["function"]["name"] == TOOL and _takes_example(schema):
        return list(TOOL_ARGUMENTS)
    arguments = sample(schema)
    return _WORD.findall(json.dumps(arguments if isinstance(arguments, dict) else {}))


def _takes_example(schema: Mapping[str, Any]) -> bool:
    """Return whether the arguments of the examples fit: a place and a unit, as far as declared."""
    properties = schema.get("properties")
    return not properties or {"city", "unit"}.issuperset(properties)


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
    text = len(delta.get("content") or "")
    return text + sum(len(call[k][f]) for call in calls for k, f in CALLED.items() if k in call)


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
