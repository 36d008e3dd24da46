"""A line of a batch: a request that the runner of batches makes of the app, in its own process.

It has no connection and no secret. Its WSGI environment has an entry that names the API key; a
request from outside cannot have one, because its headers become entries that begin with `HTTP_`.
"""

from __future__ import annotations

import io
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from flask import Flask, Request, request

ENTRY = "inference.line"
VERSION = (1, 0)  # of WSGI


@dataclass(frozen=True, slots=True)
class Line:
    """Whose call it is, and which batch it belongs to."""

    key_id: str
    batch_id: str


@dataclass(frozen=True, slots=True)
class LineReply:
    """What the app returned. The names of headers are in lower case."""

    status: int
    headers: Mapping[str, str]
    body: bytes


def the_line() -> Line | None:
    """The line that the current request is; None for a request from outside."""
    current: Request = request._get_current_object()  # type: ignore[attr-defined]
    line: Line | None = current.environ.get(ENTRY)
    return line


def call(app: Flask, line: Line, path: str, body: bytes, headers: Mapping[str, str]) -> LineReply:
    """POST a body to an address of the app; return when the call has ended."""
    environ: dict[str, Any] = {
        "REQUEST_METHOD": "POST",
        "SCRIPT_NAME": "",
        "PATH_INFO": path,
        "QUERY_STRING": "",
        "CONTENT_TYPE": "application/json",
        "CONTENT_LENGTH": str(len(body)),
        "SERVER_NAME": "localhost",
        "SERVER_PORT": "80",
        "SERVER_PROTOCOL": "HTTP/1.1",
        "REMOTE_ADDR": "",
        "wsgi.version": VERSION,
        "wsgi.url_scheme": "http",
        "wsgi.input": io.BytesIO(body),
        "wsgi.errors": io.StringIO(),
        "wsgi.multithread": True,
        "wsgi.multiprocess": True,
        "wsgi.run_once": False,
        **{f"HTTP_{name.upper().replace('-', '_')}": value for name, value in headers.items()},
        ENTRY: line,
    }
    started: list[Any] = []

    def start_response(status: str, pairs: list[tuple[str, str]], _: Any = None) -> Any:
        started[:] = [int(status.partition(" ")[0]), pairs]

    pieces: Any = app.wsgi_app(environ, start_response)
    try:
        content = b"".join(pieces)
    finally:
        if hasattr(pieces, "close"):
            pieces.close()
    return LineReply(started[0], {name.lower(): value for name, value in started[1]}, content)
