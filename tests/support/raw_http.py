"""Bytes to a running service, and what it says to them."""

from __future__ import annotations

import json
import re
import socket
from dataclasses import dataclass
from importlib.util import find_spec
from typing import Any

from tests.support.stack import PATIENCE_SECONDS, Stack

CHAT = "/inference/v1/chat/completions"
HEALTH = "/inference/v1/health"
LENGTH = re.compile(rb"(?i)\r\ncontent-length: *(\d+)")
CLOSE = b"\r\nConnection: close"
# gunicorn has two: its C parser is optional, and responses by itself where it is installed.
PARSERS = ["python", *(["fast"] if find_spec("gunicorn_h1c") else [])]


@dataclass(frozen=True)
class Response:
    """One response; `closed`: its end was the end of the connection."""

    status: int
    body: bytes
    closed: bool

    @property
    def error(self) -> dict[str, Any]:
        """OpenAI's error object, checked."""
        body = json.loads(self.body)
        assert set(body) == {"error"}
        error: dict[str, Any] = body["error"]
        assert set(error) == {"message", "type", "param", "code", "request_id"}
        return error


def say(
    stack: Stack, raw: bytes, *, close_writing: bool = False, until_closed: bool = False
) -> bytes:
    """What the service answers: one answer, or what comes until the connection is closed.

    Raises TimeoutError where it keeps the connection open for PATIENCE_SECONDS, saying nothing.
    """
    received = b""
    with socket.create_connection(("127.0.0.1", stack.port), PATIENCE_SECONDS) as client:
        try:
            client.sendall(raw)
            if close_writing:
                client.shutdown(socket.SHUT_WR)
            while until_closed or not _is_answer(received):
                piece = client.recv(65536)
                if not piece:
                    break
                received += piece
        except ConnectionError:
            pass  # closed with some of our bytes unread, as it may
    return received


def _is_answer(received: bytes) -> bool:
    """Whether this is one answer, after which the connection is to stay open."""
    head, blank, body = received.partition(b"\r\n\r\n")
    length = LENGTH.search(head)
    return bool(blank and length and len(body) >= int(length[1])) and CLOSE not in head


def answers(received: bytes) -> list[Response]:
    """The answers in what was received; the last of them may have no end but the connection's."""
    responses = []
    while received:
        head, blank, rest = received.partition(b"\r\n\r\n")
        assert blank, received
        first, *lines = head.split(b"\r\n")
        status = int(first.split(b" ")[1])
        fields = dict(line.lower().split(b": ", 1) for line in lines)
        length = fields.get(b"content-length")
        if status == 100:
            received = rest
            continue
        size = len(rest) if length is None else int(length)
        assert len(rest) >= size, "an answer was cut"
        closed = fields.get(b"connection") == b"close"
        responses.append(Response(status, rest[:size], closed))
        received = rest[size:]
    return responses


def answer(received: bytes) -> Response:
    """The only answer in what was received."""
    (response,) = answers(received)
    return response


def request(*lines: str, body: bytes = b"") -> bytes:
    """A request with these lines as its head."""
    return "\r\n".join([*lines, "", ""]).encode("latin-1") + body


def get(*headers: str, target: str = HEALTH) -> bytes:
    """A good request, but for these headers or this target."""
    return request(f"GET {target} HTTP/1.1", "Host: x", *headers)


def post(stack: Stack, *headers: str, body: bytes = b"", path: str = CHAT) -> bytes:
    """A request with a key that is good, but for these headers or this body."""
    return request(
        f"POST {path} HTTP/1.1",
        "Host: x",
        f"Authorization: Bearer {stack.key}",
        "Content-Type: application/json",
        *headers,
        body=body,
    )
