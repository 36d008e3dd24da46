"""Splits a stream of bytes into server-sent events."""

from __future__ import annotations

from gateway.errors import UpstreamBadResponse
from providers import lenient_json

MAX_LINE = 1 << 20  # bytes; a longer line cannot be a token of text

_BOM = b"\xef\xbb\xbf"


class EventSplitter:
    """Splits one stream into `(event, data)` pairs. It has state: use it once.

    A line that begins an object without being a field, which the format forbids, is an event: some
    servers and proxies report errors so.

    Works on bytes: text methods also break lines at U+2028 and U+0085, which JSON may contain.
    """

    def __init__(self) -> None:
        self._rest = bytearray()  # of a line whose end has not come
        self._after_cr = False  # the data ended in CR: the next may begin with its LF
        self._at_start = True
        self._event = ""
        self._data: list[bytes] = []

    @property
    def between_events(self) -> bool:
        """Whether the last byte ended an event, or there was none."""
        return not (self._rest or self._data or self._event or self._after_cr)

    def feed(self, data: bytes) -> list[tuple[str, str]]:
        """Return the events that end in these bytes; raises UpstreamBadResponse."""
        if self._after_cr and data:
            self._after_cr = False
            if data[0] == 10:
                data = data[1:]
        if b"\r" in data:
            self._after_cr = data.endswith(b"\r")
            data = data.replace(b"\r\n", b"\n").replace(b"\r", b"\n")
        if b"\n" not in data:
            self._rest += data
            _check(len(self._rest))
            return []
        lines = data.split(b"\n")
        if self._rest:
            lines[0] = bytes(self._rest) + lines[0]
        self._rest = bytearray(lines.pop())
        _check(len(self._rest))
        return self._events(lines)

    def close(self) -> list[tuple[str, str]]:
        """Return the last event, if the stream ended without a blank line after it."""
        lines = [bytes(self._rest), b""]
        self._rest.clear()
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
                    text = self._data[0] if len(self._data) == 1 else b"\n".join(self._data)
                    events.append((self._event or "message", lenient_json.text(text)))
                    self._data = []
                self._event = ""
            elif line.startswith(b"data:"):
                self._data.append(line[6:] if line[5:6] == b" " else line[5:])
            elif line.startswith(b"event:"):
                self._event = line[6:].removeprefix(b" ").decode("utf-8", "replace")
            elif line.startswith(b"{"):
                events.append((self._event or "message", lenient_json.text(line)))
            elif line == b"data":
                self._data.append(b"")
        return events


def _check(length: int) -> None:
    if length > MAX_LINE:
        raise UpstreamBadResponse("A line of the provider's stream is too long.")
