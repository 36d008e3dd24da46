"""Recognizes a request that was sent to the endpoint of another API."""

from __future__ import annotations

from typing import Any

NAMES = {
    "/chat/completions": "OpenAI's chat completions",
    "/responses": "OpenAI's Responses API",
    "/messages": "Anthropic's Messages API",
}
ANTHROPIC_BLOCKS = ("tool_use", "tool_result", "image", "document", "thinking")
RESPONSES_PARTS = ("input_text", "input_image", "input_file", "output_text")


def hint(data: Any, path: str) -> str:
    """A sentence that names the right endpoint; "" if the request may belong to that of `path`."""
    other = endpoint(data)
    if other is None or other == path:
        return ""
    return f" The request has the form of {NAMES[other]}: send it to {other}."


def endpoint(data: Any) -> str | None:
    """The path of the endpoint that takes requests of this form; None if it is not clear."""
    if not isinstance(data, dict):
        return None
    for tool in _objects(data.get("tools")):
        if isinstance(tool.get("input_schema"), dict):
            return "/messages"
        if tool.get("type") == "function":
            return "/chat/completions" if "function" in tool else "/responses"
    if "messages" not in data:
        return "/responses" if "input" in data else None
    for message in _objects(data["messages"]):
        for part in _objects(message.get("content")):
            if part.get("type") in ANTHROPIC_BLOCKS:
                return "/messages"
            if part.get("type") in RESPONSES_PARTS:
                return "/responses"
    if "input" in data:
        return None
    return "/messages" if "system" in data else "/chat/completions"


def _objects(values: Any) -> list[dict[str, Any]]:
    return [each for each in values if isinstance(each, dict)] if isinstance(values, list) else []
