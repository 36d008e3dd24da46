"""Splits a body such as {"requests": [{...}, ...]} into its requests while it arrives.

Such a body may have 256 MB, of which one request is held at a time.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator

from gateway import strict_json
from gateway.errors import InvalidRequest, PayloadTooLarge

HEAD = re.compile(rb'\s*\{\s*"requests"\s*:\s*\[')
MARK = re.compile(rb'["{}\[\]]')
HEAD_BYTES = 1_000  # within which the array must begin; a body that is longer is not ours
NAME = "requests"


def elements(pieces: Iterable[bytes], longest: int) -> Iterator[bytes]:
    """Yield the text of each element of the array, which is an object, but may not be valid JSON.

    Raises InvalidRequest for a body of another form, PayloadTooLarge for an element of more than
    `longest` bytes, and what `pieces` raises.
    """
    source = iter(pieces)
    data = bytearray()
    for piece in source:
        data += piece
        if HEAD.match(data) or len(data) > HEAD_BYTES:
            break
    head = HEAD.match(data)
    if head is None:
        raise _malformed(bytes(data), source)
    del data[: head.end()]
    first = True
    while True:
        start = _next(data, source, b"]{")
        gap = bytes(data[:start]).strip()
        ended = data[start] == ord("]")
        if gap != (b"" if first or ended else b","):
            raise InvalidRequest(
                f"Invalid '{NAME}': expected an array of objects.", param=NAME, code="invalid_json"
            )
        if ended:
            del data[: start + 1]
            break
        del data[:start]
        end = _end(data, source, longest)
        yield bytes(data[:end])
        del data[:end]
        first = False
    for piece in source:
        data += piece
        if len(data) > HEAD_BYTES:
            break
    if bytes(data).strip() != b"}":
        raise InvalidRequest(
            f"The request body is not valid JSON with '{NAME}' as its only field.",
            code="invalid_json",
        )


def _next(data: bytearray, source: Iterator[bytes], marks: bytes) -> int:
    """The first of these marks; all before it is short in a valid body."""
    while True:
        places = [place for mark in marks if (place := data.find(mark)) >= 0]
        if places:
            return min(places)
        piece = next(source, None)
        if piece is None or len(data) > HEAD_BYTES:
            raise InvalidRequest("The request body is not valid JSON.", code="invalid_json")
        data += piece


def _end(data: bytearray, source: Iterator[bytes], longest: int) -> int:
    """Where the object ends that `data` begins with; reads on until then."""
    depth, place = 0, 0
    while True:
        mark = MARK.search(data, place)
        if mark is None:
            place = len(data)
        elif mark[0] == b'"':
            place, close = mark.start(), _closing(data, mark.start())
            if close >= 0:
                place = close + 1
                continue
        else:
            place = mark.end()
            depth += 1 if mark[0] in b"{[" else -1
            if not depth:
                return place
            continue
        if len(data) > longest:
            raise PayloadTooLarge(f"A request is too large: at most {longest} bytes are allowed.")
        piece = next(source, None)
        if piece is None:
            raise InvalidRequest("The request body is not valid JSON.", code="invalid_json")
        data += piece


def _closing(data: bytearray, quote: int) -> int:
    """Where the string ends that begins with this quote; -1: not in the data so far."""
    close = quote
    while (close := data.find(b'"', close + 1)) >= 0:
        escapes = close
        while data[escapes - 1] == ord("\\"):
            escapes -= 1
        if (close - escapes) % 2 == 0:
            return close
    return -1


def _malformed(data: bytes, source: Iterator[bytes]) -> InvalidRequest:
    """The error for a body that does not begin as it must."""
    rest = next(source, b"")
    if not rest:
        value = strict_json.loads(data)  # raises for what is no JSON
        if isinstance(value, dict) and NAME not in value:
            return InvalidRequest(
                f"Missing required parameter: '{NAME}'.",
                param=NAME,
                code="missing_required_parameter",
            )
    return InvalidRequest(
        f"The request body must be an object with '{NAME}', an array, as its only field.",
        param=NAME,
        code="invalid_value",
    )
