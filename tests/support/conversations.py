"""Conversations that OpenAI takes, for property tests: every kind of message and parameter."""

from hypothesis import strategies as st

WORDS = st.sampled_from(["Hi", " ", "", "\n", "So  ", "é\u2028\u0085 😀", "a" * 50])
SPOKEN = st.sampled_from(["Hi", " x ", "So\n", "é\u2028 😀"])
IDS = st.sampled_from(["a", "b", "toolu_1", "functions.f:0", "", "é", "call-2"])
NAMES = st.sampled_from(["f", "g", "get_weather"])
CACHE = st.sampled_from([*[None] * 8, {"type": "ephemeral"}, {"type": "ephemeral", "ttl": "1h"}])
PNG = "data:image/png;base64,iVBORw0KGgo="
URLS = st.sampled_from([PNG, PNG, "https://a.example/b.png", "http://a.example/b.png"])
FILES = st.sampled_from(
    [
        {"filename": "a.pdf", "file_data": "data:application/pdf;base64,JVBERi0="},
        {"file_data": "JVBERi0=", "filename": None},
        {"file_data": "https://example.com/a.pdf"},
        {"filename": "a.txt", "file_data": "data:text/plain;base64,SGVsbG8="},
        {"file_id": "file-1"},
    ]
)
ARGUMENTS = st.sampled_from(["{}", "", '{"city": "Paris"}', '{"a": [1, null]}', '{"a": [1, null]}'])
THOUGHTS = st.lists(
    st.sampled_from(
        [
            {"type": "thinking", "thinking": "Hm.", "signature": "c2lnbmVk"},
            {"type": "thinking", "thinking": "", "signature": "c2lnbmVk"},
            {"type": "thinking", "thinking": "Unsigned.", "signature": None},
            {"type": "thinking", "thinking": "Unsigned."},
            {"type": "redacted_thinking", "data": "ZGF0YQ=="},
        ]
    ),
    max_size=3,
)


def without_none(**fields):
    return {key: value for key, value in fields.items() if value is not None}


def text_part(words=WORDS):
    return st.builds(
        lambda text, cache: without_none(type="text", text=text, cache_control=cache), words, CACHE
    )


IMAGE_PART = st.builds(
    lambda url, cache: without_none(type="image_url", image_url={"url": url}, cache_control=cache),
    URLS,
    CACHE,
)
FILE_PART = st.builds(lambda file: {"type": "file", "file": file}, FILES)
TEXTS = WORDS | st.lists(text_part(), min_size=1, max_size=2)
USER = st.builds(
    lambda content: [{"role": "user", "content": content}],
    SPOKEN
    | WORDS
    | st.lists(text_part(SPOKEN) | text_part() | IMAGE_PART | FILE_PART, min_size=1, max_size=3),
)
SYSTEM = st.builds(
    lambda role, content: [{"role": role, "content": content}],
    st.sampled_from(["system", "developer"]),
    TEXTS,
)
ASSISTANT = st.builds(
    lambda content, thoughts: [
        without_none(role="assistant", content=content, thinking_blocks=thoughts)
    ],
    TEXTS | st.just([{"type": "refusal", "refusal": "No."}]),
    st.none() | THOUGHTS,
)


@st.composite
def tool_turn(draw):
    """An assistant's calls and their results, in any order; seldom one is missing."""
    ids = draw(st.lists(IDS, min_size=1, max_size=3, unique=True))
    calls = [
        {"id": i, "type": "function", "function": {"name": draw(NAMES), "arguments": args}}
        for i, args in ((i, draw(ARGUMENTS)) for i in ids)
    ]
    thoughts = draw(st.none() | THOUGHTS)
    message = without_none(role="assistant", tool_calls=calls, thinking_blocks=thoughts)
    message["content"] = draw(st.none() | WORDS)
    results = [
        without_none(role="tool", tool_call_id=i, content=draw(TEXTS), cache_control=draw(CACHE))
        for i in draw(st.permutations(ids))
    ]
    if draw(st.integers(0, 19)) == 0:
        results.pop()
    between = draw(st.just([]) | st.just([]) | USER | SYSTEM)
    return [message, *results[:1], *between, *results[1:]]


MESSAGES = st.lists(SYSTEM | USER | USER | ASSISTANT | tool_turn(), min_size=1, max_size=6).map(
    lambda turns: [message for turn in turns for message in turn]
)

SMALL = st.integers(0, 3)
SCHEMAS = st.recursive(
    st.sampled_from(
        [
            {"type": "string", "pattern": "^a", "format": "email"},
            {"type": "string", "format": "color", "description": "A colour."},
            {"type": "integer", "minimum": 0},
            {"enum": [1, "a"]},
            {"$ref": "#/$defs/x"},
        ]
    ),
    lambda inner: st.one_of(
        st.builds(
            lambda fields, more: without_none(
                type="object",
                properties=fields,
                required=list(fields),
                additionalProperties=more,
            ),
            st.dictionaries(NAMES, inner, min_size=1, max_size=2),
            st.sampled_from([None, True, False]),
        ),
        st.builds(lambda items, n: {"type": "array", "items": items, "minItems": n}, inner, SMALL),
        st.builds(lambda each: {"oneOf": each}, st.lists(inner, min_size=1, max_size=2)),
    ),
    max_leaves=4,
)
OBJECTS = st.builds(
    lambda fields: {"type": "object", "properties": fields},
    st.dictionaries(NAMES, SCHEMAS, min_size=1, max_size=2),
)
TOOLS = st.lists(
    st.builds(
        lambda name, parameters, strict, cache: without_none(
            type="function",
            function=without_none(name=name, parameters=parameters, strict=strict),
            cache_control=cache,
        ),
        NAMES,
        st.none() | OBJECTS,
        st.sampled_from([None, True, False]),
        CACHE,
    ),
    max_size=3,
    unique_by=lambda tool: tool["function"]["name"],
)
FORMATS = st.sampled_from([{"type": "text"}]) | st.builds(
    lambda schema: {"type": "json_schema", "json_schema": {"name": "x", "schema": schema}}, OBJECTS
)
LIMITS = st.sampled_from([1, 1024, 1025, 2000, 9000, 100_000])
PARAMETERS = st.fixed_dictionaries(
    {},
    optional={
        "tools": TOOLS,
        "tool_choice": st.sampled_from(["auto", "none", "required"])
        | NAMES.map(lambda name: {"type": "function", "function": {"name": name}}),
        "parallel_tool_calls": st.booleans(),
        "temperature": st.sampled_from([0, 0.3, 1, 1.0, 1.7]),
        "top_p": st.sampled_from([0.5, 0.95, 1]),
        "top_k": st.sampled_from([0, 40]),
        "max_tokens": LIMITS,
        "max_completion_tokens": LIMITS,
        "stop": st.sampled_from(["END", " ", ["a", "\n", "b"], []]),
        "reasoning_effort": st.sampled_from(
            ["none", "minimal", "low", "medium", "high", "xhigh", "max"]
        ),
        "thinking": st.sampled_from(
            [
                {"type": "enabled", "budget_tokens": 1024},
                {"type": "enabled", "budget_tokens": 5000, "display": "omitted"},
                {"type": "adaptive"},
                {"type": "disabled"},
            ]
        ),
        "user": st.sampled_from(["u", "u" * 512]),
        "safety_identifier": st.just("s"),
        "service_tier": st.sampled_from(["auto", "default", "auto", "default", "priority", "flex"]),
        "response_format": FORMATS,
        "n": st.sampled_from([*[1] * 19, 2]),
        "seed": st.just(1),
        "logprobs": st.just(True),
        "metadata": st.just({"a": "b"}),
        "presence_penalty": st.just(1),
    },
)
