"""The data that all parts of the service exchange: OpenAI's chat JSON, minus identity.

A `Chunk` is the content of a `chat.completion` (whole) or a `chat.completion.chunk` (streamed):
`{"choices": [...]}` and, once known, `"usage"`. It lacks `id`, `object`, `created` and `model`,
which the web process adds once per call.

Fields beyond OpenAI's:

* In requests: a web address as the `file_data` of a file, for providers whose row accepts
  "file_url"; `cache_control` on parts of content, tools and tool messages; `is_error` on tool
  messages; `reasoning_content` and `thinking_blocks` on assistant messages, to be replayed.
* In responses: `reasoning_content`, the text of the model's thinking, and `thinking_blocks`, each
  block whole, when it ends, in the form that Anthropic takes back. In a whole response, `after` of
  a block holds how many characters and tool calls stand before it, if any. A choice may hold the
  provider's own `native_finish_reason`, the `stop_sequence` that ended it and Anthropic's
  `stop_details`. Usage may hold `prompt_tokens_details.cache_write_tokens`, and their TTLs in
  `cache_creation`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, TypeAlias

from gateway import strict_json
from gateway.errors import InvalidRequest

Chunk: TypeAlias = dict[str, Any]

IDENTITY = frozenset({"id", "object", "created", "model"})
# Fields of messages, parts and tools beyond OpenAI's: most OpenAI-compatible providers refuse them.
EXTENSIONS = frozenset(
    {"cache_control", "is_error", "reasoning_content", "thinking_blocks"}
    | {"extra_content", "reasoning_details"}
)


@dataclass(slots=True)
class ChatCall:
    """One chat completion to request from one provider.

    `model` is the provider's name for the model. `parameters` are OpenAI's chat parameters,
    `messages` included, as the model's rules leave them; `model`, `stream` and `stream_options` are
    not among them, but a `stream_options` of None says that the provider takes none.
    `max_output_tokens` is the model's limit, if known. `thinking` is the way in
    which an Anthropic model is asked to think, if known: see `providers.anthropic.thinking.STYLES`.
    `system_turns`: an Anthropic model takes system messages between the turns. To `ignored`, a wire
    adds the names of parameters that it leaves out; to `upstream`, a provider the `id` that its
    response has.
    """

    model: str
    parameters: Mapping[str, Any]
    stream: bool = False
    max_output_tokens: int | None = None
    thinking: str | None = None
    system_turns: bool = False
    ignored: list[str] = field(default_factory=list, compare=False)
    upstream: dict[str, str] = field(default_factory=dict, compare=False)


def says_something(chunk: Chunk) -> bool:
    """Whether a chunk of a stream holds more than an opening: a token, a tool call, an end."""
    for choice in chunk["choices"]:
        delta = choice.get("delta") or {}
        if delta.get("content") or choice.get("finish_reason"):  # nearly always
            return True
        if any(value for name, value in delta.items() if name != "role"):
            return True
    return False


# Type of a tool call -> its field with the arguments.
CALLED = {"function": "arguments", "custom": "input"}


def arguments(text: str) -> dict[str, Any] | None:
    """The arguments of a tool call as an object; None if the text is not a JSON object.

    The limits are those of request bodies: orjson reads deeper nesting than it writes.
    """
    try:
        value = strict_json.loads(text.encode())
    except (InvalidRequest, UnicodeEncodeError):
        return None
    return value if isinstance(value, dict) else None


def fold(chunks: Iterable[Chunk]) -> Chunk:
    """The whole response that a stream of chunks adds up to.

    Text is joined, tool calls are merged by their `index`; of usage and other top-level fields the
    last value stands. The result has `message` where the chunks have `delta`.
    """
    rest: Chunk = {}
    choices: dict[int, Chunk] = {}
    for chunk in chunks:
        rest.update((k, v) for k, v in chunk.items() if k != "choices" and v is not None)
        for choice in chunk.get("choices") or ():
            _fold_choice(choices, choice)
    response: Chunk = {"choices": [choices[index] for index in sorted(choices)]}
    for choice in response["choices"]:
        _close_choice(choice)
    response.update(rest)
    return response


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
        if key == "thinking_blocks":
            value = [_placed(block, message) for block in value]
        message[key].extend(value)
    elif isinstance(value, dict):
        message[key] = _fold_object(message.get(key) or {}, value)
    else:
        message[key] = value


def _placed(block: Chunk, message: Chunk) -> Chunk:
    """The block of thinking with its place, where text or calls come before it."""
    text, calls = message.get("content"), message.get("tool_calls")
    length = sum(map(len, text)) if isinstance(text, _Pieces) else 0
    return {**block, "after": [length, len(calls or ())]} if length or calls else block


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
