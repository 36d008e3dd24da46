"""Renders embeddings: OpenAI's list, its vectors as numbers or in base64."""

from __future__ import annotations

import base64
import struct
from typing import Any

import orjson

from api.http import errors
from api.reply import Renderer
from gateway.errors import GatewayError
from gateway.stalls import give_turn

FLOAT_BYTES = 4
VECTORS_A_TURN = 16  # decoded before other requests run: some milliseconds


class EmbeddingsRenderer(Renderer):
    """Renders the embeddings of one call, which are never streamed.

    A worker sends base64, or numbers where the provider has nothing else. `as_numbers` says which
    of the two the caller wants.
    """

    api = "embeddings"

    def __init__(
        self,
        call_id: str,
        model: str,
        as_numbers: bool = True,
        created: int = 0,
        prompt_tokens: int = 0,
    ) -> None:
        self._model, self._as_numbers = model, as_numbers

    def whole(self, result: bytes) -> bytes:
        """OpenAI's list of embeddings."""
        head = orjson.dumps({"object": "list", "model": self._model})[:-1] + b","
        return with_numbers(head, result) if self._as_numbers else head + result[1:]

    def whole_error(self, error: GatewayError) -> bytes:
        """OpenAI's error envelope."""
        return errors.body(error)


def with_numbers(head: bytes, result: bytes) -> bytes:
    """`head` and the result's fields, with base64 vectors (little-endian float32) as numbers."""
    fields: dict[str, Any] = orjson.loads(result)
    pieces = [head]
    # Joined once, at the end: a large batch is 130 MB as numbers.
    for position, item in enumerate(fields.pop("data")):
        if isinstance(item["embedding"], str):
            item["embedding"] = _numbers(item["embedding"])
        pieces += (b"," if position else b'"data":[', orjson.dumps(item))
        item.clear()
        if position % VECTORS_A_TURN == VECTORS_A_TURN - 1:
            give_turn()
    rest = orjson.dumps(fields)
    pieces += (b"]", b"," if fields else b"", rest[1:])
    return b"".join(pieces)


def _numbers(vector: str) -> tuple[float, ...]:
    raw = base64.b64decode(vector)
    return struct.unpack(f"<{len(raw) // FLOAT_BYTES}f", raw)
