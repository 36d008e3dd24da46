"""Embeddings without a network: made from a hash of the text, so they have no meaning."""

from __future__ import annotations

import hashlib
import math
import struct
from collections.abc import Mapping, Sequence
from typing import Any

import orjson

from gateway.chat import Chunk
from gateway.errors import UpstreamRejected
from providers.openai.embeddings import base64_of, texts

DIMENSIONS = 256
MAX_DIMENSIONS = 3072
LETTERS = 4  # in a token, about


def embeddings(parameters: Mapping[str, Any]) -> Chunk:
    """Return a vector of length 1 for each input, in base64: the same for the same text.

    Raises UpstreamRejected for more than MAX_DIMENSIONS.
    """
    dimensions = parameters.get("dimensions") or DIMENSIONS
    if dimensions > MAX_DIMENSIONS:
        raise UpstreamRejected(
            f"This model supports at most {MAX_DIMENSIONS} dimensions, not {dimensions}.",
            param="dimensions",
            code="invalid_value",
        )
    inputs = texts(parameters["input"])
    tokens = sum(map(_tokens, inputs))
    return {
        "data": [
            {
                "object": "embedding",
                "index": index,
                "embedding": base64_of(vector(text, dimensions)),
            }
            for index, text in enumerate(inputs)
        ],
        "usage": {"prompt_tokens": tokens, "total_tokens": tokens},
    }


def vector(text: str | Sequence[int], dimensions: int) -> list[float]:
    """Return a vector of length 1 that depends on the text, or on its tokens.

    As with OpenAI's models, fewer dimensions are the first ones of more, scaled to length 1.
    """
    noise = hashlib.shake_256(orjson.dumps(text)).digest(2 * dimensions)
    numbers = struct.unpack(f"<{dimensions}h", noise)
    length = math.hypot(*numbers) or 1.0
    return [number / length for number in numbers]


def _tokens(text: str | Sequence[int]) -> int:
    return max(len(text) // LETTERS, 1) if isinstance(text, str) else len(text)
