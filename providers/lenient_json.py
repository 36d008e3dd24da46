"""Reads a provider's JSON: what costs a character must not cost the response."""

from __future__ import annotations

import json
import re
from typing import Any

import orjson

from gateway.errors import UpstreamBadResponse

# An escaped backslash or a whole pair, which stay as they are; or half a pair.
_SURROGATE = re.compile(
    r"(\\\\|\\ud[89ab][0-9a-f]{2}\\ud[c-f][0-9a-f]{2})|\\ud[89a-f][0-9a-f]{2}", re.IGNORECASE
)
_SURROGATE_BYTES = re.compile(rb"\xed[\xa0-\xbf][\x80-\xbf]")  # half a pair as UTF-8 may not be
_REPLACEMENT = "\N{REPLACEMENT CHARACTER}".encode()
_PIECE_OF_OBJECT = re.compile(r'[{}"]')
_LONGEST_INTEGER = 18  # digits that always fit 64 bits


def text(data: bytes | bytearray) -> str:
    """Return the text of UTF-8; bytes that are none become replacement characters."""
    try:
        return data.decode()
    except UnicodeDecodeError:
        return _SURROGATE_BYTES.sub(_REPLACEMENT, data).decode("utf-8", "replace")


def loads(document: bytes | bytearray | str) -> Any:
    """Return the value of a JSON document; raises ValueError.

    Beyond JSON it takes: halves of surrogate pairs and bytes that are not UTF-8, each as a
    replacement character; NaN and infinities, as null; control characters; a byte order mark.
    """
    try:
        return orjson.loads(document)
    except orjson.JSONDecodeError:
        pass
    source = document if isinstance(document, str) else text(document)
    source = _SURROGATE.sub(lambda match: match[1] or r"\ufffd", source.removeprefix("\ufeff"))
    try:
        return orjson.loads(source)
    except orjson.JSONDecodeError:
        pass
    try:
        return json.loads(source, strict=False, parse_constant=_null, parse_int=_integer)
    except RecursionError:
        raise ValueError("nested too deeply") from None


def event(data: str) -> Any:
    """Return the value in an event of a stream; None for a keep-alive that is no JSON.

    Raises UpstreamBadResponse for a broken object: the response would lack what it held.
    """
    try:
        return loads(data)
    except ValueError:
        if _PIECE_OF_OBJECT.search(data):
            raise UpstreamBadResponse("The provider's stream holds a broken event.") from None
    return None


def _null(name: str) -> None:
    return None


def _integer(digits: str) -> int | float:
    return int(digits) if len(digits) <= _LONGEST_INTEGER else float(digits)
