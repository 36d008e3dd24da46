"""What of our own vocabulary each OpenAI-compatible upstream gets."""

import json

import pytest

from gateway.catalogue.catalogue import Catalogue
from gateway.chat import ChatCall
from gateway.settings import Settings
from providers.base import WireOptions
from providers.openai.chat import OpenAIWire

CACHE = {"type": "ephemeral"}
THOUGHT = [{"type": "thinking", "thinking": "Hm.", "signature": "c2ln"}]
PROVIDERS = Catalogue.load(Settings()).providers
MESSAGES = [
    {"role": "user", "content": [{"type": "text", "text": "Hi", "cache_control": CACHE}]},
    {
        "role": "assistant",
        "content": "Hello",
        "reasoning_content": "Hm.",
        "thinking_blocks": THOUGHT,
    },
    {"role": "user", "content": "Go on."},
]


def sent(provider="openai", messages=MESSAGES, **parameters):
    call = ChatCall("m", {"messages": messages, **parameters})
    options = WireOptions(PROVIDERS[provider].accepts)
    return json.loads(OpenAIWire("http://x", options=options).request(call).body)


@pytest.mark.parametrize(
    ("provider", "thinking", "cache"),
    [
        ("openai", False, False),
        ("groq", False, False),
        ("mistral", False, False),
        ("deepseek", True, False),
        ("openrouter", True, True),
        ("vllm", True, False),
    ],
)
def test_an_upstream_gets_the_extensions_that_it_keeps(provider, thinking, cache):
    user, assistant, _ = sent(provider)["messages"]
    assert ("reasoning_content" in assistant) is thinking
    assert ("cache_control" in user["content"][0]) is cache
    assert "thinking_blocks" not in assistant
    assert (assistant["content"], user["content"][0]["text"]) == ("Hello", "Hi")


def test_the_call_itself_is_not_changed():
    messages = [
        *MESSAGES,
        {
            "role": "tool",
            "tool_call_id": "a",
            "is_error": True,
            "content": [{"type": "image_url", "image_url": {"url": "https://a.example/b.png"}}],
        },
    ]
    tools = [{"type": "function", "function": {"name": "f"}, "cache_control": CACHE}]
    before = json.dumps([messages, tools])
    body = sent("openai", messages, tools=tools)
    assert json.dumps([messages, tools]) == before
    assert body["tools"] == [{"type": "function", "function": {"name": "f"}}]
    assert [message["role"] for message in body["messages"][-2:]] == ["tool", "user"]


def test_a_tool_without_text_still_answers():
    result = {"role": "tool", "tool_call_id": "a", "content": []}
    assert sent(messages=[result])["messages"] == [{**result, "content": ""}]
