"""Decodes chunked bodies (RFC 9112, section 7.1): all chunks that have arrived at once.

Providers send each token in a chunk of its own. A worker that has fallen behind catches up only if
it reads several tokens at once.
"""

from __future__ import annotations

import re

MAX_LINE = 1 << 14  # bytes; longer ones are neither a size nor trailers

_SIZE = rb"[ \t]*([0-9A-Fa-f]{1,16})[ \t]*(?:;[^\n]*)?\r?\n"
# What is read between the bytes of chunks, and what may have come of it so far.
_FIRST = re.compile(_SIZE), re.compile(rb"[^\n]*")
_NEXT = re.compile(rb"\r?\n" + _SIZE), re.compile(rb"\r?(?:\n[^\n]*)?")
_TRAILERS = re.compile(rb"(?:\r?[^\r\n][^\n]*\n)*\r?\n"), re.compile(rb".*", re.DOTALL)


class ChunkedBody:
    """One body. `ended` is true once its last byte has been fed; `rest` is what follows it then."""

    def __init__(self) -> None:
        self.ended = False
        self.rest = b""  # before the end: of what is between two chunks
        self._left = 0  # bytes of the current chunk that have not come
        self._between, self._partial = _FIRST

    def feed(self, data: bytes) -> bytes:
        """Return the content in these bytes; raises ValueError if they are not chunked."""
        data = self.rest + data
        payload = [data[: self._left]]
        at = len(payload[0])
        self._left -= at
        while not self._left and (match := self._between.match(data, at)):
            at = match.end()
            if match.re is _TRAILERS[0]:
                self.ended = True
                break
            size = int(match[1], 16)
            self._between, self._partial = _NEXT if size else _TRAILERS
            payload.append(data[at : at + size])
            self._left = size - len(payload[-1])
            at += size
        self.rest = data[at:]
        if self.rest and not self.ended:
            self._check_rest()
        return b"".join(payload)

    def _check_rest(self) -> None:
        if len(self.rest) > MAX_LINE:
            raise ValueError("a line is too long")
        if not self._partial.fullmatch(self.rest):
            raise ValueError("a chunk without a size or an end")
