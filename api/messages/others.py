"""Text in place of content that only its vendor can serve, so that no history is refused.

Claude Code keeps such blocks in its history for good: a refused one would end the session.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any, TypeAlias

import orjson

Data: TypeAlias = Mapping[str, Any]

# Claude Code begins its system prompt with a line for Anthropic's accounts, which differs in every
# request: it would keep other providers' caches cold. Source: github.com/anthropics/claude-code,
# issue 68900.
BILLING = re.compile(r"\s*x-anthropic-billing-header:[^\n]*\n*")
# Fields of blocks with text for the model, in reading order. Others hold ids and encrypted data.
READABLE = ("title", "url", "text", "stdout", "stderr", "error_code", "source", "content")
AVAILABLE = {
    "tool_reference": "The tool `{}` is available.",
    "tool_addition": "The tool `{}` is available from here on.",
    "tool_removal": "The tool `{}` is no longer available.",
}


def text_of(block: Data) -> str:
    """The text of a block of another type than this API serves; empty if it has none."""
    kind = block["type"]
    if kind in AVAILABLE:
        inner = block.get("tool")
        tool = inner if isinstance(inner, dict) else block
        name = tool.get("tool_name") or tool.get("name")
        return AVAILABLE[kind].format(name) if isinstance(name, str) and name else ""
    if kind.endswith("tool_use") and isinstance(block.get("name"), str):
        return f"[{block['name']}: {orjson.dumps(block.get('input')).decode()}]"
    return "\n".join(text for text in _readable(block) if text.strip())


def without_billing(content: Any) -> Any:
    """A system prompt without the line for Anthropic's accounts at its beginning."""
    if isinstance(content, str):
        return BILLING.sub("", content, count=1) if BILLING.match(content) else content
    return [clean for block in content if (clean := _without_billing(block))]


def _without_billing(block: Data) -> Data | None:
    text = block.get("text")
    if not isinstance(text, str) or not BILLING.match(text):
        return block
    rest = BILLING.sub("", text, count=1)
    return {**block, "text": rest} if rest.strip() else None


def _readable(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, list):
        for each in value:
            yield from _readable(each)
    elif isinstance(value, dict) and value.get("type") != "base64":
        for name in READABLE:
            yield from _readable(value.get(name))
