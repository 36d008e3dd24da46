"""What came over a connection: HTTP heads, chunks and server-sent events, with their times."""

from __future__ import annotations

import bisect
import itertools
import json
import re
from collections.abc import Sequence
from dataclasses import dataclass, field

Pieces = Sequence[tuple[float, bytes]]
LENGTH = re.compile(rb"\r\ncontent-length: *(\d+)", re.IGNORECASE)
CHUNKED = re.compile(rb"\r\ntransfer-encoding: *chunked", re.IGNORECASE)
WORD = re.compile(r"w(\d+)@(\d+) ")


def needed(start: bytes) -> int:
    """How long the whole answer is that begins with these bytes, or -1: its chunks tell."""
    head = start.partition(b"\r\n\r\n")[0]
    length = LENGTH.search(head)
    if length is None or CHUNKED.search(head):
        return -1
    return len(head) + 4 + int(length[1])


def status(pieces: Pieces) -> int:
    """The answer's HTTP status, or 0 where there is none."""
    match = re.match(rb"HTTP/1\.\d (\d{3})", pieces[0][1] if pieces else b"")
    return int(match[1]) if match else 0


def problem(pieces: Pieces) -> str:
    """What is wrong with an unstreamed answer, in a word or two, or ""."""
    if status(pieces) != 200:
        return f"status {status(pieces)}"
    return "" if b"capital of France is Paris" in b"".join(data for _, data in pieces) else "body"


@dataclass
class Stream:
    """The deltas of one streamed answer, as they reached the client."""

    problem: str = ""
    arrivals: list[float] = field(default_factory=list)  # of each delta, monotonic seconds
    delays: list[float] = field(default_factory=list)  # from the upstream's writing, seconds

    @property
    def gap(self) -> float:
        """The longest wait between two deltas, in seconds."""
        return max((b - a for a, b in itertools.pairwise(self.arrivals)), default=0.0)


def stream(pieces: Pieces, words: int) -> Stream:
    """Take a streamed answer apart and check each of its frames."""
    if status(pieces) != 200:
        return Stream(f"status {status(pieces)}")
    try:
        body, offsets = _dechunk(b"".join(data for _, data in pieces))
    except ValueError:
        return Stream("chunks")
    times = _Times(pieces)
    found = Stream()
    ends: list[str] = []
    at = 0
    for frame in body.split(b"\n\n")[:-1]:
        at += len(frame) + 2
        _take(frame, times.of(offsets.of(at - 1)), found, ends)
    found.problem = found.problem or _verdict(found, ends, words)
    return found


def _take(frame: bytes, arrived: float, found: Stream, ends: list[str]) -> None:
    if not frame.startswith(b"data:"):
        return  # a comment
    text = frame[5:].strip()
    if text == b"[DONE]":
        ends.append("done")
        return
    try:
        choices = json.loads(text)["choices"]
    except (ValueError, KeyError, TypeError):
        found.problem = "frame"
        return
    for choice in choices:
        for word in WORD.finditer(choice["delta"].get("content") or ""):
            if int(word[1]) != len(found.arrivals):
                found.problem = "order"
            found.arrivals.append(arrived)
            found.delays.append(arrived - int(word[2]) / 1e6)
        if choice.get("finish_reason"):
            ends.append(choice["finish_reason"])


def _verdict(found: Stream, ends: list[str], words: int) -> str:
    if len(found.arrivals) != words:
        return f"{len(found.arrivals)} of {words} deltas"
    return "" if ends == ["stop", "done"] else f"end {'+'.join(ends) or 'missing'}"


class _Offsets:
    """Where in the raw bytes a byte of the body is."""

    def __init__(self) -> None:
        self.body: list[int] = []
        self.raw: list[int] = []

    def of(self, position: int) -> int:
        index = bisect.bisect_right(self.body, position) - 1
        return self.raw[index] + position - self.body[index]


class _Times:
    """When a raw byte came."""

    def __init__(self, pieces: Pieces) -> None:
        self._ends = list(itertools.accumulate(len(data) for _, data in pieces))
        self._times = [time for time, _ in pieces]

    def of(self, position: int) -> float:
        return self._times[bisect.bisect_right(self._ends, position)]


def _dechunk(raw: bytes) -> tuple[bytes, _Offsets]:
    """The body of a whole answer. Raises ValueError if its chunks are not whole."""
    start = raw.index(b"\r\n\r\n") + 4
    offsets, body = _Offsets(), bytearray()
    if needed(raw) >= 0:
        offsets.body, offsets.raw = [0], [start]
        return raw[start:], offsets
    while True:
        line = raw.index(b"\r\n", start)
        size = int(raw[start:line].partition(b";")[0], 16)
        if size == 0:
            return bytes(body), offsets
        offsets.body.append(len(body))
        offsets.raw.append(line + 2)
        body += raw[line + 2 : line + 2 + size]
        start = line + 2 + size + 2
        if start > len(raw):
            raise ValueError("cut")
