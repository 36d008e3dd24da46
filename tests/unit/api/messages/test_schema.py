"""What a Messages request may not say, and how its caller is told."""

from __future__ import annotations

import pytest

from api.messages.schema import checked, model_name
from gateway.errors import InvalidRequest

USER = {"role": "user", "content": "hi"}
SECRET = "a very private prompt"
USE = {"type": "tool_use", "id": "t1", "name": "f", "input": {}}
RESULT = {"type": "tool_result", "tool_use_id": "t1", "content": "ok"}


def request(**fields):
    return {"model": "demo/echo", "max_tokens": 100, "messages": [USER], **fields}


def said(*blocks, role="user"):
    return request(messages=[{"role": role, "content": list(blocks)}])


def without(name):
    return {key: value for key, value in request().items() if key != name}


def image(**source):
    return said({"type": "image", "source": source})


def document(**source):
    return said({"type": "document", "source": source})


WRONG = [
    ([], "Input should be an object"),
    (without("model"), "model: Field required"),
    (request(model=5), "model: Input should be a valid string"),
    (request(model="a\nb"), "model: String should have 1 to 256 printable characters"),
    (request(model=""), "model: String should have 1 to 256 printable characters"),
    (without("max_tokens"), "max_tokens: Field required"),
    (request(max_tokens=0), "max_tokens: Input should be greater than or equal to 1"),
    (request(max_tokens="5"), "max_tokens: Input should be a valid integer"),
    (without("messages"), "messages: Field required"),
    (request(messages=[]), "messages: List should have at least 1 item"),
    (request(messages="hi"), "messages: Input should be a valid list"),
    (request(messages=[{"role": "tool", "content": "x"}]), "messages.0.role: Input should be"),
    (request(messages=[{"role": "user"}]), "messages.0.content: Field required"),
    (request(messages=[{"role": "user", "content": 5}]), "messages.0.content: Input should be a"),
    (said({"text": "x"}), "messages.0.content.0.type: Field required"),
    (said("x"), "messages.0.content.0: Input should be an object"),
    (said({"type": "text"}), "messages.0.content.0.text: Field required"),
    (said({"type": "text", "text": "x", "cache_control": {}}), "messages.0.content.0.cache_co"),
    (image(type="file", file_id="x"), "messages.0.content.0.source: Input tag 'file' found"),
    (
        image(type="base64", media_type="image/bmp", data="AAAA"),
        "messages.0.content.0.source.media_type: Input should be 'image/jpeg', 'image/png'",
    ),
    (image(type="base64", media_type="image/png", data=""), "messages.0.content.0.source.data: "),
    (image(type="url", url="http://127.0.0.1/a"), "messages.0.content.0.source.url: expected an"),
    (image(type="url", url="file:///etc/passwd"), "messages.0.content.0.source.url: expected an"),
    (document(type="file", file_id="f"), "messages.0.content.0.source: Input tag 'file'"),
    (document(type="url", url="http://10.0.0.1/"), "messages.0.content.0.source.url: expected an"),
    (
        said({"type": "thinking", "thinking": "x", "signature": "s"}),
        "messages.0.content.0: `thinking` blocks are not allowed in messages of role 'user'",
    ),
    (said(USE), "messages.0.content.0: `tool_use` blocks are not allowed in messages of role"),
    (
        said(
            {"type": "image", "source": {"type": "url", "url": "https://a.b/c"}}, role="assistant"
        ),
        "messages.0.content.0: `image` blocks are not allowed in messages of role 'assistant'",
    ),
    (said(RESULT), "messages.0.content.0: unexpected `tool_use_id` found in `tool_result` blocks"),
    (said(USE, role="assistant"), "messages.0: `tool_use` ids were found without `tool_result`"),
    (
        request(messages=[{"role": "assistant", "content": [USE]}, USER, said()["messages"][0]]),
        "messages.0: `tool_use` ids were found without `tool_result` blocks immediately after: t1",
    ),
    (request(system=[{"text": "x"}]), "system.0.type: Field required"),
    (request(temperature=1.1), "temperature: Input should be less than or equal to 1"),
    (request(top_k=-1), "top_k: Input should be greater than or equal to 0"),
    (request(stop_sequences="x"), "stop_sequences: Input should be a valid list"),
    (request(stream="yes"), "stream: Input should be a valid boolean"),
    (
        request(tools=[{"type": "function", "function": {"name": "f"}}]),
        "tools.0: Input tag 'function' found using 'type' does not match any of the expected tags",
    ),
    (request(tools=[{"name": "f"}]), "tools.0.input_schema: Field required"),
    (request(tools=[{"name": "", "input_schema": {}}]), "tools.0.name: String should have at"),
    (request(tool_choice={"type": "some"}), "tool_choice: Input tag 'some' found using 'type'"),
    (request(tool_choice={"type": "tool"}), "tool_choice.name: Field required"),
    (
        request(thinking={"type": "enabled", "budget_tokens": 5}),
        "thinking.budget_tokens: Input should be greater than or equal to 1024",
    ),
    (
        request(thinking={"type": "enabled", "budget_tokens": 1024}),
        "`max_tokens` must be greater than `thinking.budget_tokens`.",
    ),
    (
        request(output_config={"format": {"type": "json_object"}}),
        "output_config.format.type: Input should be 'json_schema'",
    ),
    (request(service_tier="fast"), "service_tier: Input should be 'auto' or 'standard_only'"),
    (request(metadata={"user_id": 5}), "metadata.user_id: Input should be a valid string"),
    (request(mcp_servers=[{"url": "https://a.example"}]), "mcp_servers: Extra inputs are not"),
    (request(container="c1"), "container: Extra inputs are not permitted"),
]


@pytest.mark.parametrize(("body", "told"), WRONG, ids=[told[:60] for _, told in WRONG])
def test_what_is_wrong_is_told_in_anthropic_s_words(body, told):
    with pytest.raises(InvalidRequest) as refusal:
        checked(body)
    assert refusal.value.message.startswith(told)
    assert refusal.value.status == 400


@pytest.mark.parametrize(
    "body",
    [
        request(messages=[{"role": SECRET * 9, "content": "x"}]),
        request(temperature=SECRET),
        request(system=[SECRET]),
        said({"type": "text", "text": [SECRET]}),
        said({"type": "image", "source": {"type": "url", "url": SECRET}}),
        said({"type": "text", "text": "x", "cache_control": [SECRET]}),
    ],
)
def test_a_refusal_does_not_repeat_what_was_said(body):
    with pytest.raises(InvalidRequest) as refusal:
        checked(body)
    assert SECRET not in refusal.value.message
    assert refusal.value.__cause__ is None
    assert refusal.value.__context__ is None


def test_a_wrong_tag_is_repeated_shortly_and_on_one_line():
    with pytest.raises(InvalidRequest) as refusal:
        checked(request(tool_choice={"type": "\r\n" + "x" * 500}))
    assert f"Input tag '{'x' * 62}' found" in refusal.value.message


@pytest.mark.parametrize(
    "ident", ["functions.Read:0", "call|1", "tool.1", "call_a/b", "toolu 1", "调用1", "x" * 500]
)
def test_ids_that_other_providers_gave_out_are_taken_back(ident):
    use = {**USE, "id": ident}
    result = {"type": "tool_result", "tool_use_id": ident, "content": "x"}
    turns = [{"role": "assistant", "content": [use]}, {"role": "user", "content": [result]}]
    assert checked(request(messages=[USER, *turns]))


def test_two_calls_of_one_turn_may_have_one_id():
    result = {"type": "tool_result", "tool_use_id": "t1"}
    calls = {"role": "assistant", "content": [USE, USE]}
    assert checked(request(messages=[USER, calls, {"role": "user", "content": [result, result]}]))
    with pytest.raises(InvalidRequest):
        checked(request(messages=[USER, calls, {"role": "user", "content": [result]}]))


@pytest.mark.parametrize(
    "message",
    [
        {"role": "assistant", "content": []},
        {"role": "assistant", "content": ""},
        {"role": "assistant", "content": None},
        {"role": "assistant"},
        {"role": "system", "output_config": {"effort": "low"}},
        {"role": "system", "content": [{"type": "tool_addition", "tool": {}}]},
        {"role": "user", "content": []},
        {"role": "assistant", "content": [{"type": "thinking", "thinking": "x"}]},
        {"role": "assistant", "content": [{"type": "thinking", "thinking": "", "signature": None}]},
        {"role": "assistant", "content": [{"type": "redacted_thinking", "data": None}]},
        {"role": "assistant", "content": [{"type": "server_tool_use", "id": 1, "input": None}]},
        {"role": "user", "content": [{"type": "tool_reference", "tool_name": "x"}]},
        {"role": "user", "content": [{"type": "of a later year"}]},
    ],
)
def test_turns_that_say_nothing_or_something_new_are_taken(message):
    assert checked(request(messages=[USER, message, USER]))


def test_nulls_say_nothing():
    names = ("system", "stream", "temperature", "tools", "thinking", "metadata", "container")
    assert checked(request(**dict.fromkeys(names))) == request()


def test_unknown_fields_are_left_alone():
    body = request(context_management={"edits": []}, betas=["x"])
    assert checked(body) == body


def test_results_may_be_spread_over_turns_of_the_user():
    other = {**USE, "id": "t2"}
    turns = [
        {"role": "assistant", "content": [USE, other]},
        {"role": "user", "content": [RESULT]},
        {"role": "user", "content": [{**RESULT, "tool_use_id": "t2"}]},
    ]
    assert checked(request(messages=turns))["messages"] == turns


def test_the_model_is_named_before_all_else_is_checked():
    assert model_name({"model": "openai/gpt-4o"}) == "openai/gpt-4o"
