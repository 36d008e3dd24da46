"""Anthropic's Messages API."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from gateway.chat import ChatCall, Chunk
from gateway.errors import GatewayError, UpstreamBadResponse
from providers.anthropic.request import request_body
from providers.anthropic.stream import AnthropicDecoder
from providers.base import ORDINARY, Endpoint, Request, WireOptions
from providers.errors import rejection, rejection_inside

BASE_URL = "https://api.anthropic.com"
VERSION = "2023-06-01"


class AnthropicWire:
    """Anthropic's dialect. It always streams: Anthropic refuses long responses unstreamed.

    `options` change nothing, because Anthropic takes all fields of messages.
    """

    streams_only = True
    stream_above: int | None = None

    def __init__(
        self,
        base_url: str = "",
        api_key: str = "",
        headers: Mapping[str, str] | None = None,
        options: WireOptions = ORDINARY,
    ) -> None:
        base_url = base_url or BASE_URL
        path = "/messages" if base_url.rstrip("/").endswith("/v1") else "/v1/messages"
        self._endpoint = Endpoint.build(
            base_url,
            path,
            api_key,
            headers,
            key_header="x-api-key",
            key_prefix="",
            defaults={"anthropic-version": VERSION},
        )

    def request(self, call: ChatCall) -> Request:
        """Return the call in Anthropic's terms; raises InvalidRequest for what it cannot do."""
        return self._endpoint.request(request_body(call))

    def response(self, body: Mapping[str, Any]) -> Chunk:
        """Always raise: JSON in response to a request for a stream is an error or a mistake."""
        if body.get("error"):
            raise rejection_inside(body["error"], self._endpoint.secrets)
        raise UpstreamBadResponse()

    def decoder(self) -> AnthropicDecoder:
        """Return a new decoder for one stream."""
        return AnthropicDecoder(self._endpoint.secrets)

    def error(self, status: int, body: bytes, headers: Mapping[str, str]) -> GatewayError:
        """Return the error for an HTTP response whose status is not 200."""
        return rejection(status, body, headers, self._endpoint.secrets)
