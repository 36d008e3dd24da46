"""OpenAI's embeddings, and every upstream that speaks them."""

from __future__ import annotations

import binascii
import struct
from base64 import b64encode
from collections.abc import Mapping, Sequence
from typing import Any

import orjson

from gateway.chat import Chunk
from gateway.errors import GatewayError, UpstreamBadResponse, UpstreamRejected
from providers.base import Request
from providers.errors import rejection, rejection_inside

# Never passed on: who the provider is, and what is checked first.
OWN = frozenset({"id", "object", "created", "model", "data", "usage", "error"})
FLOAT = 4  # bytes


class OpenAIEmbeddings:
    """OpenAI's dialect of embeddings as pure functions; the differences are arguments."""

    def __init__(
        self, base_url: str, api_key: str = "", headers: Mapping[str, str] | None = None
    ) -> None:
        self._url = f"{base_url.rstrip('/')}/embeddings"
        self._headers = {
            **(headers or {}),
            "Content-Type": "application/json",
            "Accept-Encoding": "identity",
        }
        if api_key := api_key.strip():  # files and variables end in newlines
            self._headers["Authorization"] = f"Bearer {api_key}"
        self._secrets = (api_key, base_url, *(headers or {}).values())

    def request(self, model: str, parameters: Mapping[str, Any], plain: bool = False) -> Request:
        """What to send: it asks for base64, a quarter of the size of numbers, unless `plain`."""
        body = {**parameters, "model": model, "encoding_format": "base64"}
        if plain:
            del body["encoding_format"]  # numbers are the default
        return Request(self._url, self._headers, orjson.dumps(body))

    def wants_plain(self, refusal: UpstreamRejected, parameters: Mapping[str, Any]) -> bool:
        """Whether a refused request is worth sending again, as `plain`.

        Compatible servers may not know base64. Where the caller has not asked for it, their
        refusal need not even name it: the request that they refused was not quite the caller's.
        """
        named = "encoding_format" in f"{refusal.param} {refusal.message}"
        return refusal.status in (400, 422) and (named or not _wants_base64(parameters))

    def answer(self, body: Mapping[str, Any], parameters: Mapping[str, Any]) -> Chunk:
        """The embeddings, one for each input, in the encoding that Provider.embed promises.

        Raises UpstreamError.
        """
        if body.get("error"):
            raise rejection_inside(body["error"], self._secrets)
        data = body.get("data")
        if not isinstance(data, list) or len(data) != len(texts(parameters["input"])):
            raise UpstreamBadResponse()
        encoded = _encoded if _wants_base64(parameters) else _checked
        part: Chunk = {"data": [_item(item, i, encoded) for i, item in enumerate(data)]}
        part.update((k, v) for k, v in body.items() if k not in OWN and v is not None)
        if usage := _usage(body.get("usage")):
            part["usage"] = usage
        return part

    def error(self, status: int, body: bytes, headers: Mapping[str, str]) -> GatewayError:
        """What an HTTP answer that is not 200 means to our caller."""
        return rejection(status, body, headers, self._secrets)


def texts(given: str | Sequence[Any]) -> Sequence[Any]:
    """The texts of an input, each a string or tokens: an array of tokens is one text."""
    return [given] if isinstance(given, str) or isinstance(given[0], int) else given


def base64_of(numbers: Sequence[float]) -> str:
    """Numbers as OpenAI's base64: little-endian float32. Raises struct.error, OverflowError."""
    return b64encode(struct.pack(f"<{len(numbers)}f", *numbers)).decode()


def _wants_base64(parameters: Mapping[str, Any]) -> bool:
    return parameters.get("encoding_format") == "base64"


def _item(item: Any, position: int, encoded: Any) -> Chunk:
    if not isinstance(item, dict):
        raise UpstreamBadResponse()
    index = item.get("index")
    return {
        **item,
        "object": "embedding",
        "index": index if isinstance(index, int) else position,
        "embedding": encoded(item.get("embedding")),
    }


def _encoded(embedding: Any) -> str:
    """As base64, which the caller wants, from whatever the provider gave."""
    if isinstance(embedding, str):
        return embedding
    try:
        return base64_of(embedding)
    except (struct.error, OverflowError, TypeError):
        raise UpstreamBadResponse() from None


def _checked(embedding: Any) -> str | list[float]:
    """As it is, once it is sure that the web process can make numbers of it."""
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
