"""Reasoning that a client keeps for us between two calls: both ends of `encrypted_content`.

Anthropic wants the blocks of its thinking back, unchanged, with the results of the tools that it
called. Nothing is stored here, so they travel in the one field that clients hand back unread. It is
encoded and not encrypted: Anthropic signs its thinking, and encrypts what it does not want seen.
"""

from __future__ import annotations

import binascii
from base64 import b64decode, urlsafe_b64encode
from typing import Any

import orjson

from gateway import strict_json
from gateway.errors import InvalidRequest

PREFIX = "thinking.1."  # what others wrote, OpenAI's own among it, begins otherwise

ThinkingBlock = dict[str, Any]

FIELDS = {"thinking": ("thinking", "signature"), "redacted_thinking": ("data",)}


def sealed(blocks: list[ThinkingBlock]) -> str:
    """These thinking blocks as the `encrypted_content` of a reasoning item."""
    return PREFIX + urlsafe_b64encode(orjson.dumps(blocks)).decode()


def unsealed(text: str) -> list[ThinkingBlock]:
    """The thinking blocks that `sealed` made the text of.

    Nothing for the text of another service, which no provider here could read: a conversation
    that began elsewhere may go on. Raises ValueError for a damaged text of our own.
    """
    if not text.startswith(PREFIX):
        return []
    try:
        blocks = strict_json.loads(b64decode(text[len(PREFIX) :], altchars=b"-_", validate=True))
    except binascii.Error as error:
        raise ValueError("no base64") from error
    except InvalidRequest as error:
        raise ValueError("no JSON, or more than a request may hold") from error
    if not isinstance(blocks, list):
        raise ValueError("no list of blocks")
    return [_checked(block) for block in blocks]


def _checked(block: Any) -> ThinkingBlock:
    """Only what belongs to a block: the text comes from a client, whatever it looks like."""
    kind = block.get("type") if isinstance(block, dict) else None
    fields = FIELDS.get(kind) if isinstance(kind, str) else None
    if fields is None:
        raise ValueError("no thinking block")
    made = {"type": kind, **{name: block.get(name, "") for name in fields}}
    if not all(isinstance(value, str) for value in made.values()):
        raise ValueError("no text where text belongs")
    return made
