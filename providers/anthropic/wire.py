"""Anthropic's Messages API."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from gateway.chat import ChatCall, Chunk
from gateway.errors import GatewayError, UpstreamBadResponse
from providers.anthropic.request import betas, request_body, wants_json
from providers.anthropic.stream import AnthropicDecoder
from providers.base import ORDINARY, Endpoint, Request, WireOptions
from providers.errors import rejection, rejection_inside

BASE_URL = "https://api.anthropic.com"
VERSION = "2023-06-01"
# What the count of a prompt takes. Source: platform.claude.com/docs, "Count tokens in a Message".
COUNTED = frozenset(
    {"model", "messages", "system", "tools", "tool_choice", "thinking", "output_config"}
    | {"context_management"}
)


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
        self._endpoint = endpoint(base_url, "/messages", api_key, headers)

    def request(self, call: ChatCall) -> Request:
        """Return the call in Anthropic's terms; raises InvalidRequest for what it cannot do."""
        return self._endpoint.request(request_body(call), _beta_header(self._endpoint, call))

    def response(self, body: Mapping[str, Any]) -> Chunk:
        """Always raise: JSON in response to a request for a stream is an error or a mistake."""
        if body.get("error"):
            raise rejection_inside(body["error"], self._endpoint.secrets)
        raise UpstreamBadResponse()

    def decoder(self, call: ChatCall | None = None) -> AnthropicDecoder:
        """Return a new decoder for the stream that responds to this call."""
        if call is None:
            return AnthropicDecoder(self._endpoint.secrets)
        return AnthropicDecoder(self._endpoint.secrets, wants_json(call))

    def error(self, status: int, body: bytes, headers: Mapping[str, str]) -> GatewayError:
        """Return the error for an HTTP response whose status is not 200."""
        return rejection(status, body, headers, self._endpoint.secrets)


class AnthropicTokenCounter:
    """Anthropic's count of a prompt's tokens, which costs nothing."""

    def __init__(
        self, base_url: str = "", api_key: str = "", headers: Mapping[str, str] | None = None
    ) -> None:
        self._endpoint = endpoint(base_url, "/messages/count_tokens", api_key, headers)

    def request(self, call: ChatCall) -> Request:
        """Return the call's prompt in Anthropic's terms; raises InvalidRequest as a call does."""
        body = {k: v for k, v in request_body(call).items() if k in COUNTED}
        return self._endpoint.request(body, _beta_header(self._endpoint, call))

    def response(self, body: Mapping[str, Any]) -> Chunk:
        """Return the count; raises UpstreamError for a response without one."""
        if body.get("error"):
            raise rejection_inside(body["error"], self._endpoint.secrets)
        if type(body.get("input_tokens")) is not int:
            raise UpstreamBadResponse()
        return {"input_tokens": body["input_tokens"]}


def endpoint(base_url: str, path: str, api_key: str, headers: Mapping[str, str] | None) -> Endpoint:
    """Return the endpoint at this path of an upstream of this dialect."""
    base_url = base_url or BASE_URL
    return Endpoint.build(
        base_url,
        path if base_url.rstrip("/").endswith("/v1") else f"/v1{path}",
        api_key,
        headers,
        key_header="x-api-key",
        key_prefix="",
        defaults={"anthropic-version": VERSION},
    )


def _beta_header(endpoint: Endpoint, call: ChatCall) -> dict[str, str]:
    """Return the header with the betas of the operator and of the caller, each once."""
    own = (v for k, v in endpoint.headers.items() if k.lower() == "anthropic-beta")
    names = [name.strip() for value in own for name in value.split(",")]
    names = list(dict.fromkeys((*names, *betas(call))))
    return {"anthropic-beta": ",".join(names)} if names else {}
