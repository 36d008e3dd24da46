"""The Responses API through the app, with a fake broker in place of queue and workers."""

from __future__ import annotations

import dataclasses
import json

import orjson
import pytest

from gateway.errors import UpstreamFailed, UpstreamRejected
from gateway.queue.protocol import Outcome
from tests.support.fakes import SILENCE, USAGE, FakeBroker, part

URL = "/inference/v1/responses"
MODEL = "openai/gpt-4o-mini"
THOUGHT = {"type": "thinking", "thinking": "Hm.", "signature": "c2ln"}
CALL = {"id": "call_1", "type": "function", "function": {"name": "f", "arguments": "{}"}}
TOOL = {"type": "function", "name": "f", "parameters": {"type": "object", "properties": {}}}


def answer(finish_reason="stop", **message):
    """The outcome of an unstreamed call."""
    message = {"role": "assistant", "content": None, "refusal": None, **message}
    choice = {"index": 0, "message": message, "logprobs": None, "finish_reason": finish_reason}
    return Outcome(answer=orjson.dumps({"choices": [choice], "usage": USAGE}))


@pytest.fixture
def ask(make_client, settings, auth):
    """A function that posts a request to which this script is played; gives the broker too."""

    def post(*script, headers=(), configured=(), **fields):
        fake = FakeBroker(*script)
        client = make_client(dataclasses.replace(settings, **dict(configured)), fake)
        data = orjson.dumps({"model": MODEL, "input": "hi", **fields})
        response = client.post(
            URL,
            data=data,
            content_type="application/json",
            headers={**auth, **dict(headers)},
            buffered=True,
        )
        return response, fake

    return post


def events(response):
    """The data of a stream's events, each of which must have its name in front."""
    blocks = response.get_data(as_text=True).split("\n\n")
    assert blocks.pop() == ""
    told = []
    for block in blocks:
        if not block.startswith(": "):
            name, data = block.split("\n")
            told.append(json.loads(data.removeprefix("data: ")))
            assert name == f"event: {told[-1]['type']}"
    return told


def test_an_answer_is_a_response(ask):
    response, broker = ask(instructions="Be brief.", max_output_tokens=9)
    assert response.status_code == 200
    told = response.get_json()
    assert (told["object"], told["status"], told["model"]) == (
        "response", "completed", MODEL,
    )  # fmt: skip
    assert told["id"] == f"resp_{broker.calls[0].spec.call_id}"
    assert told["output"][0]["content"][0]["text"] == "Hello!"
    assert told["usage"]["input_tokens"] == USAGE["prompt_tokens"]
    assert told["store"] is False
    assert broker.calls[0].body == {
        "messages": [
            {"role": "system", "content": "Be brief."},
            {"role": "user", "content": "hi"},
        ],
        "max_completion_tokens": 9,
    }


def test_a_stream_tells_the_same_response_event_by_event(ask):
    response, broker = ask(stream=True)
    assert response.content_type.startswith("text/event-stream")
    told = events(response)
    assert [event["sequence_number"] for event in told] == list(range(len(told)))
    assert told[0]["type"] == "response.created"
    assert told[-1]["type"] == "response.completed"
    assert broker.calls[0].spec.stream
    whole = ask()[0].get_json()
    own = {"id": 0, "created_at": 0, "completed_at": 0}
    last = told[-1]["response"]
    text = whole["output"][0]["content"]
    assert last["output"][0]["content"] == text
    assert {**last, **own, "output": 0} == {**whole, **own, "output": 0}


def test_reasoning_and_calls_go_back_as_they_came(ask):
    blocks = {"reasoning_content": "Hm.", "thinking_blocks": [THOUGHT]}
    first, _ = ask(answer("tool_calls", content="Wait.", tool_calls=[CALL], **blocks), tools=[TOOL])
    output = first.get_json()["output"]
    assert [item["type"] for item in output] == ["reasoning", "message", "function_call"]
    result = {"type": "function_call_output", "call_id": "call_1", "output": "42"}
    items = [{"role": "user", "content": "hi"}, *output, result]
    second, broker = ask(answer(content="Done."), input=items, tools=[TOOL])
    assert second.get_json()["output"][0]["content"][0]["text"] == "Done."
    assert broker.calls[0].body["messages"] == [
        {"role": "user", "content": "hi"},
        {"role": "assistant", "content": "Wait.", "tool_calls": [CALL], **blocks},
        {"role": "tool", "tool_call_id": "call_1", "content": "42"},
    ]


def test_what_is_ignored_is_named_as_the_caller_wrote_it(ask):
    response, broker = ask(max_tool_calls=2, verbosity="low")
    assert response.headers["X-Ignored-Parameters"] == "max_tool_calls, verbosity"
    assert broker.calls[0].body.keys() == {"messages"}


def test_a_model_s_rules_are_told_in_the_caller_s_words(ask, tmp_path):
    models = tmp_path / "models.toml"
    models.write_text(
        '[models."demo/strict"]\nprovider = "demo"\n[models."demo/strict".parameters]\n'
        "max_completion_tokens = { refuse = true }\nreasoning_effort = { drop = true }\n"
    )
    strict = {"model": "demo/strict", "configured": {"models_file": str(models)}}
    refused, _ = ask(**strict, max_output_tokens=9)
    assert refused.status_code == 400
    assert refused.get_json()["error"]["param"] == "max_output_tokens"
    assert "'max_output_tokens'" in refused.get_json()["error"]["message"]
    taken, _ = ask(**strict, reasoning={"effort": "low"})
    assert taken.headers["X-Ignored-Parameters"] == "reasoning.effort"


REJECTED = UpstreamRejected(
    "Unsupported value: 'messages[0].content[1]' is too much.", param="messages[0].content[1]"
)


def test_a_provider_s_refusal_is_told_in_the_caller_s_words(ask):
    response, _ = ask(REJECTED)
    assert response.status_code == 400
    error = response.get_json()["error"]
    assert (error["param"], error["type"]) == ("input", "invalid_request_error")
    assert error["message"] == "Unsupported value: 'input' is too much."


def test_a_failure_before_the_first_part_has_a_status(ask):
    for stream in (False, True):
        response, _ = ask(UpstreamFailed(), stream=stream)
        assert response.status_code == 502
        assert response.headers["x-should-retry"] == "false"
        expected = UpstreamFailed().envelope()["error"]
        request_id = response.headers["X-Request-Id"]
        assert response.get_json() == {"error": {**expected, "request_id": request_id}}


def test_a_failure_within_a_stream_is_an_error_and_a_failed_response(ask):
    response, _ = ask(part("Hel"), UpstreamFailed(), stream=True)
    assert response.status_code == 200
    *_, error, failed = events(response)
    request_id = response.headers["X-Request-Id"]
    assert error["error"] == {**UpstreamFailed().envelope()["error"], "request_id": request_id}
    assert failed["type"] == "response.failed"
    assert failed["response"]["output"][0]["content"][0]["text"] == "Hel"


def test_a_stream_that_fails_before_any_part_begins_all_the_same(ask):
    response, _ = ask(SILENCE, UpstreamFailed(), stream=True)
    kinds = [event["type"] for event in events(response)]
    assert kinds == ["response.created", "response.in_progress", "error", "response.failed"]


def test_a_failure_after_the_blanks_of_a_late_answer_is_the_envelope(ask):
    response, _ = ask(SILENCE, REJECTED)
    assert response.status_code == 200
    assert response.get_json()["error"]["param"] == "input"


@pytest.mark.parametrize("stream", [False, True])
def test_a_wrong_request_never_reaches_the_queue(ask, stream):
    response, broker = ask(stream=stream, conversation="conv_1")
    assert response.status_code == 400
    error = response.get_json()["error"]
    assert (error["param"], error["code"]) == ("conversation", "unsupported_parameter")
    assert broker.calls == []


@pytest.mark.parametrize(
    ("model", "status"), [("openai/gpt-9", 404), (7, 400), ("groq/llama", 503)]
)
def test_a_model_that_cannot_be_had_is_told_as_for_chat(ask, model, status):
    response, _ = ask(model=model)
    assert response.status_code == status


@pytest.mark.parametrize(
    ("method", "path"), [("GET", ""), ("DELETE", ""), ("POST", "/cancel"), ("GET", "/input_items")]
)
def test_a_response_that_is_not_known_is_not_found(client, auth, method, path):
    response = client.open(f"{URL}/resp_1{path}", method=method, headers=auth)
    assert response.status_code == 404
    assert response.get_json()["error"]["code"] == "response_not_found"


def test_a_key_is_wanted(client):
    assert client.post(URL, json={"model": MODEL, "input": "hi"}).status_code == 401
    assert client.get(f"{URL}/resp_1").status_code == 401


@pytest.mark.parametrize("name", ["openai/gpt-4o-mini", "gpt-4o-mini"])
@pytest.mark.parametrize("stream", [False, True])
def test_the_model_is_the_one_that_was_asked_for(ask, name, stream):
    response, _ = ask(model=name, stream=stream)
    told = events(response)[-1]["response"] if stream else response.get_json()
    assert told["model"] == name


UNSERVED = [
    ("POST", "/compact"),
    ("POST", "/resp_1"),
    ("GET", "/resp_1/cancel"),
    ("POST", "/resp_1/input_items"),
    ("PUT", "/resp_1"),
]


@pytest.mark.parametrize(("method", "path"), UNSERVED)
def test_an_address_below_that_is_not_served_is_unknown(client, auth, method, path):
    response = client.open(URL + path, method=method, headers=auth)
    assert response.status_code == 404
    assert response.get_json()["error"]["message"] == f"Unknown request URL: {method} {URL}{path}."


@pytest.mark.parametrize("method", ["GET", "DELETE"])
def test_the_address_of_token_counts_is_no_id_of_a_response(client, auth, method):
    response = client.open("/inference/v1/responses/input_tokens", method=method, headers=auth)
    assert (response.status_code, response.headers["Allow"]) == (405, "OPTIONS, POST")
    longer = client.open("/inference/v1/responses/input_tokens_1", method=method, headers=auth)
    assert longer.get_json()["error"]["code"] == "response_not_found"


def test_the_tokens_of_an_input_are_estimated(client, auth):
    def count(**fields):
        data = {"model": MODEL, "input": "hi", **fields}
        response = client.post(f"{URL}/input_tokens", json=data, headers=auth)
        assert response.status_code == 200, response.get_json()
        assert response.headers["X-Token-Count"] == "estimate"
        told = response.get_json()
        assert told["object"] == "response.input_tokens"
        return told["input_tokens"]

    assert count() == 1
    assert count(instructions="x" * 4_000) == 1_001
    assert count(tools=[TOOL]) > count()


def test_tokens_are_counted_for_a_right_request_only(client, auth):
    for data, status in [
        ({"model": MODEL}, 400),
        ({"model": "openai/gpt-9", "input": "hi"}, 404),
        ({"model": "openai/text-embedding-3-small", "input": "hi"}, 404),
    ]:
        response = client.post(f"{URL}/input_tokens", json=data, headers=auth)
        assert response.status_code == status
    assert client.post(f"{URL}/input_tokens", json={}).status_code == 401


CODEX = {
    "instructions": "You are Codex.",
    "tools": [
        {"type": "namespace", "name": "clock", "tools": [{**TOOL, "name": "sleep"}]},
        {"type": "web_search", "external_web_access": False},
    ],
    "tool_choice": "auto",
    "parallel_tool_calls": False,
    "reasoning": {"effort": "medium", "context": "all_turns"},
    "store": False,
    "include": ["reasoning.encrypted_content"],
    "prompt_cache_key": "k",
    "text": {"verbosity": "low"},
    "client_metadata": {"session_id": "s"},
    "input": [{"type": "additional_tools", "role": "developer", "tools": [
        {"type": "namespace", "name": "functions", "tools": [{"type": "custom", "name": "exec"}]},
    ]}, {"type": "message", "role": "user", "content": [{"type": "input_text", "text": "hi"}]}],
}  # fmt: skip


@pytest.mark.parametrize("stream", [False, True])
def test_a_session_of_codex_works(ask, stream):
    called = {
        "id": "c",
        "type": "function",
        "function": {"name": "clock__sleep", "arguments": "{}"},
    }
    delta = {"tool_calls": [{"index": 0, **called}]}
    choice = {"index": 0, "delta": delta, "finish_reason": "tool_calls"}
    script = [orjson.dumps({"choices": [choice]}), Outcome(last=1)]
    if not stream:
        script = [answer("tool_calls", tool_calls=[called])]
    response, broker = ask(*script, stream=stream, **CODEX)
    assert response.status_code == 200
    told = events(response)[-1]["response"] if stream else response.get_json()
    (call,) = told["output"]
    assert (call["name"], call["namespace"]) == ("sleep", "clock")
    names = [tool[tool["type"]]["name"] for tool in broker.calls[0].body["tools"]]
    assert names == ["clock__sleep", "exec"]
    ignored = response.headers["X-Ignored-Parameters"].split(", ")
    assert {"tools.web_search", "client_metadata"} <= set(ignored)


def test_anthropic_counts_for_its_models(make_client, settings, auth):
    fake = FakeBroker(Outcome(answer=b'{"input_tokens":12}'))
    client = make_client(settings, fake)
    data = {"model": "anthropic/claude-sonnet-5-5", "input": "hi", "stream": True}
    response = client.post(f"{URL}/input_tokens", json=data, headers=auth)
    assert response.get_json() == {"object": "response.input_tokens", "input_tokens": 12}
    assert "X-Token-Count" not in response.headers
    assert (fake.calls[0].spec.kind, fake.calls[0].spec.stream) == ("count_tokens", False)
