"""How embeddings look on the wire: OpenAI's list, its vectors as numbers or in base64."""

from __future__ import annotations

import base64
import struct
from typing import Any

import gevent
import orjson

from api.http import errors
from gateway.errors import GatewayError

FLOAT = 4  # bytes
TURN = 16  # vectors made into numbers before others have their turn: some milliseconds


class Embeddings:
    """Renders the embeddings of one call; there are no streams of them.

    `as_numbers` is what the caller wants: a worker sends base64 where the provider knows it, and
    numbers only where it does not.
    """

    def __init__(self, call_id: str, model: str, as_numbers: bool = True) -> None:
        self._model, self._as_numbers = model, as_numbers

    def whole(self, answer: bytes) -> bytes:
        """OpenAI's list of embeddings."""
        head = orjson.dumps({"object": "list", "model": self._model})[:-1] + b","
        return with_numbers(head, answer) if self._as_numbers else head + answer[1:]

    def whole_error(self, error: GatewayError) -> bytes:
        """The error's envelope."""
        return errors.body(error)


def with_numbers(head: bytes, answer: bytes) -> bytes:
    """`head`, then the answer's fields with base64 vectors (little-endian float32) as numbers."""
    part: dict[str, Any] = orjson.loads(answer)
    pieces = [head]
    # Joined once, at the end: a large batch is 130 MB as numbers.
    for position, item in enumerate(part.pop("data")):
        if isinstance(item["embedding"], str):
            item["embedding"] = _numbers(item["embedding"])
        pieces += (b"," if position else b'"data":[', orjson.dumps(item))
        item.clear()
        if position % TURN == 0:
            gevent.sleep(0)
    rest = orjson.dumps(part)
    pieces += (b"]", b"," if part else b"", rest[1:])
    return b"".join(pieces)


def _numbers(vector: str) -> tuple[float, ...]:
    raw = base64.b64decode(vector)
    return struct.unpack(f"<{len(raw) // FLOAT}f", raw)
