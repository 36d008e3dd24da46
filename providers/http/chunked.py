"""Takes chunked bodies (RFC 9112, section 7.1) apart, all that has arrived at a time.

http.client hands out one chunk a reading, and providers send each token in a chunk of its own: a
worker that has fallen behind would never catch up by taking several tokens at once.
"""

from __future__ import annotations

import string

MAX_LINE = 1 << 14  # bytes; sizes have some digits, trailers are not used
_DIGITS = frozenset(string.hexdigits.encode())


class ChunkedBody:
    """One body; `ended` once its last byte has been fed."""

    def __init__(self) -> None:
        self.ended = False
        self._rest = b""  # the beginning of a line
        self._left = 0  # bytes of the current chunk that have not come yet
        self._closing = False  # a chunk's bytes are over, the end of their line is not
        self._trailers = False  # the last chunk is over

    def feed(self, data: bytes) -> bytes:
        """What these bytes hold of the body; raises ValueError for what is not chunked."""
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
            raise ValueError("line too long")
        return b"".join(payload)

    def _line(self, line: bytes) -> None:
        if self._closing:
            if line:
                raise ValueError("no end of chunk")
            self._closing = False
        elif self._trailers:
            self.ended = not line
        else:
            self._left = _size(line)
            self._trailers = not self._left


def _size(line: bytes) -> int:
    digits = line.partition(b";")[0].strip()
    # int() would also take signs and underscores.
    if not digits or len(digits) > 16 or not _DIGITS.issuperset(digits):
        raise ValueError("no size of a chunk")
    return int(digits, 16)
