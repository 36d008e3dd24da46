"""What a provider is: the contract between the workers and every upstream dialect."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import orjson

from gateway.chat import ChatCall, Chunk
from gateway.errors import GatewayError, InvalidRequest, UpstreamRejected

USER_AGENT = "inference-service"  # some providers refuse those of HTTP libraries
# A compressed response is refused unread: a few compressed bytes can hold gigabytes.
FIXED = {"Content-Type": "application/json", "Accept-Encoding": "identity"}


def _ignore() -> None:
    pass


OnHead = Callable[[], None]  # called once the head of a successful response has arrived
IGNORE: OnHead = _ignore


class Provider(Protocol):
    """An object that answers chat calls and embeddings calls."""

    streams_only: bool  # complete() is a folded stream

    def complete(self, call: ChatCall, on_head: OnHead = IGNORE) -> Chunk:
        """Return the whole response, with a `message` in each choice.

        Calls `on_head` when the response begins. Raises a GatewayError.
        """
        ...

    def stream(self, call: ChatCall) -> Iterator[list[Chunk]]:
        """Yield the response as it arrives: lists of the chunks that came together.

        Each choice of a chunk has a `delta`. Raises a GatewayError. Closing the iterator closes
        the connection to the upstream.
        """
        ...

    def embed(self, model: str, parameters: Mapping[str, Any], on_head: OnHead = IGNORE) -> Chunk:
        """Return the embeddings of `input`: `{"data": [...]}`, and `"usage"` if counted.

        `parameters` are OpenAI's, `input` among them. Each embedding is the base64 of
        little-endian float32, or a list of numbers if `encoding_format` is "float" (its default)
        and the upstream returns numbers.

        Calls `on_head` when the response begins. Raises a GatewayError.
        """
        ...

    def count_tokens(self, call: ChatCall) -> Chunk:
        """Return `{"input_tokens": n}` for the prompt of a call, which is not made.

        Raises a GatewayError.
        """
        ...


@dataclass(slots=True)
class Request:
    """An HTTP POST to an upstream, not yet sent."""

    url: str
    headers: Mapping[str, str]
    body: bytes


@dataclass(frozen=True, slots=True)
class Endpoint:
    """One address of an upstream: its URL, the headers of every request, the secrets in them.

    Error messages must not show `secrets`: the key, the base URL and the operator's headers.
    """

    url: str
    headers: Mapping[str, str]
    secrets: tuple[str, ...]

    @classmethod
    def build(
        cls,
        base_url: str,
        path: str,
        api_key: str = "",
        headers: Mapping[str, str] | None = None,
        *,
        key_header: str = "Authorization",
        key_prefix: str = "Bearer ",
        defaults: Mapping[str, str] | None = None,
    ) -> Endpoint:
        """Return the endpoint at `base_url` + `path`.

        `headers` are the operator's. They replace the dialect's `defaults`, and are replaced by
        the headers that the transport relies on, whatever the case of their names. Without a key,
        no `key_header` is sent.
        """
        headers = headers or {}
        api_key = api_key.strip()  # a key read from a file ends in a newline
        credentials = {key_header: f"{key_prefix}{api_key}"} if api_key else {}
        return cls(
            url=f"{base_url.rstrip('/')}{path}",
            headers=_merge({"User-Agent": USER_AGENT}, defaults or {}, headers, FIXED, credentials),
            secrets=(api_key, base_url, *headers.values()),
        )

    def request(self, body: Mapping[str, Any], headers: Mapping[str, str] | None = None) -> Request:
        """Return the request that sends `body` as JSON, with these headers of its own."""
        merged = _merge(self.headers, headers) if headers else self.headers
        return Request(self.url, merged, orjson.dumps(body))


def _merge(*groups: Mapping[str, str]) -> dict[str, str]:
    """Return the headers of all groups; of two with the same name, the later one."""
    return dict({name.lower(): (name, group[name]) for group in groups for name in group}.values())


@dataclass(frozen=True, slots=True)
class WireOptions:
    """What an upstream takes beside, or differently from, the others of its dialect.

    The fields are those of a provider's row: see gateway/catalogue/models.toml.
    """

    accepts: Collection[str] = ()
    system_first: bool = False
    tool_call_ids: str = ""
    stream_above: int | None = None
    plain_text: bool = False


ORDINARY = WireOptions()


class Wire(Protocol):
    """The chat dialect of an upstream as pure functions: no I/O, no clock, no randomness."""

    streams_only: bool  # the upstream is always asked for a stream
    stream_above: int | None  # or if more tokens than this may come

    def request(self, call: ChatCall) -> Request:
        """Return what to send; raises InvalidRequest for what this upstream cannot do."""
        ...

    def response(self, body: Mapping[str, Any]) -> Chunk:
        """Return an unstreamed response, given its JSON; raises UpstreamError."""
        ...

    def decoder(self, call: ChatCall | None = None) -> Decoder:
        """Return a new decoder for the stream that responds to this call."""
        ...

    def error(self, status: int, body: bytes, headers: Mapping[str, str]) -> GatewayError:
        """Return the error for an HTTP response whose status is not 200.

        The names of `headers` are in lower case; `retry-after` is in seconds.
        """
        ...


class EmbeddingsWire(Protocol):
    """The embeddings dialect of an upstream as pure functions."""

    def request(self, model: str, parameters: Mapping[str, Any], plain: bool = False) -> Request:
        """Return what to send; `plain` leaves the encoding to the upstream."""
        ...

    def wants_plain(self, refusal: UpstreamRejected, parameters: Mapping[str, Any]) -> bool:
        """Return whether the upstream may accept the `plain` request after it refused the other."""
        ...

    def response(self, body: Mapping[str, Any], parameters: Mapping[str, Any]) -> Chunk:
        """Return what Provider.embed promises, given the response's JSON; raises UpstreamError."""
        ...


class TokenCounter(Protocol):
    """The dialect in which an upstream counts the tokens of a prompt, as pure functions."""

    def request(self, call: ChatCall) -> Request:
        """Return what to send; raises InvalidRequest for what this upstream cannot do."""
        ...

    def response(self, body: Mapping[str, Any]) -> Chunk:
        """Return what Provider.count_tokens promises; raises UpstreamError."""
        ...


class Decoder(Protocol):
    """Turns the server-sent events of one stream into chunks. It has state: use it once."""

    finished: bool  # the upstream said that the response is complete
    ended: bool  # the upstream said that nothing follows (usage may follow a finished response)
    reads_text: bool  # what it returns depends on the text that came before
    ident: str  # the upstream's id of the response, "" until it is known

    def feed(self, event: str, data: str) -> Iterable[Chunk]:
        """Return the chunks of one event, usually one or none; raises an UpstreamError.

        Unless `reads_text`, the result may depend on the events before, but not on the text of
        their content: see providers/http/events.py, which does not pass on all of those.
        """
        ...


class WireFactory(Protocol):
    """Makes a wire: usually the class of the wire."""

    def __call__(
        self, base_url: str, api_key: str, headers: Mapping[str, str], options: WireOptions
    ) -> Wire: ...


class EmbeddingsWireFactory(Protocol):
    """Makes an embeddings wire: usually the class of the wire."""

    def __call__(
        self, base_url: str, api_key: str, headers: Mapping[str, str]
    ) -> EmbeddingsWire: ...


class TokenCounterFactory(Protocol):
    """Makes a token counter: usually its class."""

    def __call__(self, base_url: str, api_key: str, headers: Mapping[str, str]) -> TokenCounter: ...


def ident_of(body: Mapping[str, Any]) -> str:
    """Return the id that an upstream gives its response, "" if there is none."""
    ident = body.get("id")
    return ident if isinstance(ident, str) else ""


def without_count(model: str) -> InvalidRequest:
    """Return the error for a count of tokens by a provider that does not count them."""
    return InvalidRequest(
        f"The provider of `{model}` does not count tokens.", param="model", code="invalid_value"
    )


def without_embeddings(model: str) -> InvalidRequest:
    """Return the error for an embeddings call to a model, or a provider, that has none."""
    return InvalidRequest(
        f"The model `{model}` does not make embeddings.", param="model", code="invalid_value"
    )
