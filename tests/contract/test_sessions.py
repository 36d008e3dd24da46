"""Public reports about gateways, tried on this service from the client's bytes to the provider's.

Each case names the report. The provider is scripted: it records what it is sent and plays replies.
"""

from __future__ import annotations

import dataclasses
import json
import re
from contextlib import contextmanager
from typing import Any

import orjson
import pytest
from redis import Redis

from api.services import Services
from app import create_app
from gateway.account.api_keys import KeyStore
from gateway.catalogue.catalogue import Catalogue
from gateway.settings import Settings
from tests.support.whole import Canned, CannedTransport, WholeExchange

BASE = "/inference/v1"
PATHS = {"chat": "/chat/completions", "messages": "/messages", "responses": "/responses"}
PNG = "data:image/png;base64,iVBORw0KGgo="
SCHEMA = {"type": "object", "properties": {"path": {"type": "string"}}}
TOOL = {"type": "function", "function": {"name": "Read", "parameters": SCHEMA}}
CLAUDE_TOOL = {"name": "Read", "input_schema": SCHEMA}
FLAT_TOOL = {"type": "function", "name": "Read", "parameters": SCHEMA}
HELLO = [{"role": "user", "content": "hi"}]
CODEX_HELLO = {"type": "message", "role": "user", "content": [{"type": "input_text", "text": "hi"}]}
CLAUDE = "anthropic/claude-sonnet-4-5"


class Variables(dict[str, str]):
    """A value for every variable of a key."""

    def get(self, name: str, default: Any = "") -> Any:
        return super().get(name, "key" if name.endswith(("_API_KEY", "BEDROCK")) else default)


class Scripted(CannedTransport):
    """Plays replies: a list of chunks is a stream, an object a whole answer, a pair a refusal."""

    def __init__(self) -> None:
        super().__init__()
        self.replies: list[Any] = []

    @contextmanager
    def post(self, request):
        with super().post(request) as answer:
            if not self.replies:
                yield answer
                return
            reply = self.replies.pop(0)
            if isinstance(reply, tuple):
                answer = Canned("application/json", orjson.dumps(reply[1]))
                answer.status = reply[0]
            elif isinstance(reply, dict):
                answer = Canned("application/json", orjson.dumps(reply))
            else:
                answer = Canned("text/event-stream", b"".join(map(event, reply)))
            yield answer


def event(data: Any) -> bytes:
    return b"data: " + (data.encode() if isinstance(data, str) else orjson.dumps(data)) + b"\n\n"


class Service:
    """The service with all its providers scripted."""

    def __init__(self, client: Any, auth: dict[str, str], provider: Scripted) -> None:
        self._client, self._auth, self.provider = client, auth, provider

    def call(self, api, model, *replies, headers=(), **fields):
        """Post a call that the providers answer with these replies, then well."""
        defaults = {"input": "hi"} if api == "responses" else {"messages": HELLO}
        if api == "messages":
            defaults["max_tokens"] = 64
        self.provider.replies = list(replies)
        return self._client.post(
            BASE + PATHS[api],
            json={"model": model, **defaults, **fields},
            headers={**self._auth, "anthropic-version": "2023-06-01", **dict(headers)},
            buffered=True,
        )

    def ok(self, *args, **fields):
        """The response to a call that must succeed."""
        response = self.call(*args, **fields)
        assert response.status_code == 200, response.get_data(as_text=True)
        return response

    @property
    def sent(self):
        """The JSON that a provider was sent last."""
        return self.provider.sent


@pytest.fixture(scope="module")
def service(redis_url):
    """One for all tests of this module: to make it takes longer than a test."""
    settings = Settings(
        key_pepper="p" * 40,
        redis_url=redis_url,
        upstream_retries=0,
        variables=Variables(LOCAL_BASE_URL="http://127.0.0.1:1/v1"),
    )
    services = Services.create(settings)
    exchange = WholeExchange(Catalogue.load(settings), settings, Scripted())
    exchange.redis = services.broker.redis
    client = create_app(settings, dataclasses.replace(services, broker=exchange)).test_client()
    redis = Redis.from_url(redis_url, protocol=2)
    auth = {"Authorization": f"Bearer {KeyStore(redis, settings.key_pepper).create('tests')}"}
    yield Service(client, auth, exchange.transport)
    redis.close()
    services.broker.redis.connection_pool.disconnect()


def events(response):
    text = response.get_data(as_text=True)
    data = [line[6:] for line in text.splitlines() if line.startswith("data: ")]
    return [json.loads(each) for each in data if each != "[DONE]"]


def ignored(response):
    return set(filter(None, response.headers.get("X-Ignored-Parameters", "").split(", ")))


def delta(finish=None, **fields):
    return {"choices": [{"index": 0, "delta": fields, "finish_reason": finish}]}


def call_delta(index=0, name="Read", arguments='{"path":"a"}', finish=None, **more):
    function = {"name": name, "arguments": arguments}
    return delta(
        finish, tool_calls=[{"index": index, "type": "function", "function": function, **more}]
    )


# B1: ids of tool calls go back as they came


@pytest.mark.parametrize("model", ["vllm/kimi-k2", "fireworks/kimi-k2", "together/kimi-k2"])
@pytest.mark.parametrize(
    "ident", ["functions.Read:0", "call|1", "tool.1", "call_a/b", "toolu 1", "调用1"]
)
def test_the_ids_of_a_provider_come_back_to_it(service, model, ident):
    reply = [call_delta(id=ident, finish="tool_calls"), "[DONE]"]
    first = service.ok("messages", model, reply, tools=[CLAUDE_TOOL], stream=True)
    starts = [
        each["content_block"] for each in events(first) if each["type"] == "content_block_start"
    ]
    (use,) = [block for block in starts if block["type"] == "tool_use"]
    use = {**use, "input": {"path": "a"}}
    result = {"type": "tool_result", "tool_use_id": use["id"], "content": "x"}
    turns = [*HELLO, {"role": "assistant", "content": [use]}, {"role": "user", "content": [result]}]
    service.ok("messages", model, tools=[CLAUDE_TOOL], messages=turns)
    assert service.sent["messages"][1]["tool_calls"][0]["id"] == ident
    assert service.sent["messages"][2]["tool_call_id"] == ident
    service.ok("messages", CLAUDE, tools=[CLAUDE_TOOL], messages=turns)
    taken = service.sent["messages"][1]["content"][0]["id"]
    assert service.sent["messages"][2]["content"][0]["tool_use_id"] == taken
    assert taken.replace("_", "").replace("-", "").isalnum()
    assert taken.isascii()


# B2, B15: what Codex sends

CODEX_ITEMS = [
    {"type": "additional_tools", "role": "developer", "tools": [
        {"type": "namespace", "name": "functions", "tools": [
            {"type": "function", "name": "exec_command", "parameters": SCHEMA}]}]},
    {"type": "tool_search_call", "call_id": "c1", "arguments": {"query": "x"}},
    {"type": "tool_search_output", "call_id": "c1", "tools": []},
    {"type": "agent_message", "author": "a", "content": [{"type": "input_text", "text": "x"}]},
    {"type": "web_search_call", "id": "w", "status": "completed"},
    {"type": "local_shell_call", "call_id": "l", "action": {"type": "exec", "command": ["ls"]}},
    {"type": "local_shell_call_output", "call_id": "l", "output": "a"},
    {"type": "compaction", "encrypted_content": "x"},
    {"type": "something_of_next_year", "id": "n"},
]  # fmt: skip


@pytest.mark.parametrize("item", CODEX_ITEMS, ids=lambda item: item["type"])
@pytest.mark.parametrize("model", [CLAUDE, "groq/x", "openai/gpt-6-luna"])
def test_an_item_of_codex_locks_no_session(service, model, item):
    service.ok("responses", model, input=[item, CODEX_HELLO], store=False, stream=True)


CODEX_TOOLS = [
    {"type": "namespace", "name": "mcp__docs__", "tools": [
        {"type": "function", "name": "search", "parameters": SCHEMA}]},
    {"type": "web_search", "external_web_access": False},
    {"type": "tool_search", "execution": "client"},
    {"type": "image_generation"},
    {"type": "local_shell"},
    {"type": "something_of_next_year"},
]  # fmt: skip


@pytest.mark.parametrize("tool", CODEX_TOOLS, ids=lambda tool: tool["type"])
@pytest.mark.parametrize("model", [CLAUDE, "groq/x", "openai/gpt-6-luna"])
def test_a_tool_of_codex_locks_no_session(service, model, tool):
    service.ok("responses", model, tools=[FLAT_TOOL, tool], tool_choice="auto")
    assert "Read" in str(service.sent["tools"])


@pytest.mark.parametrize("stream", [True, False])
def test_a_tool_in_a_namespace_comes_back_with_it(service, stream):
    called = {"index": 0, "id": "a", "type": "function"}
    called["function"] = {"name": "mcp__docs__search", "arguments": "{}"}
    choice = {"index": 0, "message": {"tool_calls": [called]}, "finish_reason": "tool_calls"}
    streamed = [delta(tool_calls=[called], finish="tool_calls"), "[DONE]"]
    reply = streamed if stream else {"choices": [choice]}
    response = service.ok("responses", "groq/x", reply, tools=CODEX_TOOLS, stream=stream)
    final = events(response)[-1]["response"] if stream else response.get_json()
    (item,) = final["output"]
    assert (item["name"], item["namespace"]) == ("search", "mcp__docs__")


# B3: blocks of Claude Code

REFERENCE = {"type": "tool_reference", "tool_name": "WebSearch"}
RESULTS = [
    [REFERENCE],
    [{"type": "text", "text": "x"}, REFERENCE],
    [
        {
            "type": "search_result",
            "source": "a",
            "title": "t",
            "content": [{"type": "text", "text": "x"}],
        }
    ],
    [{"type": "something_of_next_year"}],
]


@pytest.mark.parametrize("content", RESULTS, ids=lambda content: content[-1]["type"])
@pytest.mark.parametrize(
    "model", [CLAUDE, "anthropic/claude-sonnet-5-5", "openai/gpt-6-luna", "vllm/x"]
)
def test_blocks_of_claude_code_lock_no_session(service, model, content):
    use = {"type": "tool_use", "id": "t1", "name": "ToolSearch", "input": {"query": "web"}}
    result = {"type": "tool_result", "tool_use_id": "t1", "content": content}
    turns = [*HELLO, {"role": "assistant", "content": [use]}, {"role": "user", "content": [result]}]
    addition = {"type": "tool_addition", "tool": {"type": "tool_reference", "name": "Read"}}
    removal = {"type": "tool_removal", "tool": {"type": "tool_reference", "name": "Read"}}
    system = [{"type": "text", "text": "A tool came."}, addition, removal]
    for more in (
        [],
        [{"role": "system", "content": system}],
        [{"role": "system", "content": [addition]}],
    ):
        service.ok("messages", model, messages=[*turns, *more], tools=[CLAUDE_TOOL])


@pytest.mark.parametrize(
    "kind", ["server_tool_use", "web_search_tool_result", "mcp_tool_use", "container_upload"]
)
@pytest.mark.parametrize("model", [CLAUDE, "openai/gpt-4o"])
def test_blocks_of_hosted_tools_lock_no_session(service, model, kind):
    block = {
        "type": kind,
        "id": "s1",
        "name": "web_search",
        "input": {},
        "tool_use_id": "s1",
        "content": [],
    }
    turns = [
        *HELLO,
        {"role": "assistant", "content": [block, {"type": "text", "text": "ok"}]},
        *HELLO,
    ]
    service.ok("messages", model, messages=turns)


# B4, B6: an answer that never came, or was given up

BROKEN = [
    [{"id": "x", "choices": None, "error_type": "BadRequestError", "error_message": "b"}, "[DONE]"],
    [{"object": "error", "message": "boom", "type": "InternalServerError", "code": 500}, "[DONE]"],
    [{"id": "x"}, "[DONE]"],
    [{"message": "boom", "type": "x"}, "[DONE]"],
    [{"detail": "boom"}, "[DONE]"],
    [{"detail": [{"msg": "boom", "loc": ["body"]}]}, "[DONE]"],
    [{"error": "boom"}, "[DONE]"],
    [{"errors": [{"message": "boom"}]}, "[DONE]"],
    [{"choices": [], "usage": {"prompt_tokens": 1, "completion_tokens": 0}}, "[DONE]"],
    ["[DONE]"],
    ["{not json", "[DONE]"],
    *([delta(finish=word), "[DONE]"] for word in (
        "abort", "aborted", "cancelled", "error", "malformed_function_call",
        "MALFORMED_FUNCTION_CALL", "engine_overloaded", "network_error")),
]  # fmt: skip


@pytest.mark.parametrize("reply", BROKEN, ids=lambda reply: json.dumps(reply[0])[:40])
@pytest.mark.parametrize("stream", [True, False])
@pytest.mark.parametrize("api", PATHS)
def test_an_answer_that_never_came_is_an_error(service, api, stream, reply):
    response = service.call(api, "fireworks/x", reply, stream=stream, **limit(api, 9000))
    assert response.status_code >= 400


@pytest.mark.parametrize("reply", BROKEN, ids=lambda reply: json.dumps(reply[0])[:40])
@pytest.mark.parametrize("api", PATHS)
def test_an_answer_that_breaks_off_is_an_error_event(service, api, reply):
    response = service.call(api, "groq/x", [delta(content="Hel"), *reply], stream=True)
    text = response.get_data(as_text=True)
    assert response.status_code == 200
    assert "error" in text
    assert '"finish_reason":"stop"' not in text
    assert '"end_turn"' not in text
    assert "response.completed" not in text


WHOLE_BROKEN = [
    {"choices": []},
    {"choices": None},
    {"error": {"message": "boom"}},
    {"object": "error", "message": "boom"},
    {"detail": "boom"},
    {"choices": [{"index": 0, "message": {"content": "a"}, "finish_reason": "abort"}]},
]


@pytest.mark.parametrize("reply", WHOLE_BROKEN, ids=lambda reply: json.dumps(reply)[:40])
@pytest.mark.parametrize("api", PATHS)
def test_a_whole_answer_that_is_none_is_an_error(service, api, reply):
    assert service.call(api, "groq/x", reply).status_code >= 400


@pytest.mark.parametrize(
    "word", ["SAFETY", "STOP", "MAX_TOKENS", "recitation", "repetition", "eos", "end_turn"]
)
def test_other_finish_reasons_are_openais(service, word):
    choice = {"index": 0, "message": {"content": "a"}, "finish_reason": word}
    (answered,) = service.ok("chat", "groq/x", {"choices": [choice]}).get_json()["choices"]
    assert answered["finish_reason"] in ("stop", "length", "content_filter", "tool_calls")
    assert answered["native_finish_reason"] == word


def limit(api, tokens):
    name = {
        "chat": "max_completion_tokens",
        "messages": "max_tokens",
        "responses": "max_output_tokens",
    }
    return {name[api]: tokens}


# B5, B29: calls in odd forms


def calls_of(api, stream, response):
    if api == "chat":
        if not stream:
            calls = response.get_json()["choices"][0]["message"]["tool_calls"]
            return [(call["function"]["name"], call["function"]["arguments"]) for call in calls]
        calls = {}
        for each in events(response):
            for choice in each["choices"]:
                for call in choice["delta"].get("tool_calls") or ():
                    name, text = calls.get(call["index"], ("", ""))
                    function = call["function"]
                    calls[call["index"]] = (
                        function.get("name") or name,
                        text + (function.get("arguments") or ""),
                    )
        return list(calls.values())
    if api == "responses":
        final = events(response)[-1]["response"] if stream else response.get_json()
        return [(item["name"], item["arguments"]) for item in final["output"]]
    if not stream:
        uses = [block for block in response.get_json()["content"] if block["type"] == "tool_use"]
        return [(use["name"], json.dumps(use["input"], separators=(",", ":"))) for use in uses]
    calls = {}
    for each in events(response):
        if each["type"] == "content_block_start" and each["content_block"]["type"] == "tool_use":
            calls[each["index"]] = (each["content_block"]["name"], "")
        if each["type"] == "content_block_delta" and each["delta"]["type"] == "input_json_delta":
            name, text = calls[each["index"]]
            calls[each["index"]] = (name, text + each["delta"]["partial_json"])
    return list(calls.values())


ROME, UTC = ("get_weather", '{"city":"Rome"}'), ("get_time", '{"tz":"UTC"}')


def element(index, call, ident, **more):
    function = {"name": call[0], "arguments": call[1]}
    return {"index": index, "id": ident, "type": "function", "function": function, **more}


PARALLEL = [
    [delta(tool_calls=[element(0, ROME, "a")]), delta(tool_calls=[element(0, UTC, "b")])],
    [delta(tool_calls=[element(0, ROME, "a"), element(0, UTC, "b")])],
    [delta(tool_calls=[element(0, ROME, "a")]), delta(tool_calls=[element(1, UTC, "b")])],
    [delta(tool_calls=[element(0, (ROME[0], '{"city":'), "a")]),
     delta(tool_calls=[{"index": 0, "function": {"arguments": '"Rome"}'}}]),
     delta(tool_calls=[element(0, UTC, "b")])],
    [delta(tool_calls=[element(0, (ROME[0], {"city": "Rome"}), "a")]),
     delta(tool_calls=[element(0, (UTC[0], {"tz": "UTC"}), "b")])],
]  # fmt: skip


@pytest.mark.parametrize("api", PATHS)
@pytest.mark.parametrize("chunks", PARALLEL)
@pytest.mark.parametrize("stream", [True, False])
def test_two_calls_stay_two(service, api, stream, chunks):
    reply = [*chunks, delta(finish="stop"), "[DONE]"]
    response = service.ok(api, "fireworks/x", reply, stream=stream, **limit(api, 9000))
    assert calls_of(api, stream, response) == [ROME, UTC]


@pytest.mark.parametrize("api", PATHS)
@pytest.mark.parametrize("stream", [True, False])
@pytest.mark.parametrize(
    ("given", "text"), [({"a": 1}, '{"a":1}'), ({}, "{}"), (None, "{}"), ("", "{}")]
)
def test_arguments_are_text(service, api, stream, given, text):
    reply = [call_delta(arguments=given, id="a", finish="tool_calls"), "[DONE]"]
    response = service.ok(api, "fireworks/x", reply, stream=stream, **limit(api, 9000))
    assert calls_of(api, stream, response) == [("Read", text)]


# B7, B26: refusals say why

REASON = "Extra inputs are not permitted"
DETAIL = {"type": "extra_forbidden", "loc": ["body", "seed"], "msg": REASON, "input": 1}
REFUSALS = [
    {"object": "error", "message": {"detail": [DETAIL]}, "type": "invalid_request_error"},
    {"detail": [DETAIL]},
    {"object": "Error", "message": [DETAIL], "type": "invalid_request_error", "code": 3001},
    {"error": {"message": {"detail": [DETAIL]}}},
    {"error": {"detail": [DETAIL]}},
    {"errors": [DETAIL]},
    {"message": REASON},
    {"detail": REASON},
    {"error": REASON},
    [{"error": {"message": REASON, "code": 400}}],
]


@pytest.mark.parametrize("body", REFUSALS, ids=lambda body: json.dumps(body)[:40])
@pytest.mark.parametrize("api", PATHS)
@pytest.mark.parametrize("stream", [True, False])
def test_a_refusal_keeps_its_reason(service, api, stream, body):
    response = service.call(api, "mistral/x", (422, body), stream=stream)
    assert 400 <= response.status_code < 500
    assert REASON in response.get_json()["error"]["message"]
    assert "{" not in response.get_json()["error"]["message"]


TOO_LONG = """
The input (345516 tokens) is longer than the model's context length (262144 tokens).
Prompt too long: 32799 tokens exceeds max context window of 32768 tokens
You passed 9000 input tokens. However, the model's context length is only 8192.
The decoder prompt (length 9000) is longer than the maximum model length of 8192.
`inputs` tokens + `max_new_tokens` must be <= 8193. Given: 9000 `inputs` tokens
The model is loaded with context length of only 4096 tokens, which is not enough
the request exceeds the available context size. try increasing the context size
The input token count (1200000) exceeds the maximum number of tokens allowed (1048576).
This model's maximum context length is 128000 tokens. Your messages have 130000.
prompt is too long: 205000 tokens > 200000 maximum
Input is too long for requested model.
Please reduce the length of the messages or completion.
""".strip().splitlines()


@pytest.mark.parametrize("words", TOO_LONG)
def test_too_long_is_told_to_each_client_in_its_words(service, words):
    reply = (400, {"error": {"message": words, "type": "invalid_request_error"}})
    for api in ("chat", "responses"):
        error = service.call(api, "vllm/x", reply).get_json()["error"]
        assert error["code"] == "context_length_exceeded"
    error = service.call("messages", "vllm/x", reply).get_json()["error"]
    assert "prompt is too long" in error["message"].lower()


def test_too_long_asks_a_larger_fallback(service):
    refusal = (400, {"error": {"message": TOO_LONG[0]}})
    response = service.ok("chat", "vllm/x", refusal, models=["groq/y"])
    assert service.sent["model"] == "y"
    assert response.status_code == 200


# B8, B24: media


@pytest.mark.parametrize("content", [
    [{"type": "text", "text": "done"}, {"type": "image_url", "image_url": {"url": PNG}}],
    [{"type": "image_url", "image_url": {"url": PNG}}],
])  # fmt: skip
@pytest.mark.parametrize("model", [CLAUDE, "openai/gpt-4o", "groq/x", "vllm/x"])
def test_a_tool_may_return_an_image(service, model, content):
    call = {"id": "c1", "type": "function", "function": {"name": "Read", "arguments": "{}"}}
    turns = [*HELLO, {"role": "assistant", "content": None, "tool_calls": [call]}]
    turns.append({"role": "tool", "tool_call_id": "c1", "content": content})
    service.ok("chat", model, messages=turns, tools=[TOOL])
    assert "iVBORw0KGgo" in json.dumps(service.sent)


MEDIA = [
    {"type": "video_url", "video_url": {"url": "data:video/mp4;base64,AAAA"}},
    {"type": "audio_url", "audio_url": {"url": "data:audio/ogg;base64,AAAA"}},
    {"type": "input_audio", "input_audio": {"data": "AAAA", "format": "flac"}},
    {"type": "input_audio", "input_audio": {"data": "AAAA", "format": "ogg"}},
]


@pytest.mark.parametrize("part", MEDIA, ids=lambda part: part["type"])
@pytest.mark.parametrize("model", ["vllm/x", "openrouter/x", "together/x"])
def test_media_go_to_who_takes_them(service, model, part):
    content = [part, {"type": "text", "text": "what is it?"}]
    service.ok("chat", model, messages=[{"role": "user", "content": content}])
    assert part in service.sent["messages"][0]["content"]


# B9: prompt caches stay warm


@pytest.mark.parametrize(
    "model", [CLAUDE, "anthropic/claude-sonnet-5-5", "anthropic/claude-opus-4-8"]
)
@pytest.mark.parametrize("other", ["openai/gpt-6-luna", "vllm/x", "mistral/x"])
def test_later_system_messages_change_nothing_before_them(service, model, other):
    use = {"type": "tool_use", "id": "t1", "name": "Read", "input": {"path": "a"}}
    result = {"type": "tool_result", "tool_use_id": "t1", "content": "x"}
    turns = [
        {"role": "user", "content": "hi"},
        {"role": "system", "content": "env"},
        {"role": "assistant", "content": [use]},
        {"role": "user", "content": [result]},
        {"role": "system", "content": "<total_tokens>900</total_tokens>"},
    ]
    more = [
        {"role": "assistant", "content": "ok"},
        {"role": "user", "content": "go on"},
        {"role": "system", "content": "<total_tokens>800</total_tokens>"},
    ]
    for name in (model, other):
        fields = {"system": "You are Claude Code.", "tools": [CLAUDE_TOOL]}
        service.ok("messages", name, messages=turns, **fields)
        first = service.sent
        service.ok("messages", name, messages=[*turns, *more], **fields)
        second = service.sent
        assert first.get("system") == second.get("system")
        assert first["tools"] == second["tools"]
        assert second["messages"][: len(first["messages"])] == first["messages"]


def test_a_billing_line_goes_to_anthropic_alone(service):
    line = "x-anthropic-billing-header: cc_version=2.1.177.01c; cc_entrypoint=cli; cch=36ee5;"
    you = "You are Claude Code."
    for system in (
        [{"type": "text", "text": line}, {"type": "text", "text": you}],
        [{"type": "text", "text": f"{line}\n{you}"}],
        f"{line}\n{you}",
    ):
        service.ok("messages", "fireworks/x", system=system)
        assert "billing" not in json.dumps(service.sent)
        assert you in json.dumps(service.sent)
        service.ok("messages", "anthropic/claude-sonnet-5-5", system=system)
        assert "billing" in json.dumps(service.sent)


MARK = {"type": "ephemeral", "scope": "global", "evict": True}


def test_a_cache_mark_has_no_fields_that_are_refused(service):
    text = {"type": "text", "text": "s", "cache_control": MARK}
    fields = {
        "system": [text],
        "messages": [{"role": "user", "content": [text]}],
        "tools": [{**CLAUDE_TOOL, "cache_control": MARK}],
        "cache_control": MARK,
    }
    service.ok("messages", CLAUDE, **fields)
    assert "global" not in json.dumps(service.sent)
    assert "evict" not in json.dumps(service.sent)
    assert "ephemeral" in json.dumps(service.sent)
    service.ok("messages", "openrouter/x", **fields)
    assert "global" not in json.dumps(service.sent)
    service.ok("messages", "groq/x", **fields)
    assert "cache_control" not in json.dumps(service.sent)


# B11: what Gemini and OpenRouter signed

SIGNED = {"google": {"thought_signature": "c2ln" * 60}}


@pytest.mark.parametrize("stream", [True, False])
@pytest.mark.parametrize("api", ["messages", "responses"])
def test_a_signature_comes_back_to_gemini_and_not_to_others(service, api, stream):
    called = element(0, ("Read", "{}"), "c1", extra_content=SIGNED)
    message = {"tool_calls": [{k: v for k, v in called.items() if k != "index"}]}
    whole = {"choices": [{"index": 0, "message": message, "finish_reason": "tool_calls"}]}
    reply = [delta(tool_calls=[called], finish="tool_calls"), "[DONE]"] if stream else whole
    tools = {"tools": [CLAUDE_TOOL if api == "messages" else FLAT_TOOL]}
    first = service.ok(api, "gemini/gemini-3-pro", reply, stream=stream, **tools)
    if api == "messages":
        ident = tool_use_id(first, stream)
        use = {"type": "tool_use", "id": ident, "name": "Read", "input": {}}
        result = {"type": "tool_result", "tool_use_id": ident, "content": "x"}
        turns = [
            *HELLO,
            {"role": "assistant", "content": [use]},
            {"role": "user", "content": [result]},
        ]
        again = {"messages": turns}
    else:
        final = events(first)[-1]["response"] if stream else first.get_json()
        (item,) = final["output"]
        output = {"type": "function_call_output", "call_id": item["call_id"], "output": "x"}
        again = {"input": [CODEX_HELLO, item, output]}
    service.ok(api, "gemini/gemini-3-pro", **tools, **again)
    call = service.sent["messages"][1]["tool_calls"][0]
    assert (call["id"], call["extra_content"]) == ("c1", SIGNED)
    assert service.sent["messages"][2]["tool_call_id"] == "c1"
    # After a failover: ids that others take, the same in call and result.
    for model in ("openai/gpt-4o", "mistral/x", CLAUDE):
        service.ok(api, model, **tools, **again)
        assert "__thought__" not in json.dumps(service.sent)
        assert "c2ln" not in json.dumps(service.sent)
    use, result = (
        service.sent["messages"][1]["content"][0],
        service.sent["messages"][2]["content"][0],
    )
    assert use["id"] == result["tool_use_id"]
    assert len(use["id"]) <= 64


def tool_use_id(response, stream):
    if not stream:
        return next(b["id"] for b in response.get_json()["content"] if b["type"] == "tool_use")
    return next(
        each["content_block"]["id"]
        for each in events(response)
        if each["type"] == "content_block_start" and each["content_block"]["type"] == "tool_use"
    )


# B12, B13, B14, B16, B17, B19, B20, B23, B30-B33


def test_limits_have_the_names_that_providers_know(service):
    service.ok("responses", "mistral/x", max_output_tokens=64)
    assert service.sent["max_tokens"] == 64
    service.ok("chat", "mistral/x", max_completion_tokens=64, max_tokens=64)
    assert (service.sent["max_tokens"], "max_completion_tokens" in service.sent) == (64, False)


@pytest.mark.parametrize(
    "model", ["deepseek/x", "mistral/x", "vllm/x", "llamacpp/x", "groq/x", "xai/x"]
)
def test_codex_rules_are_system_messages(service, model):
    rules = {
        "type": "message",
        "role": "developer",
        "content": [{"type": "input_text", "text": "r"}],
    }
    service.ok("responses", model, instructions="You are Codex.", input=[rules, CODEX_HELLO])
    roles = [message["role"] for message in service.sent["messages"]]
    assert "developer" not in roles
    assert roles[0] == "system"
    if model.startswith(("mistral", "vllm", "llamacpp")):
        assert roles == ["system", "user"]


def test_a_turn_of_calls_has_content(service):
    use = {"type": "tool_use", "id": "t", "name": "Read", "input": {}}
    thought = {"type": "thinking", "thinking": "Hm.", "signature": "c2ln"}
    result = {"type": "tool_result", "tool_use_id": "t", "content": "x"}
    for blocks in ([use], [thought, use]):
        turns = [
            *HELLO,
            {"role": "assistant", "content": blocks},
            {"role": "user", "content": [result]},
        ]
        service.ok("messages", "groq/x", messages=turns)
        assert "content" in service.sent["messages"][1]


IDS = {"mistral/x": "[a-zA-Z0-9]{9}", "openai/gpt-4o-mini": ".{1,40}"}
LONG_IDS = ["call_PTLP8xhu3uwZk4l3nlnrrJha", f"chatcmpl-tool-{'0' * 32}", f"toolu_{'a' * 32}_10"]


@pytest.mark.parametrize("ident", LONG_IDS)
@pytest.mark.parametrize("model", IDS)
def test_ids_of_others_have_a_form_that_the_provider_takes(service, model, ident):
    call = {"id": ident, "type": "function", "function": {"name": "Read", "arguments": "{}"}}
    turns = [*HELLO, {"role": "assistant", "content": None, "tool_calls": [call]}]
    turns.append({"role": "tool", "tool_call_id": ident, "content": "x"})
    service.ok("chat", model, messages=turns, tools=[TOOL])
    sent = service.sent["messages"]
    assert re.fullmatch(IDS[model], sent[1]["tool_calls"][0]["id"])
    assert sent[1]["tool_calls"][0]["id"] == sent[2]["tool_call_id"]
    # In the middle of a loop, after a failover. A success first: failures alone open the breaker.
    service.ok("chat", "groq/x")
    service.ok(
        "chat", "groq/x", (500, {"error": "boom"}), messages=turns, tools=[TOOL], models=[model]
    )
    assert service.sent["messages"][1]["tool_calls"][0]["id"] == sent[1]["tool_calls"][0]["id"]


@pytest.mark.parametrize("schema", [
    {"type": "object"}, {}, {"type": "object", "additionalProperties": False},
    {"type": "object", "$schema": "x"},
])  # fmt: skip
def test_a_tool_without_parameters_says_so(service, schema):
    service.ok("messages", "openai/gpt-4o", tools=[{"name": "help", "input_schema": schema}])
    assert service.sent["tools"][0]["function"]["parameters"]["properties"] == {}
    flat = {"type": "function", "name": "help", "parameters": schema}
    service.ok("responses", "openai/gpt-4o", tools=[flat])
    assert service.sent["tools"][0]["function"]["parameters"]["properties"] == {}
    service.ok(
        "chat",
        "openai/gpt-4o",
        tools=[{"type": "function", "function": {"name": "f", "parameters": schema}}],
    )
    assert service.sent["tools"][0]["function"]["parameters"]["properties"] == {}


APPLY = {"type": "custom", "name": "apply_patch", "description": "Edit files.", "format": {
    "type": "grammar", "syntax": "lark", "definition": "start: /.+/s"}}  # fmt: skip


@pytest.mark.parametrize("stream", [True, False])
@pytest.mark.parametrize("tools", [[APPLY], [FLAT_TOOL, APPLY]])
def test_a_freeform_tool_is_called_with_text(service, stream, tools):
    called = element(0, ("apply_patch", '{"input":"*** Begin \\"Patch\\""}'), "c")
    message = {"tool_calls": [called]}
    whole = {"choices": [{"index": 0, "message": message, "finish_reason": "tool_calls"}]}
    reply = [delta(tool_calls=[called], finish="tool_calls"), "[DONE]"] if stream else whole
    response = service.ok("responses", "groq/x", reply, tools=tools, stream=stream)
    final = events(response)[-1]["response"] if stream else response.get_json()
    (item,) = final["output"]
    assert (item["type"], item["input"]) == ("custom_tool_call", '*** Begin "Patch"')
    output = {"type": "custom_tool_call_output", "call_id": item["call_id"], "output": "Done."}
    for model in ("groq/x", CLAUDE, "anthropic/claude-sonnet-5-5", "openai/gpt-6-luna"):
        choice = {"type": "custom", "name": "apply_patch"}
        service.ok(
            "responses", model, tools=tools, tool_choice=choice, input=[CODEX_HELLO, item, output]
        )
        assert "Begin" in json.dumps(service.sent)


@pytest.mark.parametrize("api", PATHS)
def test_fireworks_is_asked_for_a_stream(service, api):
    service.ok(api, "fireworks/x", **limit(api, 20_000))
    assert service.sent["stream"] is True
    service.ok(api, "fireworks/x", **limit(api, 100))
    assert not service.sent.get("stream")


BESIDE = [(135, 9, 94, 103), (126, 94, 94, 94), (41, 9, None, 9), (60, 9, None, 28)]


@pytest.mark.parametrize(("total", "completion", "thinking", "expected"), BESIDE)
@pytest.mark.parametrize("model", ["xai/grok-4.5", "gemini/gemini-3-pro"])
def test_thinking_counts_as_output(service, model, total, completion, thinking, expected):
    usage = {"prompt_tokens": 32, "completion_tokens": completion, "total_tokens": total}
    if thinking is not None:
        usage["completion_tokens_details"] = {"reasoning_tokens": thinking}
    choice = {"index": 0, "message": {"content": "a"}, "finish_reason": "stop"}
    reply = {"choices": [choice], "usage": usage}
    assert service.ok("chat", model, reply).get_json()["usage"]["completion_tokens"] == expected
    for api in ("messages", "responses"):
        assert service.ok(api, model, reply).get_json()["usage"]["output_tokens"] == expected


@pytest.mark.parametrize(
    "model", ["llamacpp/x", "together/x", "fireworks/x", "openai/gpt-4o", CLAUDE]
)
def test_a_schema_on_top_is_taken(service, model):
    schema = {"type": "object", "properties": {"a": {"type": "string"}}, "required": ["a"]}
    service.ok(
        "chat",
        model,
        **({} if model != CLAUDE else {}),
        response_format={"type": "json_schema", "schema": schema},
    )
    assert '"a"' in json.dumps(service.sent)


@pytest.mark.parametrize(
    "name",
    ["context-1m-2025-08-07", "interleaved-thinking-2025-05-14,context-management-2025-06-27"],
)
@pytest.mark.parametrize("stream", [True, False])
def test_betas_go_to_anthropic(service, name, stream):
    headers = {"anthropic-beta": name}
    service.ok("messages", CLAUDE, headers=headers, stream=stream)
    sent = {key.lower(): value for key, value in service.provider.request.headers.items()}
    assert sent["anthropic-beta"] == name
    response = service.ok("messages", "groq/x", headers=headers, stream=stream)
    assert "anthropic-beta" not in {key.lower() for key in service.provider.request.headers}
    assert ignored(response) == {"anthropic-beta"}


@pytest.mark.parametrize("name", ["mcp__" + "s" * 60 + "__" + "t" * 60, "files.read (all)", "日本"])
@pytest.mark.parametrize("model", ["groq/x", "openai/gpt-6-luna", "vllm/x"])
@pytest.mark.parametrize("stream", [True, False])
@pytest.mark.parametrize("api", PATHS)
def test_any_name_of_a_tool_works(service, api, model, stream, name):
    tools = {
        "chat": {"type": "function", "function": {"name": name, "parameters": SCHEMA}},
        "messages": {"name": name, "input_schema": SCHEMA},
        "responses": {"type": "function", "name": name, "parameters": SCHEMA},
    }
    service.ok(api, model, tools=[tools[api]])
    sent = service.sent["tools"][0]["function"]["name"]
    assert len(sent) <= 64
    assert sent.isascii()
    called = element(0, (sent, '{"path":"a"}'), "c")
    whole = {
        "choices": [
            {"index": 0, "message": {"tool_calls": [called]}, "finish_reason": "tool_calls"}
        ]
    }
    reply = [delta(tool_calls=[called], finish="tool_calls"), "[DONE]"] if stream else whole
    response = service.ok(api, model, reply, tools=[tools[api]], stream=stream)
    assert calls_of(api, stream, response) == [(name, '{"path":"a"}')]


# Siblings: other forms of answers


def chunk_of_perplexity(piece, so_far, finish=None):
    choice = {"index": 0, "finish_reason": finish}
    choice["message"] = {"role": "assistant", "content": so_far}
    choice["delta"] = {"role": "assistant", "content": piece}
    return {"choices": [choice], "citations": ["https://a.example"], "object": "chat.completion"}


@pytest.mark.parametrize("end", [["[DONE]"], []])
def test_a_stream_that_repeats_the_message_so_far_says_it_once(service, end):
    reply = [chunk_of_perplexity("Par", "Par"), chunk_of_perplexity("is", "Paris", "stop"), *end]
    response = service.ok("chat", "perplexity/sonar", reply, stream=True)
    told = [each["choices"][0]["delta"].get("content") for each in events(response)]
    assert "".join(filter(None, told)) == "Paris"
    assert events(response)[0]["citations"] == ["https://a.example"]


PARTS_OF_MISTRAL = [
    {"type": "thinking", "thinking": [{"type": "text", "text": "Hm."}]},
    {"type": "text", "text": "Paris"},
]


@pytest.mark.parametrize("stream", [True, False])
def test_content_in_parts_is_text_and_thinking(service, stream):
    choice = {"index": 0, "message": {"content": PARTS_OF_MISTRAL}, "finish_reason": "stop"}
    streamed = [delta(content=PARTS_OF_MISTRAL, finish="stop"), "[DONE]"]
    reply = streamed if stream else {"choices": [choice]}
    response = service.ok("chat", "mistral/x", reply, stream=stream)
    answer = events(response)[0] if stream else response.get_json()
    message = answer["choices"][0]["delta" if stream else "message"]
    assert (message["content"], message["reasoning_content"]) == ("Paris", "Hm.")


def test_half_a_surrogate_costs_one_character(service):
    broken = r'{"choices":[{"index":0,"delta":{"content":"a\ud83d b"}}]}'
    reply = [broken, delta(finish="stop"), "[DONE]"]
    for api in PATHS:
        text = service.ok(api, "groq/x", reply, stream=True).get_data(as_text=True)
        assert "a\ufffd b" in text or r"a\ufffd b" in text
        assert "error" not in text.replace('"error":null', "")


@pytest.mark.parametrize("api", PATHS)
@pytest.mark.parametrize("chunks", PARALLEL[1:3])
def test_two_calls_of_a_whole_answer_stay_two(service, api, chunks):
    calls = [call for each in chunks for call in each["choices"][0]["delta"]["tool_calls"]]
    for call in calls:
        call.pop("type", None)
    choice = {"index": 0, "message": {"tool_calls": calls}, "finish_reason": "stop"}
    response = service.ok(api, "groq/x", {"choices": [choice]})
    assert calls_of(api, False, response) == [ROME, UTC]


# Siblings: what clients send back, or leave empty, in every form that they do

MODELS = [
    CLAUDE,
    "anthropic/claude-sonnet-5-5",
    "openai/gpt-6-luna",
    "mistral/x",
    "vllm/x",
    "gemini/x",
]
CALL = {"id": "c1", "type": "function", "function": {"name": "Read", "arguments": "{}"}}
DONE = {"role": "tool", "tool_call_id": "c1", "content": "x"}


def after(*messages):
    return {"messages": [*HELLO, *messages, *HELLO], "tools": [TOOL]}


def answered(**fields):
    return after({"role": "assistant", **fields})


def looped(**fields):
    return after({"role": "assistant", "content": None, "tool_calls": [CALL]}, {**DONE, **fields})


CHAT = [
    answered(content=None),
    answered(),
    answered(content=[]),
    answered(content="", tool_calls=[]),
    answered(content=[{"type": "text", "text": ""}]),
    answered(content="a", refusal=None, annotations=[], audio=None, function_call=None),
    answered(content="a", reasoning_content="Hm."),
    answered(content="a", reasoning="Hm."),
    answered(content="a", reasoning_details=[{"type": "reasoning.text", "text": "Hm."}]),
    answered(content="a", thinking_blocks=[{"type": "thinking", "thinking": "Hm."}]),
    answered(content=None, refusal="No."),
    answered(content=[{"type": "refusal", "refusal": "No."}]),
    answered(content="a", provider_specific_fields={"x": 1}, images=[]),
    looped(),
    looped(content=None),
    looped(content=""),
    looped(content=[{"type": "text", "text": "x"}], name="Read"),
    after({"role": "assistant", "tool_calls": [{**CALL, "index": 0, "function": {
        "name": "Read", "arguments": None}}]}, DONE),
    after({"role": "assistant", "tool_calls": [{**CALL, "function": {
        "name": "Read", "arguments": '{"a": 1'}}]}, DONE),
    after({"role": "system", "content": "later"}),
    after({"role": "developer", "content": [{"type": "text", "text": "later"}]}),
    {"messages": [{"role": "system", "content": "a"}, {"role": "system", "content": "b"}, *HELLO]},
    {"messages": [*HELLO, *HELLO]},
    {"tools": None, "tool_choice": None, "stream_options": None, "max_tokens": None, "user": None},
    {"tools": [], "tool_choice": "auto", "parallel_tool_calls": False, "functions": []},
    {"tools": [TOOL], "tool_choice": "none"},
    {"tools": [TOOL], "tool_choice": "required", "reasoning_effort": "high"},
    {"tools": [TOOL], "tool_choice": {"type": "function", "function": {"name": "Read"}}},
    {"response_format": {"type": "text"}},
    {"temperature": 2, "top_p": 0, "presence_penalty": 1, "frequency_penalty": -1, "seed": 1},
    {"stop": ["a", "b", "c", "d"], "reasoning_effort": "xhigh", "verbosity": "low", "user": "u"},
    {"reasoning": {"effort": "low"}, "thinking": {"type": "enabled"}, "magic": 1},
]  # fmt: skip


@pytest.mark.parametrize("fields", CHAT, ids=lambda fields: json.dumps(fields)[-60:])
@pytest.mark.parametrize("model", MODELS)
def test_no_chat_request_locks_a_session(service, model, fields):
    assert service.call("chat", model, **fields).status_code == 200


USE = {"type": "tool_use", "id": "t1", "name": "Read", "input": {}}


def turns(*blocks, **fields):
    return {"messages": [*HELLO, {"role": "assistant", "content": list(blocks)}, *HELLO], **fields}


def results(*blocks, use=USE):
    answer = {"role": "user", "content": list(blocks)}
    return {"messages": [*HELLO, {"role": "assistant", "content": [use]}, answer]}


RESULT = {"type": "tool_result", "tool_use_id": "t1"}
TEXT = {"type": "text", "text": "a"}
MESSAGES = [
    turns(),
    turns({"type": "text", "text": ""}),
    turns({"type": "thinking", "thinking": "Hm.", "signature": ""}, TEXT),
    turns({"type": "thinking", "thinking": "Hm."}, TEXT),
    turns({"type": "thinking", "thinking": "", "signature": "c2ln"}, TEXT),
    turns({"type": "redacted_thinking", "data": "c2ln"}, TEXT),
    turns({"type": "redacted_thinking", "data": "reasoning_details:W10"}, TEXT),
    turns({"type": "fallback", "from": "x"}, TEXT),
    turns({"type": "compaction", "content": "It was about Paris."}, TEXT),
    turns({**TEXT, "citations": None, "cache_control": None}),
    turns({**TEXT, "citations": [{"type": "web_search_result_location", "url": "x"}]}),
    results(RESULT),
    results({**RESULT, "content": None}),
    results({**RESULT, "content": []}),
    results({**RESULT, "content": "x", "is_error": True, "cache_control": None}),
    results(TEXT, {**RESULT, "content": "x"}),
    results({**RESULT, "content": [{"type": "image", "source": {
        "type": "base64", "media_type": "image/png", "data": "iVBORw0KGgo="}}]}),
    results({**RESULT, "content": [{"type": "document", "source": {
        "type": "text", "media_type": "text/plain", "data": "x"}}]}),
    results({**RESULT, "content": "x"}, use={**USE, "caller": {"type": "direct"}}),
    {"system": None, "tools": None, "tool_choice": None, "metadata": None, "thinking": None},
    {"system": [], "stop_sequences": None, "temperature": None, "top_p": None},
    {"system": [{"type": "text", "text": ""}], "tools": []},
    {"tools": [{**CLAUDE_TOOL, "defer_loading": True, "eager_input_streaming": True}]},
    {"tools": [{**CLAUDE_TOOL, "strict": None, "input_examples": []}]},
    {"tools": [{"type": "web_search_20250305", "name": "web_search", "max_uses": 8}]},
    {"tools": [{"type": "custom", **CLAUDE_TOOL}], "tool_choice": {"type": "any"}},
    {"thinking": {"type": "adaptive"}, "output_config": {"effort": "high"}, "temperature": 1},
    {"thinking": {"type": "enabled", "budget_tokens": 1024}, "max_tokens": 4096, "top_k": 5},
    {"thinking": {"type": "disabled"}, "context_management": {"edits": []}, "speed": "fast"},
    {"service_tier": "auto", "metadata": {"user_id": '{"device_id":"d"}'}},
    {"stop_sequences": ["a"] * 9},
    {"messages": [{"role": "user", "content": []}, *HELLO]},
    {"messages": [{"role": "user", "content": [{"type": "text", "text": " "}]}, *HELLO]},
    {"messages": [*HELLO, {"role": "assistant", "content": "The answer is"}]},
    {"messages": [*HELLO, {"role": "system", "content": [TEXT], "output_config": {}}]},
]  # fmt: skip


@pytest.mark.parametrize("fields", MESSAGES, ids=lambda fields: json.dumps(fields)[-60:])
@pytest.mark.parametrize("model", MODELS)
def test_no_request_of_claude_code_locks_a_session(service, model, fields):
    assert service.call("messages", model, **fields).status_code == 200


def items(*values, **fields):
    return {"input": [CODEX_HELLO, *values, CODEX_HELLO], **fields}


def said(*content, **fields):
    return {"type": "message", "role": "assistant", "content": list(content), **fields}


FLAT_CALL = {"type": "function_call", "call_id": "c1", "name": "Read", "arguments": "{}"}
OUTPUT = {"type": "function_call_output", "call_id": "c1"}
RESPONSES = [
    items(said({"type": "output_text", "text": "a", "annotations": [], "logprobs": []})),
    items(said(id="msg_1", status="completed", phase="final_answer")),
    items(said({"type": "refusal", "refusal": "No."})),
    items(said({"type": "output_text", "text": ""})),
    items({"type": "reasoning", "id": "rs_1", "summary": []}),
    items({"type": "reasoning", "summary": [], "encrypted_content": None, "content": None}),
    items({"type": "reasoning", "summary": [], "encrypted_content": "gAAAAof-another"}),
    items({"type": "reasoning", "summary": [{"type": "summary_text", "text": "Hm."}]}),
    items(FLAT_CALL, {**OUTPUT, "output": "x"}),
    items(FLAT_CALL, {**OUTPUT, "output": ""}),
    items(FLAT_CALL, {**OUTPUT, "output": []}),
    items({**FLAT_CALL, "id": "fc_1", "status": "completed"}, {**OUTPUT, "output": "x"}),
    items(FLAT_CALL, {**OUTPUT, "output": [{"type": "input_text", "text": "x"}]}),
    items(FLAT_CALL, {**OUTPUT, "output": [{"type": "input_image", "image_url": PNG}]}),
    items({**FLAT_CALL, "namespace": "mcp__docs__"}, {**OUTPUT, "output": "x"}),
    items({"role": "user", "content": [{"type": "input_image", "image_url": PNG}]}),
    items({"role": "system", "content": "later"}),
    items({"role": "user", "content": ""}),
    items({"type": "message", "role": "user", "content": []}),
    items({"type": "custom_tool_call", "call_id": "c2", "name": "apply_patch", "input": "x"},
          {"type": "custom_tool_call_output", "call_id": "c2", "output": "x"}),
    items({"type": "item_of_next_year"}, include=["reasoning.encrypted_content"], store=False),
    {"instructions": None, "tools": None, "tool_choice": None, "reasoning": None, "text": None},
    {"instructions": "", "tools": [], "reasoning": {"effort": None, "summary": None}},
    {"reasoning": {"effort": "high", "summary": "auto"}, "text": {"verbosity": "low"}},
    {"text": {"format": {"type": "text"}, "verbosity": None}, "stream": True},
    {"prompt_cache_key": "s-1", "service_tier": "auto", "client_metadata": {"a": "b"}, "user": "u"},
    {"truncation": "auto", "metadata": {"a": "b"}, "max_tool_calls": 3, "top_logprobs": 0},
    {"tools": [FLAT_TOOL], "tool_choice": "required", "parallel_tool_calls": False},
    {"tools": [{"type": "mcp", "server_label": "x", "server_url": "https://x.example"}, FLAT_TOOL]},
]  # fmt: skip


@pytest.mark.parametrize("fields", RESPONSES, ids=lambda fields: json.dumps(fields)[-60:])
@pytest.mark.parametrize("model", MODELS)
def test_no_request_of_codex_locks_a_session(service, model, fields):
    assert service.call("responses", model, **fields).status_code == 200
