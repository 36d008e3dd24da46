"""The JSON object that is taken out of a model's text while it streams."""

from __future__ import annotations

import re

import orjson

from gateway.errors import UpstreamRejected

_PLAIN = re.compile(r'[^"\\{}\[\]]+')


class ObjectText:
    """Passes on the JSON object in a text, without fences or words around it."""

    def __init__(self) -> None:
        self._depth = 0
        self._in_string = self._escaped = False
        self._pieces: list[str] = []

    def feed(self, text: str) -> str:
        """Return what belongs to the object of the next piece of text."""
        start, end = (0 if self._depth else -1), 0
        while end < len(text):
            if self._depth and not self._escaped and (plain := _PLAIN.match(text, end)):
                end = plain.end()
                continue
            char = text[end]
            end += 1
            if self._escaped:
                self._escaped = False
            elif self._in_string:
                self._escaped = char == "\\"
                self._in_string = char != '"'
            elif self._depth == 0:
                if char == "{" and not self._pieces and start < 0:
                    start, self._depth = end - 1, 1
            elif char == '"':
                self._in_string = True
            elif char in "{[":
                self._depth += 1
            elif char in "}]":
                self._depth -= 1
                if self._depth == 0:
                    break
        piece = text[start:end] if start >= 0 else ""
        if piece:
            self._pieces.append(piece)
        return piece

    def check(self) -> None:
        """Raise UpstreamRejected unless the text held a JSON object, with Groq's code for that."""
        try:
            orjson.loads("".join(self._pieces))
        except orjson.JSONDecodeError:
            pass
        else:
            return
        raise UpstreamRejected(
            "The model's response is not a JSON object.", code="json_validate_failed"
        )
