"""Renders chat completions: OpenAI's objects around the JSON that a worker sends.

The JSON is not parsed here: the completion's identity goes in front of its first field.
"""

from __future__ import annotations

import time

import orjson

from api.http import errors, sse
from api.reply import Renderer
from gateway.errors import GatewayError


class ChatRenderer(Renderer):
    """Renders one chat completion, with the same id and time of creation in every chunk.

    `created` is a Unix time in seconds; by default, now. `include_usage`: the caller wants a last
    chunk with the usage.
    """

    api = "chat"

    def __init__(
        self,
        call_id: str,
        model: str,
        include_usage: bool = False,
        created: int | None = None,
        prompt_tokens: int = 0,
    ) -> None:
        self._created = int(time.time()) if created is None else created
        self._call_id, self._model = call_id, model
        self._include_usage = include_usage
        self._chunk = b""
        self._usage: object = None

    def whole(self, result: bytes) -> bytes:
        """The completion object."""
        return self._head("chat.completion") + result[1:]

    def whole_error(self, error: GatewayError) -> bytes:
        """OpenAI's error envelope."""
        return errors.body(error)

    def events(self, payload: bytes) -> bytes:
        """The events of one payload.

        Usage is kept for `end`. Where the caller wants usage, every chunk before the last has
        `"usage": null`, as OpenAI's have.
        """
        head = self._chunk_head()
        out = []
        for line in payload.split(b"\n"):
            if b'"usage"' in line:
                line = self._without_usage(line)
            if line:
                null = b'"usage":null,' if self._include_usage else b""
                out.append(head + null + line[1:] + sse.END)
        return b"".join(out)

    def end(self) -> bytes:
        """The last events of a stream that ended well."""
        if not self._include_usage:
            return sse.DONE
        last = orjson.dumps({"choices": [], "usage": self._usage})
        return self._chunk_head() + last[1:] + sse.END + sse.DONE

    def error(self, error: GatewayError) -> bytes:
        """The last events of a stream that failed after it began."""
        return sse.event(errors.body(error)) + sse.DONE

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
            self._chunk = sse.DATA + self._head("chat.completion.chunk")
        return self._chunk

    def _without_usage(self, line: bytes) -> bytes:
        chunk = orjson.loads(line)
        usage = chunk.pop("usage", None)
        self._usage = usage or self._usage
        if not chunk.get("choices"):
            return b""
        return orjson.dumps(chunk)
