"""Embeddings of OpenAI and of compatible upstreams."""

from __future__ import annotations

import binascii
import struct
from base64 import b64encode
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from gateway.chat import Chunk
from gateway.errors import UpstreamBadResponse, UpstreamRejected
from providers.base import Endpoint, Request
from providers.error_reports import reports_error
from providers.errors import rejection_inside

# Fields that are not copied: identity, and those that are checked first.
OWN = frozenset({"id", "object", "created", "model", "data", "usage", "error"})
FLOAT = 4  # bytes


class OpenAIEmbeddings:
    """The embeddings dialect of OpenAI and of compatible upstreams."""

    def __init__(
        self, base_url: str, api_key: str = "", headers: Mapping[str, str] | None = None
    ) -> None:
        self._endpoint = Endpoint.build(base_url, "/embeddings", api_key, headers)

    def request(self, model: str, parameters: Mapping[str, Any], plain: bool = False) -> Request:
        """Return what to send: it asks for base64, a quarter of the size of numbers.

        `plain` leaves the encoding to the upstream, which then returns numbers.
        """
        body = {**parameters, "model": model, "encoding_format": "base64"}
        if plain:
            del body["encoding_format"]  # numbers are the default
        return self._endpoint.request(body)

    def wants_plain(self, refusal: UpstreamRejected, parameters: Mapping[str, Any]) -> bool:
        """Return whether a refused request is worth sending again, as `plain`.

        Compatible servers may not know base64. If the caller did not ask for base64, any refusal
        may be due to it, because the request that was refused was not the caller's.
        """
        blamed = "encoding_format" in f"{refusal.param} {refusal.message}"
        return refusal.status in (400, 422) and (blamed or not _wants_base64(parameters))

    def response(self, body: Mapping[str, Any], parameters: Mapping[str, Any]) -> Chunk:
        """Return one embedding for each input, in the encoding that Provider.embed promises.

        Raises UpstreamError.
        """
        data = body.get("data")
        if body.get("error") or (not data and reports_error(body)):
            raise rejection_inside(body, self._endpoint.secrets)
        if not isinstance(data, list) or len(data) != len(texts(parameters["input"])):
            raise UpstreamBadResponse()
        convert = _to_base64 if _wants_base64(parameters) else _checked
        chunk: Chunk = {"data": [_item(item, i, convert) for i, item in enumerate(data)]}
        chunk.update((k, v) for k, v in body.items() if k not in OWN and v is not None)
        if usage := _usage(body.get("usage")):
            chunk["usage"] = usage
        return chunk


def texts(input: str | Sequence[Any]) -> Sequence[Any]:
    """Return the texts of an input, each a string or a list of tokens."""
    return [input] if isinstance(input, str) or isinstance(input[0], int) else input


def base64_of(numbers: Sequence[float]) -> str:
    """Return the base64 of numbers as little-endian float32.

    Raises struct.error or OverflowError for what float32 cannot hold.
    """
    return b64encode(struct.pack(f"<{len(numbers)}f", *numbers)).decode()


def _wants_base64(parameters: Mapping[str, Any]) -> bool:
    return parameters.get("encoding_format") == "base64"


def _item(item: Any, position: int, convert: Callable[[Any], str | list[float]]) -> Chunk:
    if not isinstance(item, dict):
        raise UpstreamBadResponse()
    index = item.get("index")
    return {
        **item,
        "object": "embedding",
        "index": index if isinstance(index, int) else position,
        "embedding": convert(item.get("embedding")),
    }


def _to_base64(embedding: Any) -> str:
    if isinstance(embedding, str):
        return embedding
    try:
        return base64_of(embedding)
    except (struct.error, OverflowError, TypeError):
        raise UpstreamBadResponse() from None


def _checked(embedding: Any) -> str | list[float]:
    """Return the embedding unchanged; raises if the web process could not decode it."""
    if isinstance(embedding, list):
        return embedding
    try:
        length = len(binascii.a2b_base64(embedding, strict_mode=True))
    except (ValueError, TypeError):
        raise UpstreamBadResponse() from None
    if not length or length % FLOAT:
        raise UpstreamBadResponse()
    return str(embedding)


def _usage(usage: Any) -> Chunk | None:
    if not isinstance(usage, dict) or not isinstance(usage.get("prompt_tokens"), int):
        return None
    total = usage.get("total_tokens")
    prompt = usage["prompt_tokens"]
    return {**usage, "total_tokens": total if isinstance(total, int) else prompt}
