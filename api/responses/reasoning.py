"""Reasoning that a client keeps between two calls: encodes and decodes `encrypted_content`.

Anthropic requires its thinking blocks back, unchanged, with the results of the tools that it
called. This service stores nothing, so the blocks travel in the one field that clients return
unread. It is encoded and not encrypted: Anthropic signs its thinking, and encrypts what must not be
seen.
"""

from __future__ import annotations

import binascii
from base64 import b64decode, urlsafe_b64encode
from typing import Any

import orjson

from gateway import strict_json
from gateway.errors import InvalidRequest

PREFIX = "thinking.1."  # values of other services, OpenAI's included, begin otherwise

ThinkingBlock = dict[str, Any]

FIELDS = {"thinking": ("thinking", "signature"), "redacted_thinking": ("data",)}


def sealed(blocks: list[ThinkingBlock]) -> str:
    """These thinking blocks as the `encrypted_content` of a reasoning item."""
    return PREFIX + urlsafe_b64encode(orjson.dumps(blocks)).decode()


def unsealed(text: str) -> list[ThinkingBlock]:
    """The thinking blocks from the text that `sealed` returned.

    None of them from the text of another service, which no provider here can read: a conversation
    that began elsewhere can continue. Raises ValueError for a damaged text of this service.
    """
    if not text.startswith(PREFIX):
        return []
    try:
        blocks = strict_json.loads(b64decode(text[len(PREFIX) :], altchars=b"-_", validate=True))
    except binascii.Error as error:
        raise ValueError("not base64") from error
    except InvalidRequest as error:
        raise ValueError("not JSON, or over the limits of a request") from error
    if not isinstance(blocks, list):
        raise ValueError("not a list of blocks")
    return [_checked(block) for block in blocks]


def _checked(block: Any) -> ThinkingBlock:
    """A copy with the fields of a thinking block only, since the text comes from a client."""
    kind = block.get("type") if isinstance(block, dict) else None
    fields = FIELDS.get(kind) if isinstance(kind, str) else None
    if fields is None:
        raise ValueError("not a thinking block")
    copy = {"type": kind, **{name: block.get(name, "") for name in fields}}
    if not all(isinstance(value, str) for value in copy.values()):
        raise ValueError("a field is not a string")
    return copy
