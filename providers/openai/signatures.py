"""What an upstream wants back with the next request, and other APIs have no field for.

Gemini signs its tool calls (`extra_content`): the signature travels in the call's id, which every
client sends back. OpenRouter's `reasoning_details` travel in a `redacted_thinking` block, which
clients send back as it is.
"""

from __future__ import annotations

from base64 import urlsafe_b64decode, urlsafe_b64encode
from collections.abc import Iterable, Mapping
from typing import Any

import orjson

from gateway.chat import Chunk

_IN_ID = "__thought__"
_IN_BLOCK = "reasoning_details:"  # the colon is none of Anthropic's: its wire leaves the block out


def signed_id(ident: str, extra_content: Any) -> str:
    """Return the id of a tool call with the upstream's `extra_content`, if there is any, in it."""
    if not isinstance(extra_content, dict) or not extra_content:
        return ident
    return f"{ident}{_IN_ID}{_encode(extra_content)}"


def split_id(ident: str) -> tuple[str, Chunk | None]:
    """Return the upstream's own id of a tool call, and the `extra_content` that is in it."""
    own, mark, code = ident.partition(_IN_ID)
    if not mark:
        return ident, None
    value = _decode(code)
    return own, value if isinstance(value, dict) else None


def block_of(reasoning_details: list[Any]) -> Chunk:
    """Return the block of thinking that holds these details."""
    return {"type": "redacted_thinking", "data": _IN_BLOCK + _encode(reasoning_details)}


def details_in(blocks: Iterable[Mapping[str, Any]]) -> list[Any]:
    """Return the `reasoning_details` in an assistant's blocks of thinking."""
    details: list[Any] = []
    for block in blocks:
        data = block.get("data")
        if isinstance(data, str) and data.startswith(_IN_BLOCK):
            value = _decode(data.removeprefix(_IN_BLOCK))
            details += value if isinstance(value, list) else []
    return details


def _encode(value: Any) -> str:
    return urlsafe_b64encode(orjson.dumps(value)).decode().rstrip("=")


def _decode(code: str) -> Any:
    try:
        return orjson.loads(urlsafe_b64decode(code + "=" * (-len(code) % 4)))
    except ValueError:  # of base64 and of JSON
        return None
