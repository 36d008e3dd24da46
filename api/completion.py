"""How an answer looks on the wire: OpenAI's objects around the parts that a worker sends.

Parts arrive as JSON that nobody here reads: identity is put in front of their first field.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, field

import orjson

from api import errors
from gateway.errors import GatewayError

DONE = b"data: [DONE]\n\n"
COMMENT = b": keep-alive\n\n"


@dataclass(frozen=True, slots=True)
class Identity:
    """What one completion is called: minted once, the same in every chunk."""

    call_id: str
    model: str
    created: int = field(default_factory=lambda: int(time.time()))

    def head(self, kind: str) -> bytes:
        """The beginning of an object of this completion, up to its next field."""
        identity = {
            "id": f"chatcmpl-{self.call_id}",
            "object": kind,
            "created": self.created,
            "model": self.model,
        }
        return orjson.dumps(identity)[:-1] + b","


def whole(identity: Identity, part: bytes) -> bytes:
    """An unstreamed answer."""
    return identity.head("chat.completion") + part[1:]


class Frames:
    """Makes server-sent events of the parts of one stream."""

    def __init__(self, identity: Identity, include_usage: bool) -> None:
        self._head = b"data: " + identity.head("chat.completion.chunk")
        self._include_usage = include_usage
        self._usage: object = None

    def events(self, payload: bytes) -> bytes:
        """The events of one payload: a line of JSON for each part.

        Usage is kept back for `end`; where it was asked for, every chunk on the way says
        `"usage": null`, as OpenAI's do.
        """
        out = []
        for line in payload.split(b"\n"):
            if b'"usage"' in line:
                line = self._without_usage(line)
            if line:
                null = b'"usage":null,' if self._include_usage else b""
                out.append(self._head + null + line[1:] + b"\n\n")
        return b"".join(out)

    def end(self) -> bytes:
        """The last events of a stream that ended well."""
        if not self._include_usage:
            return DONE
        last = orjson.dumps({"choices": [], "usage": self._usage})
        return self._head + last[1:] + b"\n\n" + DONE

    def error(self, error: GatewayError) -> bytes:
        """The last events of a stream that failed after it began."""
        return b"data: " + errors.body(error) + b"\n\n" + DONE

    def _without_usage(self, line: bytes) -> bytes:
        part = orjson.loads(line)
        usage = part.pop("usage", None)
        self._usage = usage or self._usage
        if not part.get("choices"):
            return b""
        return orjson.dumps(part)
