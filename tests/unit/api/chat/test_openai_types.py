"""What openai's own client has types for is taken: each field, member of a union and literal."""

from __future__ import annotations

import types
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import (
    Annotated,
    Any,
    Literal,
    NotRequired,
    Required,
    TypeAlias,
    Union,
    get_args,
    get_origin,
    get_type_hints,
)

import pytest
from openai.types.chat import (
    ChatCompletionAssistantMessageParam,
    ChatCompletionDeveloperMessageParam,
    ChatCompletionFunctionMessageParam,
    ChatCompletionMessageParam,
    ChatCompletionSystemMessageParam,
    ChatCompletionToolMessageParam,
    ChatCompletionUserMessageParam,
)
from openai.types.chat.completion_create_params import (
    CompletionCreateParamsNonStreaming,
    CompletionCreateParamsStreaming,
)
from typing_extensions import is_typeddict

from api.chat.request import chat_request

Kind: TypeAlias = Any
PIXEL = "data:image/png;base64,iVBORw0KGgo="
USER = {"role": "user", "content": "hi"}
CALL = {"id": "a", "type": "function", "function": {"name": "f", "arguments": "{}"}}
# What a type cannot say: formats of strings, and what belongs together.
STRINGS = {"url": PIXEL, "file_data": "SGVsbG8="}
SCALARS = {str: "a", int: 1, float: 1.0, bool: True, object: "a", type(None): None}
DEMANDED = {"schema"}  # a JSON schema format without one is refused
ALONE = {"stream_options"}  # needs `stream`
IGNORED = {"moderation", "prompt_cache_options"}  # no provider here is known to take them


def bare(kind: Kind) -> Kind:
    while get_origin(kind) in (Annotated, Required, NotRequired):
        kind = get_args(kind)[0]
    return kind


def samples(kind: Kind, name: str = "") -> Iterator[Any]:
    """Values of a type that together show each member, literal and optional field in it."""
    kind = bare(kind)
    origin, inner = get_origin(kind), get_args(kind)
    if is_typeddict(kind):
        yield from objects(kind)
    elif origin is Literal:
        yield from inner
    elif origin in (Union, types.UnionType):
        for member in inner:
            yield from samples(member, name)
    elif origin in (list, Iterable, Sequence):
        yield from ([each] for each in samples(inner[0], name))
    elif origin in (dict, Mapping):
        yield {"1": next(samples(inner[1]))}
    elif kind is str and name in STRINGS:
        yield STRINGS[name]
    else:
        yield SCALARS[kind]


def is_required(kind: Kind, key: str, hint: Kind) -> bool:
    # The type itself cannot tell: its annotations were texts when it was made.
    marked = get_origin(hint)
    required = marked is Required or (marked is not NotRequired and key in kind.__required_keys__)
    return required or key in DEMANDED


def objects(kind: Kind) -> Iterator[dict[str, Any]]:
    hints = get_type_hints(kind, include_extras=True)
    least = {
        key: next(samples(hint, key)) for key, hint in hints.items() if is_required(kind, key, hint)
    }
    yield least
    for key, hint in hints.items():
        for value in samples(hint, key):
            yield {**least, key: value}


FIELDS = get_type_hints(CompletionCreateParamsNonStreaming, include_extras=True)


@pytest.mark.parametrize("name", sorted(FIELDS.keys() - {"model", "messages"} - ALONE))
def test_every_parameter_of_openai_s_client_is_taken(name: str) -> None:
    count = 0
    for value in samples(FIELDS[name], name):
        request = chat_request({"model": "m", "messages": [USER], name: value})
        assert request.ignored == [name] * (name in IGNORED)
        count += 1
    assert count


def test_what_belongs_to_streams_is_taken_with_them() -> None:
    hints = get_type_hints(CompletionCreateParamsStreaming, include_extras=True)
    for value in samples(hints["stream_options"]):
        chat_request({"model": "m", "messages": [USER], "stream": True, "stream_options": value})


@pytest.mark.parametrize("kind", get_args(ChatCompletionMessageParam), ids=lambda k: k.__name__)
def test_every_message_of_openai_s_client_is_taken(kind: Kind) -> None:
    """An assistant's says something, and a tool's answers a call: no type tells that."""
    before = {"role": "assistant", "tool_calls": [{**CALL, "id": "a"}]}
    count = 0
    for message in objects(kind):
        if kind is ChatCompletionAssistantMessageParam and message.keys() <= {"role", "name"}:
            continue
        if message.get("role") == "assistant" and not any(
            value for key, value in message.items() if key not in ("role", "name")
        ):
            continue
        chat_request({"model": "m", "messages": [USER, before, message]})
        count += 1
    assert count


def test_no_kind_of_message_is_left_out() -> None:
    assert set(get_args(ChatCompletionMessageParam)) == {
        ChatCompletionAssistantMessageParam,
        ChatCompletionDeveloperMessageParam,
        ChatCompletionFunctionMessageParam,
        ChatCompletionSystemMessageParam,
        ChatCompletionToolMessageParam,
        ChatCompletionUserMessageParam,
    }
