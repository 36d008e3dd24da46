"""Reads a stream of Anthropic's Messages API as strictly as its documentation writes it."""

from __future__ import annotations

import json
from typing import Any

GROWING = {
    "text": {"text_delta": "text"},
    "thinking": {"thinking_delta": "thinking", "signature_delta": "signature"},
    "tool_use": {"input_json_delta": "partial"},
    "redacted_thinking": {},
}


def events(data: bytes) -> list[dict[str, Any]]:
    """The events of a whole stream; each has its name twice, and comments are left out."""
    found = []
    blocks = data.decode().split("\n\n")
    assert blocks.pop() == ""
    for block in blocks:
        if block.startswith(":"):
            continue
        name, line = block.split("\n")
        event = json.loads(line.removeprefix("data: "))
        assert name == f"event: {event['type']}"
        found.append(event)
    return found


def message(stream: list[dict[str, Any]]) -> dict[str, Any]:
    """The message that a stream adds up to; fails for an event out of order."""
    first, *rest = stream
    assert first["type"] == "message_start"
    made = first["message"]
    assert made["content"] == []
    assert made["stop_reason"] is None
    block: dict[str, Any] | None = None
    while rest[0]["type"] != "message_delta":
        event = rest.pop(0)
        if event["type"] == "ping":
            continue
        if event["type"] == "content_block_start":
            assert block is None, "two blocks are open"
            block = event["content_block"] | {"partial": ""}
            made["content"].append(block)
        assert event["index"] == len(made["content"]) - 1
        assert block is not None, "no block is open"
        if event["type"] == "content_block_delta":
            field = GROWING[block["type"]][event["delta"]["type"]]
            sent = next(value for key, value in event["delta"].items() if key != "type")
            assert sent, "an empty delta"
            block[field] += sent
        elif event["type"] == "content_block_stop":
            partial = block.pop("partial")
            if block["type"] == "tool_use":
                assert block["input"] == {}
                block["input"] = json.loads(partial or "{}")
            block = None
    assert block is None, "the last block is open"
    last, stop = rest
    assert stop == {"type": "message_stop"}
    return made | last["delta"] | {"usage": made["usage"] | last["usage"]}
