"""Reads a request's JSON body."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from functools import partial
from io import BytesIO
from typing import Any

import gevent
from flask import g, request
from gevent.lock import BoundedSemaphore
from werkzeug.http import parse_options_header

from api.services import services
from gateway import strict_json
from gateway.broker.body_room import COUNTED_BYTES
from gateway.errors import (
    BodyTimeout,
    GatewayError,
    InvalidRequest,
    Overloaded,
    PayloadTooLarge,
    UnsupportedMedia,
)
from gateway.files.storage import StorageUnavailable
from gateway.stalls import give_turn

# A body that comes at least this fast is not given up: 160 kbit/s.
LEAST_BYTES_A_SECOND = 20_000
RETRY_SECONDS = 5  # where too many bodies of a key are on their way
PIECE_BYTES = 262_144  # read at once: a fast client would keep the event loop to itself
CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"
PARSING = BoundedSemaphore(1)  # large bodies are parsed one at a time


def request_json(max_elements: int = strict_json.MAX_ELEMENTS) -> Any:
    """The JSON value of the current request's body, which is that of the key in `g.public_id`.

    Raises what `read_json` does, and Overloaded if the key is sending too many bodies at once.
    """
    installed, key, environ = services(), g.public_id, request.environ
    settings, readers = installed.settings, installed.readers
    hold = partial(installed.bodies.hold, id(environ), key)
    if not readers.take(key):
        raise Overloaded(retry_after=RETRY_SECONDS)
    try:
        limit, timeout = settings.max_body_bytes, settings.body_timeout
        return read_json(environ, limit, timeout, hold, max_elements)
    finally:
        readers.give_back(key)


def read_json(
    environ: dict[str, Any],
    limit: int,
    timeout: float,
    hold: Callable[[int], None],
    max_elements: int = strict_json.MAX_ELEMENTS,
) -> Any:
    """The body's JSON value.

    `limit` is in bytes, `timeout` in seconds, to which the time is added that the body takes at
    LEAST_BYTES_A_SECOND. `hold` is called with the size of a large body before it is read, and
    again once a size that was not declared is known. `max_elements` is as strict_json counts them.
    Raises UnsupportedMedia, PayloadTooLarge, BodyTimeout, InvalidRequest and what `hold` does.
    """
    check_type(environ)
    body = _read(environ, limit, timeout, hold)
    if len(body) <= COUNTED_BYTES:
        return strict_json.loads(body, max_elements)
    with PARSING:
        size = len(body)
        give_turn(size)
        value = strict_json.loads(body, max_elements)
        del body
        give_turn(size)  # what follows, until it is sent, takes as long again
        return value


def check_type(environ: dict[str, Any]) -> None:
    """Raise UnsupportedMedia unless the body is declared to be plain UTF-8 JSON."""
    media, options = parse_options_header(environ.get("CONTENT_TYPE", ""))
    if media.lower() != "application/json":
        raise UnsupportedMedia
    if options.get("charset", "utf-8").lower() not in ("utf-8", "utf8"):
        raise UnsupportedMedia("Unsupported charset: send UTF-8.", code="unsupported_charset")
    if environ.get("HTTP_CONTENT_ENCODING", "identity").strip().lower() not in ("", "identity"):
        raise UnsupportedMedia(
            "Unsupported content encoding: send the body uncompressed.",
            code="unsupported_encoding",
        )


def _read(
    environ: dict[str, Any], limit: int, timeout: float, hold: Callable[[int], None]
) -> bytes:
    length = _declared(environ)
    if length is not None and length > limit:
        raise _too_large(limit)
    size = limit if length is None else length
    if size > COUNTED_BYTES:
        hold(size)
    stream = environ["wsgi.input"]
    if length is not None and isinstance(stream, BytesIO):  # it has come: see gunicorn_worker.py
        body = stream.read(length)
    else:
        with _arrival(environ, length, size, timeout):
            body = _content(stream, limit + 1 if length is None else length)
    if length is None and len(body) > limit:
        raise _too_large(limit)
    if length is None and size > COUNTED_BYTES:
        hold(len(body))
    # gunicorn returns the part that has arrived, without an error, when the client closes early.
    if length is not None and len(body) < length:
        raise _incomplete()
    return body


class Body:
    """A request's body that is read in pieces; `length` is None if it was not declared."""

    def __init__(self, stream: Any, length: int | None, limit: int) -> None:
        self.length = length
        self._stream, self._limit, self._read = stream, limit, 0

    def read(self, size: int) -> bytes:
        """Return the next bytes, at most `size`; raises PayloadTooLarge."""
        most = size if self.length is None else min(size, self.length - self._read)
        piece: bytes = self._stream.read(most) if most else b""
        self._read += len(piece)
        if self._read > self._limit:
            raise _too_large(self._limit)
        return piece

    def check(self) -> None:
        """Raise InvalidRequest unless all that was declared has been read."""
        if self.length is not None and self._read < self.length:
            raise _incomplete()


@contextlib.contextmanager
def arriving(environ: dict[str, Any], limit: int, timeout: float) -> Iterator[Body]:
    """The body of a request of at most `limit` bytes, to be read inside the block.

    `timeout` is as for `read_json`. Raises PayloadTooLarge, BodyTimeout and InvalidRequest.
    """
    length = _declared(environ)
    if length is not None and length > limit:
        raise _too_large(limit)
    with _arrival(environ, length, limit if length is None else length, timeout):
        yield Body(environ["wsgi.input"], length, limit)


def _declared(environ: dict[str, Any]) -> int | None:
    declared = environ.get("CONTENT_LENGTH") or ""
    length = int(declared) if declared.isdecimal() else None
    if length is None and not environ.get("HTTP_TRANSFER_ENCODING"):
        return 0
    return length


@contextlib.contextmanager
def _arrival(
    environ: dict[str, Any], length: int | None, size: int, timeout: float
) -> Iterator[None]:
    """Ask for the body if its client waits for that, and turn what goes wrong into our errors."""
    # A client that sends nothing for a while is given up by the worker (SEND_SECONDS).
    with gevent.Timeout(timeout + size / LEAST_BYTES_A_SECOND, BodyTimeout):
        try:
            if length != 0 and _waits(environ):
                environ["gunicorn.socket"].sendall(CONTINUE)
            yield
        except TimeoutError:
            raise BodyTimeout from None
        except OSError:
            raise _incomplete() from None
        except (GatewayError, StorageUnavailable):
            raise
        except Exception:
            if length is not None:
                raise
            # gunicorn's own exceptions for malformed chunks quote the body.
            raise InvalidRequest(
                "The request body is not valid chunked encoding.", code="invalid_chunks"
            ) from None


def _too_large(limit: int) -> PayloadTooLarge:
    return PayloadTooLarge(f"The request body is too large: at most {limit} bytes are allowed.")


def _content(stream: Any, size: int) -> bytes:
    """The next `size` bytes, or all there are; others have their turn in between."""
    pieces: list[bytes] = []
    while size and (piece := stream.read(min(size, PIECE_BYTES))):
        pieces.append(piece)
        size -= len(piece)
        if len(piece) == PIECE_BYTES:
            give_turn()
    return b"".join(pieces)


def _waits(environ: dict[str, Any]) -> bool:
    """Whether the client sends its body only once it is asked to (RFC 9110, section 10.1.1)."""
    expects = environ.get("HTTP_EXPECT", "").lower() == "100-continue"
    return expects and environ.get("SERVER_PROTOCOL") == "HTTP/1.1"


def _incomplete() -> InvalidRequest:
    return InvalidRequest(
        "The request body ended before its declared length.", code="incomplete_body"
    )
