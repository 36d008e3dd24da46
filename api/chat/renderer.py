"""How an answer looks on the wire: OpenAI's objects around the parts that a worker sends.

Parts arrive as JSON that nobody here reads: identity is put in front of their first field.
"""

from __future__ import annotations

import time

import orjson

from api.http import errors
from gateway.errors import GatewayError

DONE = b"data: [DONE]\n\n"


class Completion:
    """Renders one chat completion: what it is called is minted here, the same in every chunk."""

    def __init__(
        self, call_id: str, model: str, include_usage: bool = False, created: int | None = None
    ) -> None:
        self._created = int(time.time()) if created is None else created
        self._call_id, self._model = call_id, model
        self._include_usage = include_usage
        self._chunk = b""
        self._usage: object = None

    def whole(self, answer: bytes) -> bytes:
        """An unstreamed answer."""
        return self._head("chat.completion") + answer[1:]

    def whole_error(self, error: GatewayError) -> bytes:
        """The error's envelope."""
        return errors.body(error)

    def events(self, payload: bytes) -> bytes:
        """The events of one payload: a line of JSON for each part.

        Usage is kept back for `end`; where it was asked for, every chunk on the way says
        `"usage": null`, as OpenAI's do.
        """
        head = self._chunk_head()
        out = []
        for line in payload.split(b"\n"):
            if b'"usage"' in line:
                line = self._without_usage(line)
            if line:
                null = b'"usage":null,' if self._include_usage else b""
                out.append(head + null + line[1:] + b"\n\n")
        return b"".join(out)

    def end(self) -> bytes:
        """The last events of a stream that ended well."""
        if not self._include_usage:
            return DONE
        last = orjson.dumps({"choices": [], "usage": self._usage})
        return self._chunk_head() + last[1:] + b"\n\n" + DONE

    def error(self, error: GatewayError) -> bytes:
        """The last events of a stream that failed after it began."""
        return b"data: " + errors.body(error) + b"\n\n" + DONE

    def _head(self, kind: str) -> bytes:
        """The beginning of an object of this completion, up to its next field."""
        identity = {
            "id": f"chatcmpl-{self._call_id}",
            "object": kind,
            "created": self._created,
            "model": self._model,
        }
        return orjson.dumps(identity)[:-1] + b","

    def _chunk_head(self) -> bytes:
        if not self._chunk:
            self._chunk = b"data: " + self._head("chat.completion.chunk")
        return self._chunk

    def _without_usage(self, line: bytes) -> bytes:
        part = orjson.loads(line)
        usage = part.pop("usage", None)
        self._usage = usage or self._usage
        if not part.get("choices"):
            return b""
        return orjson.dumps(part)
