"""What of our own vocabulary each OpenAI-compatible upstream gets."""

import json

import pytest

from gateway.chat import ChatCall
from providers.openai import OpenAIWire

CACHE = {"type": "ephemeral"}
THOUGHT = [{"type": "thinking", "thinking": "Hm.", "signature": "c2ln"}]
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


def sent(base_url, messages=MESSAGES, **parameters):
    call = ChatCall("m", {"messages": messages, **parameters})
    return json.loads(OpenAIWire(base_url).request(call).body)


@pytest.mark.parametrize(
    ("base_url", "thinking", "cache"),
    [
        ("https://api.openai.com/v1", False, False),
        ("https://api.groq.com/openai/v1", False, False),
        ("https://api.mistral.ai/v1", False, False),
        ("https://api.deepseek.com/v1", True, False),
        ("https://openrouter.ai/api/v1", True, True),
        ("http://127.0.0.1:8000/v1", True, False),
    ],
)
def test_an_upstream_gets_the_extensions_that_it_takes(base_url, thinking, cache):
    user, assistant, _ = sent(base_url)["messages"]
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
    body = sent("https://api.openai.com/v1", messages, tools=tools)
    assert json.dumps([messages, tools]) == before
    assert body["tools"] == [{"type": "function", "function": {"name": "f"}}]
    assert [message["role"] for message in body["messages"][-2:]] == ["tool", "user"]


def test_a_tool_without_text_still_answers():
    result = {"role": "tool", "tool_call_id": "a", "content": []}
    assert sent("http://x", [result])["messages"] == [{**result, "content": ""}]
