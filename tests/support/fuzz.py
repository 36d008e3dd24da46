"""Good requests for every endpoint, and what makes them bad: for tests that send very many."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable, Iterator
from typing import Any

from hypothesis import assume
from hypothesis import strategies as st

from tests.support import conversations as chat

PNG = "iVBORw0KGgo="
LARGEST = 20_000_000  # bytes: what the service takes by default
NULL_OR_BOOL = st.sampled_from([None, True, False])

CHAT_MODELS = [
    "openai/gpt-4o-mini",
    "openai/gpt-6-luna",
    "openai/gpt-6.1-sol",
    "anthropic/claude-sonnet-4-5",
    "anthropic/claude-sonnet-5-5",
    "demo/echo",
    "demo/tool",
]
EMBEDDING_MODELS = ["openai/text-embedding-3-small", "openai/text-embedding-3-large", "demo/embed"]


def request(models: list[str], required: dict[str, Any], optional: dict[str, Any]) -> Any:
    fields = {"model": st.sampled_from(models), **required}
    return st.fixed_dictionaries(fields, optional=optional)


def merged(*parts: Any) -> Any:
    """What these strategies of objects say together."""
    return st.tuples(*parts).map(lambda each: {k: v for part in each for k, v in part.items()})


CHATS = merged(
    request(
        CHAT_MODELS,
        {"messages": chat.MESSAGES},
        {"models": st.lists(st.sampled_from(CHAT_MODELS), max_size=2)},
    ),
    chat.PARAMETERS,
    st.sampled_from(
        [
            {},
            {"stream": False},
            {"stream": True},
            {"stream": True, "stream_options": {"include_usage": True}},
        ]
    ),
    st.fixed_dictionaries(
        {},
        optional={
            "logit_bias": st.just({"50256": -100, "1": 0.5}),
            "verbosity": st.just("low"),
            "modalities": st.just(["text"]),
            "prediction": st.just({"type": "content", "content": "x"}),
            "functions": st.just([{"name": "f", "parameters": {}}]),
            "function_call": st.just("auto"),
            "api_base": st.just("http://169.254.169.254/"),
        },
    ),
)

TEXT = st.sampled_from(["Hi", " x ", "\n", "é\u2028 😀", "a" * 50])
CACHE = st.just({"type": "ephemeral"})
BLOCKS = st.lists(
    st.one_of(
        st.fixed_dictionaries(
            {"type": st.just("text"), "text": TEXT}, optional={"cache_control": CACHE}
        ),
        st.sampled_from(
            [
                {
                    "type": "image",
                    "source": {"type": "base64", "media_type": "image/png", "data": PNG},
                },
                {"type": "image", "source": {"type": "url", "url": "https://a.example/b.png"}},
                {
                    "type": "document",
                    "title": "T",
                    "source": {"type": "text", "media_type": "text/plain", "data": "D"},
                },
                {
                    "type": "document",
                    "source": {"type": "base64", "media_type": "application/pdf", "data": "JVBE"},
                },
            ]
        ),
    ),
    min_size=1,
    max_size=3,
)
FORMAT = {
    "type": "json_schema",
    "schema": {
        "type": "object",
        "properties": {"a": {"type": "string"}},
        "required": ["a"],
        "additionalProperties": False,
    },
}
THOUGHT = {"type": "thinking", "thinking": "Hm.", "signature": "c2ln"}
USE = {"type": "tool_use", "id": "toolu_1", "name": "f", "input": {"city": "Paris"}}
TOOL_TURNS = st.builds(
    lambda thought, content: [
        {"role": "assistant", "content": [*thought, USE]},
        {
            "role": "user",
            "content": [{"type": "tool_result", "tool_use_id": "toolu_1", "content": content}],
        },
    ],
    st.sampled_from([[], [THOUGHT]]),
    st.sampled_from(["4", [{"type": "text", "text": "4"}], []]),
)
TURNS = st.lists(
    st.one_of(
        st.builds(lambda content: [{"role": "user", "content": content}], TEXT | BLOCKS),
        st.builds(lambda text: [{"role": "assistant", "content": text}], TEXT),
        TOOL_TURNS,
    ),
    min_size=1,
    max_size=4,
).map(lambda turns: [{"role": "user", "content": "Go"}, *(t for turn in turns for t in turn)])
MESSAGES = request(
    CHAT_MODELS,
    {"max_tokens": st.sampled_from([1, 50, 9000]), "messages": TURNS},
    {
        "system": TEXT
        | st.just([{"type": "text", "text": "Be.", "cache_control": {"type": "ephemeral"}}]),
        "stream": NULL_OR_BOOL,
        "temperature": st.sampled_from([0, 0.5, 1]),
        "top_k": st.just(40),
        "top_p": st.just(0.5),
        "stop_sequences": st.just(["END", " "]),
        "tools": st.just([{"name": "f", "input_schema": {"type": "object", "properties": {}}}]),
        "tool_choice": st.sampled_from(
            [{"type": "auto"}, {"type": "any"}, {"type": "tool", "name": "f"}, {"type": "none"}]
        ),
        "thinking": st.sampled_from(
            [
                {"type": "enabled", "budget_tokens": 1024},
                {"type": "adaptive"},
                {"type": "disabled"},
            ]
        ),
        "output_config": st.sampled_from([{"effort": "low"}, {"format": FORMAT}]),
        "output_format": st.just(FORMAT),
        "metadata": st.just({"user_id": "u"}),
        "service_tier": st.just("auto"),
        "betas": st.just(["a"]),
    },
)

ITEMS = st.lists(
    st.sampled_from(
        [
            [{"role": "user", "content": "Hi"}],
            [{"type": "message", "role": "developer", "content": "Be brief."}],
            [
                {
                    "role": "user",
                    "content": [
                        {"type": "input_text", "text": "é"},
                        {"type": "input_image", "image_url": "https://a.example/b.png"},
                        {"type": "input_file", "filename": "a.txt", "file_data": "SGk="},
                    ],
                }
            ],
            [
                {
                    "type": "message",
                    "role": "assistant",
                    "id": "msg_1",
                    "status": "completed",
                    "content": [{"type": "output_text", "text": "So", "annotations": []}],
                }
            ],
            [
                {
                    "type": "function_call",
                    "call_id": "c",
                    "id": "fc_1",
                    "name": "f",
                    "arguments": "{}",
                },
                {"type": "function_call_output", "call_id": "c", "output": "4"},
            ],
            [
                {"type": "reasoning", "id": "rs_1", "summary": []},
                {"role": "assistant", "content": "Hm"},
            ],
        ]
    ),
    min_size=1,
    max_size=4,
).map(lambda groups: [item for group in groups for item in group])
RESPONSES = request(
    CHAT_MODELS,
    {"input": TEXT | ITEMS},
    {
        "instructions": TEXT,
        "stream": NULL_OR_BOOL,
        "store": NULL_OR_BOOL,
        "include": st.just(["reasoning.encrypted_content"]),
        "max_output_tokens": st.sampled_from([16, 9000]),
        "temperature": st.sampled_from([0, 0.5, 2]),
        "tools": st.sampled_from(
            [
                [{"type": "function", "name": "f", "parameters": {"type": "object"}}],
                [{"type": "custom", "name": "g", "format": {"type": "text"}}],
            ]
        ),
        "tool_choice": st.sampled_from(["auto", "required", {"type": "function", "name": "f"}]),
        "parallel_tool_calls": NULL_OR_BOOL,
        "text": st.sampled_from(
            [
                {"format": {"type": "json_object"}, "verbosity": "low"},
                {"format": {"type": "json_schema", "name": "a", "schema": {"type": "object"}}},
            ]
        ),
        "reasoning": st.just({"effort": "low", "summary": "auto"}),
        "truncation": st.just("auto"),
        "metadata": st.just({"a": "b"}),
    },
)

TOKENS = st.lists(st.integers(0, 100_000), min_size=1, max_size=5)
EMBEDDINGS = request(
    EMBEDDING_MODELS,
    {
        "input": TEXT
        | st.lists(TEXT, min_size=1, max_size=3)
        | TOKENS
        | st.lists(TOKENS, min_size=1)
    },
    {
        "encoding_format": st.sampled_from(["float", "base64"]),
        "dimensions": st.sampled_from([1, 256]),
        "user": st.just("u"),
    },
)

ENDPOINTS = {
    "chat/completions": CHATS,
    "messages": MESSAGES,
    "responses": RESPONSES,
    "embeddings": EMBEDDINGS,
}


# Mutations: each takes `draw` and a JSON value, and gives another one. The value may be changed.

NUMBERS = st.sampled_from(
    [0, -1, 1.5, -0.0, 2**31, 2**53, 2**63, -(2**63) - 1, 2**64, 1e308, 5e-324, 10**300, 10**4000]
)
NOT_FINITE = st.sampled_from([float("nan"), float("inf"), float("-inf")])
ODD_TEXT = st.sampled_from(
    ["", "\0", "\ud800", "\udfff\ud800", "\ufeff", "\u202e", "\u2028", "é", "e\u0301", "😀", "\x7f"]
    + ["a\r\nb", "{path}", "%s", "../..", "data:,", "http://127.0.0.1/", "null", "=user", "\\", '"']
    + ['{"a":' * depth + "1" + "}" * depth for depth in (70, 300, 900)]
)
LENGTHS = st.sampled_from([65, 257, 513, 10_000, 300_000])
SCALARS = st.none() | st.booleans() | NUMBERS | NOT_FINITE | ODD_TEXT
OTHERS = SCALARS | st.sampled_from([[], {}, [[]], [{}], {"type": "text"}, ["a", 1], {"": None}])
Draw = Callable[[Any], Any]
Place = tuple[Any, Any]  # a container, and a key or an index in it


def size(value: Any) -> int:
    """Bytes of JSON, roughly; what a value holds many times over is looked at once."""
    known: dict[int, int] = {}

    def measured(inner: Any) -> int:
        if isinstance(inner, str):
            return len(inner) + 2
        if not isinstance(inner, (dict, list)):
            return 8
        if id(inner) not in known:
            keys, children = 0, inner
            if isinstance(inner, dict):
                keys, children = sum(len(key) + 4 for key in inner), inner.values()
            known[id(inner)] = keys + 2 + sum(2 + measured(child) for child in children)
        return known[id(inner)]

    return measured(value)


def places(value: Any) -> Iterator[Place]:
    """Every place in a JSON value but the whole."""
    level = [value]
    while level:
        inner = []
        for container in level:
            pairs = container.items() if isinstance(container, dict) else enumerate(container)
            for key, child in pairs:
                yield container, key
                if isinstance(child, (dict, list)):
                    inner.append(child)
        level = inner


def fitting(draw: Draw, times: list[int], value: Any) -> int:
    """One of these numbers, but none that makes of the value more than any server takes."""
    chosen: int = draw(st.sampled_from(times))
    assume(chosen * size(value) < LARGEST)
    return chosen


def somewhere(draw: Draw, value: Any) -> Place | None:
    found = list(places(value)) if isinstance(value, (dict, list)) else []
    return found[draw(st.integers(0, len(found) - 1))] if found else None


def replace(draw: Draw, value: Any, change: Callable[[Any], Any]) -> Any:
    place = somewhere(draw, value)
    if place is None:
        return change(value)
    container, key = place
    container[key] = change(container[key])
    return value


def delete(draw: Draw, value: Any) -> Any:
    place = somewhere(draw, value)
    if place is not None:
        del place[0][place[1]]
    return value


def duplicate(draw: Draw, value: Any) -> Any:
    place = somewhere(draw, value)
    if place is not None:
        container, key = place
        twin = copy.deepcopy(container[key])
        if isinstance(container, list):
            container[key:key] = [twin] * fitting(draw, [1, 2, 130, 2_100], twin)
        else:
            container[f"{key}2"] = twin
    return value


def retype(draw: Draw, value: Any) -> Any:
    # A copy: what a strategy holds must not be changed by the mutations after this one.
    return replace(draw, value, lambda old: copy.deepcopy(draw(OTHERS)))


def nest(draw: Draw, value: Any) -> Any:
    depth, as_list = draw(st.sampled_from([1, 2, 62, 70])), draw(st.booleans())

    def nested(old: Any) -> Any:
        for _ in range(depth):
            old = [old] if as_list else {"a": old}
        return old

    return replace(draw, value, nested)


def blow_up(draw: Draw, value: Any) -> Any:
    def blown(old: Any) -> Any:
        if isinstance(old, str):
            return (old or "x") * (draw(LENGTHS) // len(old or "x") + 1)
        if isinstance(old, (int, float)):
            return draw(NUMBERS)
        if isinstance(old, list):
            return old * fitting(draw, [2, 129, 2_049], old)
        if isinstance(old, dict):
            return {**old, **{f"k{n}": n for n in range(draw(st.sampled_from([17, 301, 3_000])))}}
        return old

    return replace(draw, value, blown)


def odd_text(draw: Draw, value: Any) -> Any:
    odd = draw(ODD_TEXT)
    return replace(draw, value, lambda old: old + odd if isinstance(old, str) else odd)


def swap(draw: Draw, value: Any) -> Any:
    one, two = somewhere(draw, value), somewhere(draw, value)
    if one is not None and two is not None:
        # Copies: one may lie within the other.
        first, second = copy.deepcopy(one[0][one[1]]), copy.deepcopy(two[0][two[1]])
        one[0][one[1]], two[0][two[1]] = second, first
    return value


def rename(draw: Draw, value: Any) -> Any:
    keyed = [place for place in places(value) if isinstance(place[0], dict)] if value else []
    if keyed:
        container, key = keyed[draw(st.integers(0, len(keyed) - 1))]
        names = st.sampled_from([other for _, other in keyed]) | ODD_TEXT
        container[draw(names)] = container.pop(key)
    return value


MUTATIONS = (delete, duplicate, retype, retype, nest, blow_up, odd_text, swap, rename)


def cut(draw: Draw, raw: bytes) -> bytes:
    return raw[: draw(st.integers(0, max(len(raw) - 1, 0)))]


def flip(draw: Draw, raw: bytes) -> bytes:
    if not raw:
        return raw
    at = draw(st.integers(0, len(raw) - 1))
    return raw[:at] + bytes([raw[at] ^ draw(st.integers(1, 255))]) + raw[at + 1 :]


class Raw(bytes):
    """Bytes of which a report shows no more than anybody reads."""

    def __repr__(self) -> str:
        return f"{bytes(self[:5_000])!r}{'...' * (len(self) > 5_000)} ({len(self)} bytes)"


@st.composite
def mutated(draw: Draw, endpoint: str) -> Raw:
    """The body of a good request for this endpoint, with one to three mutations."""
    value = copy.deepcopy(draw(ENDPOINTS[endpoint]))
    on_bytes = draw(st.sampled_from([None, None, None, None, None, None, cut, flip]))
    for _ in range(draw(st.integers(0 if on_bytes else 1, 2 if on_bytes else 3))):
        value = draw(st.sampled_from(MUTATIONS))(draw, value)
        assume(size(value) < LARGEST)
    raw = json.dumps(value).encode()
    assume(len(raw) <= LARGEST)
    return Raw(on_bytes(draw, raw) if on_bytes else raw)
