"""The vocabulary that every part of the service speaks: OpenAI's chat JSON, minus identity.

A `Chunk` is what goes inside a `chat.completion` (whole) or a `chat.completion.chunk` (streamed):
`{"choices": [...]}` and, once known, `"usage"`. `id`, `object`, `created` and `model` are not in
it: they are minted once per call, by the web process.

Beyond OpenAI's fields:

* Asked: a web address as the `file_data` of a file, for providers whose row keeps "file_url";
  `cache_control` on parts of content, tools and tool messages; `is_error` on tool messages;
  `reasoning_content` and `thinking_blocks` on assistant messages, to be replayed.
* Answered: `reasoning_content`, the text of the model's thinking, and `thinking_blocks`: each block
  whole, once, when it ends, as Anthropic wants it back. A choice may tell the provider's own
  `native_finish_reason`, the `stop_sequence` that ended it and Anthropic's `stop_details`; usage
  may tell `prompt_tokens_details.cache_write_tokens`, and their lives in `cache_creation` there.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, TypeAlias

from gateway import strict_json
from gateway.errors import InvalidRequest

Chunk: TypeAlias = dict[str, Any]

IDENTITY = frozenset({"id", "object", "created", "model"})
# Fields of messages, parts and tools beyond OpenAI's: most of its kind refuse them.
EXTENSIONS = frozenset({"cache_control", "is_error", "reasoning_content", "thinking_blocks"})


@dataclass(frozen=True, slots=True)
class ChatCall:
    """One chat completion to ask of one provider.

    `model` is the provider's own name for it; `parameters` are OpenAI's chat parameters after
    validation and policy, `messages` among them, without `model`, `stream` and `stream_options`.
    `max_output_tokens` is the model's output limit, where known. `thinking` names how an Anthropic
    model is told to think, where known: see `providers.anthropic.thinking.STYLES`.
    """

    model: str
    parameters: Mapping[str, Any]
    stream: bool = False
    max_output_tokens: int | None = None
    thinking: str | None = None


def says_something(part: Chunk) -> bool:
    """Whether a part of a stream holds more than its opening: a token, a call, an end."""
    for choice in part["choices"]:
        delta = choice.get("delta") or {}
        if delta.get("content") or choice.get("finish_reason"):  # nearly always
            return True
        if any(value for name, value in delta.items() if name != "role"):
            return True
    return False


# Kind of tool call -> where it holds what it calls its tool with.
CALLED = {"function": "arguments", "custom": "input"}


def arguments(text: str) -> dict[str, Any] | None:
    """The arguments of a tool call as an object; None where the text is none.

    Limits are those of a request's body: orjson reads deeper nesting than it writes.
    """
    try:
        value = strict_json.loads(text.encode())
    except (InvalidRequest, UnicodeEncodeError):
        return None
    return value if isinstance(value, dict) else None


def fold(parts: Iterable[Chunk]) -> Chunk:
    """The whole answer that a stream of parts adds up to.

    Text is joined, tool calls are merged by their `index`, the last usage and any other top-level
    field win. The result has `message` where the parts had `delta`.
    """
    whole: Chunk = {}
    choices: dict[int, Chunk] = {}
    for part in parts:
        whole.update((k, v) for k, v in part.items() if k != "choices" and v is not None)
        for choice in part.get("choices") or ():
            _fold_choice(choices, choice)
    answer: Chunk = {"choices": [choices[index] for index in sorted(choices)]}
    for choice in answer["choices"]:
        _close_choice(choice)
    answer.update(whole)
    return answer


def _fold_choice(choices: dict[int, Chunk], choice: Chunk) -> None:
    index = choice.get("index", 0)
    folded = choices.setdefault(
        index,
        {
            "index": index,
            "message": {"role": "assistant", "content": None, "refusal": None},
            "logprobs": None,
            "finish_reason": None,
        },
    )
    for key, value in (choice.get("delta") or {}).items():
        _fold_field(folded["message"], key, value)
    for kind, tokens in (choice.get("logprobs") or {}).items():
        folded["logprobs"] = folded["logprobs"] or {}
        if tokens is not None:
            folded["logprobs"][kind] = folded["logprobs"].get(kind) or []
            folded["logprobs"][kind].extend(tokens)
        else:
            folded["logprobs"].setdefault(kind, None)
    for key, value in choice.items():
        if key not in ("index", "delta", "logprobs") and value is not None:
            folded[key] = value


class _Pieces(list[str]):
    """A text that comes in pieces, joined once: adding to a text of megabytes copies it."""


def _joined(value: Any) -> Any:
    """The value with the texts in it joined."""
    if isinstance(value, _Pieces):
        return "".join(value)
    if isinstance(value, dict):
        return {key: _joined(each) for key, each in value.items()}
    return value


def _fold_field(message: Chunk, key: str, value: Any) -> None:
    if value is None:
        message.setdefault(key, None)
    elif key == "tool_calls":
        calls = message.setdefault("tool_calls", {})
        for call in value:
            _fold_tool_call(calls.setdefault(call.get("index", 0), {}), call)
    elif isinstance(value, str) and key != "role":
        if not isinstance(pieces := message.get(key), _Pieces):
            pieces = message[key] = _Pieces()
        pieces.append(value)
    elif isinstance(value, list):
        if type(message.get(key)) is not list:
            message[key] = []
        message[key].extend(value)
    elif isinstance(value, dict):
        message[key] = _fold_object(message.get(key) or {}, value)
    else:
        message[key] = value


def _fold_object(folded: Chunk, more: Chunk) -> Chunk:
    """Audio and the old `function_call` come in pieces: their texts are joined, the rest is not."""
    for key, value in more.items():
        if key == "id" or not isinstance(value, str):
            folded[key] = value
        elif isinstance(pieces := folded.get(key), _Pieces):
            pieces.append(value)
        else:
            folded[key] = _Pieces([value])
    return folded


def _fold_tool_call(folded: Chunk, call: Chunk) -> None:
    for key, value in call.items():
        if key == "index" or value is None:
            continue
        if key in CALLED:
            called = folded.setdefault(key, {"name": _Pieces(), CALLED[key]: _Pieces()})
            for piece in called:
                called[piece].append(value.get(piece) or "")
        else:
            folded[key] = value


def _close_choice(choice: Chunk) -> None:
    message = choice["message"] = _joined(choice["message"])
    calls = message.get("tool_calls")
    if isinstance(calls, dict):
        message["tool_calls"] = [calls[index] for index in sorted(calls)]
