"""What is taken out of a model's text while it streams: a JSON object, or a tool's raw input."""

from __future__ import annotations

import json
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


# The arguments of a tool with a raw input, up to that input.
_START = re.compile(r'\s*\{\s*"input"\s*:\s*"')
# A JSON string up to its end, or up to an escape that may be incomplete.
_HIGH = r"\\u[dD][89abAB][0-9a-fA-F]{2}"
_COMPLETE = re.compile(
    rf'(?:[^"\\]+|\\[^u]|{_HIGH}(?:\\u[0-9a-fA-F]{{4}}|(?=[^\\]|\\[^u]))'
    r"|\\u(?![dD][89abAB])[0-9a-fA-F]{4})*",
    re.DOTALL,
)


class InputText:
    """Passes on the raw input of a custom tool, which the model writes as `{"input": "..."}`."""

    def __init__(self) -> None:
        self._waiting = ""  # JSON that is not passed on yet
        self._began = self._ended = False

    def feed(self, piece: str) -> str:
        """Return the raw input in the next piece of JSON."""
        if self._ended:
            return ""
        self._waiting += piece
        if not self._began:
            start = _START.match(self._waiting)
            if start is None:
                return ""
            self._began, self._waiting = True, self._waiting[start.end() :]
        complete = _COMPLETE.match(self._waiting)
        assert complete is not None  # it also matches nothing
        self._waiting = self._waiting[complete.end() :]
        self._ended = self._waiting.startswith('"')
        return _unescaped(complete.group())

    def rest(self) -> str:
        """Return what is left at the end: all of the arguments, if they have another form."""
        if self._began:
            return ""
        try:
            value = orjson.loads(self._waiting or "{}")
        except orjson.JSONDecodeError:
            return self._waiting
        if isinstance(value, dict) and len(value) < 2:
            inner = next(iter(value.values()), "")
            return inner if isinstance(inner, str) else self._waiting
        return self._waiting


def _unescaped(text: str) -> str:
    try:
        value: str = json.loads(f'"{text}"', strict=False)
    except json.JSONDecodeError:
        return text
    return value.encode("utf-8", "replace").decode()  # a lone surrogate is no text
