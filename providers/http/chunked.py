"""Decodes chunked bodies (RFC 9112, section 7.1): all chunks that have arrived at once.

http.client returns one chunk a read, and providers send each token in a chunk of its own. A worker
that has fallen behind catches up only if it reads several tokens at once.
"""

from __future__ import annotations

import string

MAX_LINE = 1 << 14  # bytes; longer ones are neither a size nor a trailer
_DIGITS = frozenset(string.hexdigits.encode())


class ChunkedBody:
    """One body. `ended` is true once its last byte has been fed."""

    def __init__(self) -> None:
        self.ended = False
        self._rest = b""  # of a line whose end has not come
        self._left = 0  # bytes of the current chunk that have not come
        self._closing = False  # the bytes of a chunk have come, the end of its line has not
        self._trailers = False  # the last chunk has come

    def feed(self, data: bytes) -> bytes:
        """Return the content in these bytes; raises ValueError if they are not chunked."""
        if self._rest:
            data = self._rest + data
        payload: list[bytes] = []
        at = 0
        while not self.ended:
            if self._left:
                piece = data[at : at + self._left]
                payload.append(piece)
                at += len(piece)
                self._left -= len(piece)
                self._closing = not self._left
            end = -1 if self._left else data.find(b"\n", at)
            if end < 0:
                break
            self._line(data[at:end].removesuffix(b"\r"))
            at = end + 1
        self._rest = data[at:]
        if len(self._rest) > MAX_LINE:
            raise ValueError("a line is too long")
        return b"".join(payload)

    def _line(self, line: bytes) -> None:
        if self._closing:
            if line:
                raise ValueError("a chunk without an end")
            self._closing = False
        elif self._trailers:
            self.ended = not line
        else:
            self._left = _size(line)
            self._trailers = not self._left


def _size(line: bytes) -> int:
    digits = line.partition(b";")[0].strip()
    # int() also takes signs and underscores.
    if not digits or len(digits) > 16 or not _DIGITS.issuperset(digits):
        raise ValueError("a chunk without a size")
    return int(digits, 16)
