"""Server-sent events out of bytes, however the network cut them."""

from __future__ import annotations

from gateway.errors import UpstreamBadResponse

MAX_LINE = 1 << 20  # bytes; a longer line is no token of text

_BOM = b"\xef\xbb\xbf"


class EventSplitter:
    """Splits one stream into `(event, data)` pairs; holds what has not ended yet, so use it once.

    Works on bytes: text methods also break lines at U+2028 and U+0085, which JSON may contain.
    """

    def __init__(self) -> None:
        self._held = bytearray()  # the line that has not ended yet
        self._after_cr = False  # a CR ended the last piece: its LF may open the next one
        self._at_start = True
        self._event = ""
        self._data: list[bytes] = []

    def feed(self, piece: bytes) -> list[tuple[str, str]]:
        """The events that this piece of the stream completes; raises UpstreamBadResponse."""
        if self._after_cr and piece:
            self._after_cr = False
            if piece[0] == 10:
                piece = piece[1:]
        if b"\r" in piece:
            self._after_cr = piece.endswith(b"\r")
            piece = piece.replace(b"\r\n", b"\n").replace(b"\r", b"\n")
        if b"\n" not in piece:
            self._held += piece
            _check(len(self._held))
            return []
        lines = piece.split(b"\n")
        if self._held:
            lines[0] = bytes(self._held) + lines[0]
        self._held = bytearray(lines.pop())
        _check(len(self._held))
        return self._events(lines)

    def close(self) -> list[tuple[str, str]]:
        """The last event, where the stream ended without the blank line that should follow it."""
        lines = [bytes(self._held), b""]
        self._held.clear()
        return self._events(lines)

    def _events(self, lines: list[bytes]) -> list[tuple[str, str]]:
        if self._at_start:
            self._at_start = False
            lines[0] = lines[0].removeprefix(_BOM)
        events = []
        for line in lines:
            _check(len(line))
            if not line:
                if self._data:
                    data = self._data[0] if len(self._data) == 1 else b"\n".join(self._data)
                    events.append((self._event or "message", data.decode("utf-8", "replace")))
                    self._data = []
                self._event = ""
            elif line.startswith(b"data:"):
                self._data.append(line[6:] if line[5:6] == b" " else line[5:])
            elif line.startswith(b"event:"):
                self._event = line[6:].removeprefix(b" ").decode("utf-8", "replace")
            elif line == b"data":
                self._data.append(b"")
        return events


def _check(length: int) -> None:
    if length > MAX_LINE:
        raise UpstreamBadResponse("The provider's stream has a line that is too long.")
