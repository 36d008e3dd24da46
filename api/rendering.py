"""How the result of one call is rendered, in the process that submitted it or in any other."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import orjson

from api.http import sse
from api.reply import RENDERERS, Renderer
from gateway.errors import GatewayError
from gateway.queue import keys


@dataclass(slots=True)
class Rendering:
    """What the renderer of a call is made of.

    `make` is a class of renderers with the options of the call, as keywords that JSON can hold. The
    same values make renderers that return the same bytes, whatever the process. `names` are what
    the response calls the model, by the route of the target that answers; "" stands for all others.
    `created` is in Unix seconds, `prompt_tokens` an estimate.
    """

    call_id: str
    make: partial[Any]
    names: Mapping[str, str]
    created: int
    prompt_tokens: int = 0

    def renderer(self, route: str = "") -> Renderer:
        """A new renderer of the call."""
        name = self.names.get(route) or self.names[""]
        renderer: Renderer = self.make(
            self.call_id, name, created=self.created, prompt_tokens=self.prompt_tokens
        )
        return renderer


@dataclass(slots=True)
class LoggedCall:
    """A logged call as any process can render it, while Redis keeps its log.

    `address` is that of its log, `key` the public id of its API key. `request_id` is that of the
    request that made the call: its errors have it.
    """

    rendering: Rendering
    address: str
    key: str
    stream: bool
    extra: dict[str, Any] = field(default_factory=dict)  # what the API keeps of the call besides
    request_id: str = ""

    def encode(self) -> bytes:
        """The value in Redis."""
        rendering = self.rendering
        return orjson.dumps(
            {
                "call_id": rendering.call_id,
                "renderer": self.api,
                "options": rendering.make.keywords,
                "names": rendering.names,
                "created": rendering.created,
                "prompt_tokens": rendering.prompt_tokens,
                "address": self.address,
                "key": self.key,
                "stream": self.stream,
                "extra": self.extra,
                "request_id": self.request_id,
            }
        )

    @staticmethod
    def decode(value: bytes) -> LoggedCall:
        """The call that `encode` wrote."""
        fields = orjson.loads(value)
        rendering = Rendering(
            fields["call_id"],
            partial(RENDERERS[fields["renderer"]], **fields["options"]),
            fields["names"],
            fields["created"],
            fields["prompt_tokens"],
        )
        return LoggedCall(
            rendering,
            fields["address"],
            fields["key"],
            fields["stream"],
            fields["extra"],
            fields.get("request_id", ""),
        )

    @property
    def api(self) -> str:
        """The API that was called: the name of its renderers."""
        make: Any = self.rendering.make.func
        return str(make.api)

    @property
    def seconds(self) -> int:
        """How long the log is kept after the end of the call."""
        return keys.log_seconds(self.address)


class NumberedRenderer(Renderer):
    """Renders a stream whose events have ids: that of the call, a colon and a number from 0.

    Events up to the number `after` are left out.
    """

    def __init__(self, renderer: Renderer, call_id: str, after: int = -1) -> None:
        self._renderer, self._after, self._next = renderer, after, 0
        self._prefix = b"id: %b:" % call_id.encode()

    def whole(self, result: bytes) -> bytes:
        """The body of an unstreamed response."""
        return self._renderer.whole(result)

    def whole_error(self, error: GatewayError) -> bytes:
        """The body of an error whose status has been sent already."""
        return self._renderer.whole_error(error)

    def first(self) -> bytes:
        """The events before the result begins."""
        return self._numbered(self._renderer.first())

    def events(self, payload: bytes) -> bytes:
        """The events of one payload."""
        return self._numbered(self._renderer.events(payload))

    def end(self) -> bytes:
        """The last events of a stream that ended well."""
        self._renderer.completed_at = self.completed_at
        return self._numbered(self._renderer.end())

    def error(self, error: GatewayError) -> bytes:
        """The last events of a stream that failed after it began."""
        return self._numbered(self._renderer.error(error))

    def _numbered(self, events: bytes) -> bytes:
        numbered = []
        for event in events.split(sse.END)[:-1]:
            if self._next > self._after:
                numbered.append(b"%b%d\n%b%b" % (self._prefix, self._next, event, sse.END))
            self._next += 1
        return b"".join(numbered)


def numbered(
    make: Callable[[str], Renderer], call_id: str, after: int = -1
) -> Callable[[str], Renderer]:
    """Return a function like `make` whose renderers number their events."""
    return lambda route: NumberedRenderer(make(route), call_id, after)
