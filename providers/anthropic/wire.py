"""Anthropic's Messages API."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import orjson

from gateway.chat import ChatCall, Chunk
from gateway.errors import GatewayError, UpstreamBadResponse
from providers.anthropic.request import request_body
from providers.anthropic.stream import AnthropicDecoder
from providers.base import Request
from providers.errors import rejection, rejection_inside

BASE_URL = "https://api.anthropic.com"
VERSION = "2023-06-01"


class AnthropicWire:
    """Anthropic's dialect. Always streamed: unstreamed, it refuses long answers."""

    streams_only = True

    def __init__(
        self, base_url: str = "", api_key: str = "", headers: Mapping[str, str] | None = None
    ) -> None:
        base_url = base_url or BASE_URL
        self._url = f"{base_url.rstrip('/').removesuffix('/v1')}/v1/messages"
        self._headers = {
            "anthropic-version": VERSION,
            **(headers or {}),
            "Content-Type": "application/json",
            "Accept-Encoding": "identity",
        }
        if api_key := api_key.strip():  # files and variables end in newlines
            self._headers["x-api-key"] = api_key
        self._secrets = (api_key, base_url, *(headers or {}).values())

    def request(self, call: ChatCall) -> Request:
        """The call in Anthropic's terms; raises InvalidRequest for what it cannot do."""
        return Request(self._url, self._headers, orjson.dumps(request_body(call)))

    def answer(self, body: Mapping[str, Any]) -> Chunk:
        """Always raises: whole JSON where a stream was asked for is an error, or a mistake."""
        if body.get("error"):
            raise rejection_inside(body["error"], self._secrets)
        raise UpstreamBadResponse()

    def decoder(self) -> AnthropicDecoder:
        """A fresh decoder for one stream."""
        return AnthropicDecoder(self._secrets)

    def error(self, status: int, body: bytes, headers: Mapping[str, str]) -> GatewayError:
        """What an HTTP answer that is not 200 means to our caller."""
        return rejection(status, body, headers, self._secrets)
