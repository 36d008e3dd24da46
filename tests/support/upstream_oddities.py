"""Answers of the fake provider that hardly any provider gives: their words are in upstream_answers.

A Shape is how a sound answer is written; INSTEAD holds what comes in the place of one.
"""

from __future__ import annotations

import asyncio
import functools
import json
import zlib
from typing import Any

MEGABYTE = 1 << 20
EVENTS = {"Content-Type": "text/event-stream"}
CHUNKED = {**EVENTS, "Transfer-Encoding": "chunked"}
EARLY = b"HTTP/1.1 103 Early Hints\r\nLink: </style.css>; rel=preload\r\n\r\n"
HUGE = 2**70
UNKNOWN = {"x_number": HUGE, "x_nothing": None, "x_deep": [{"y": [[1e-300]]}], "service_tier": 5}


class Shape:
    """How the bytes of one answer are written."""

    def __init__(self, words: dict[str, list[int]], ping: bytes) -> None:
        self._words, self._ping, self._begun = words, ping, False
        self.closes = "http10" in words
        self.end = b"" if self.closes else b"0\r\n\r\n"
        if "trailers" in words:
            self.end = b"0\r\nX-Checksum: 1\r\nX-Second: 2\r\n\r\n"

    def head(self, connection: Any) -> bytes:
        """The head of a stream."""
        early = EARLY if "early" in self._words else b""
        if self.closes:
            return early + connection.head(200, EVENTS).replace(b"HTTP/1.1", b"HTTP/1.0")
        return early + connection.head(200, CHUNKED)

    def piece(self, events: bytes) -> bytes:
        """Some events of a stream."""
        if "strange" in self._words:
            events = b"".join(map(_strange_event, events.split(b"\n\n")[:-1]))
        if "wild" in self._words:
            events = self._wild(events)
        return events if self.closes else b"%x\r\n%b\r\n" % (len(events), events)

    async def whole(self, connection: Any, body: bytes) -> None:
        """An unstreamed answer."""
        if "strange" in self._words:
            body = _strange(json.loads(body))
        if "early" in self._words:
            await connection.write(EARLY)
        if not self.closes:
            connection.reply(200, body)
            return
        head = connection.head(200, {"Content-Type": "application/json"})
        await connection.write(head.replace(b"HTTP/1.1", b"HTTP/1.0") + body)
        connection.transport.close()

    def _wild(self, events: bytes) -> bytes:
        """The same events, written as nobody writes them and everybody may."""
        # A line that ends within JSON, where JSON allows white space: one datum in two lines.
        events = events.replace(b'", "', b'",\ndata: "', 1)
        opening = b"" if self._begun else b"\xef\xbb\xbf"
        self._begun = True
        return opening + (b": a comment\nretry: 10\nid: 7\n" + events).replace(b"\n", b"\r\n")


def _strange_event(event: bytes) -> bytes:
    lines = []
    for line in event.split(b"\n"):
        if line.startswith(b"data: {"):
            line = b"data: " + _strange(json.loads(line[6:]))
        lines.append(line)
    return b"\n".join(lines) + b"\n\n"


def _strange(body: dict[str, Any]) -> bytes:
    """A body with more in it than anybody asked for."""
    body = {"usage": None, **body, **UNKNOWN}
    for choice in body.get("choices") or ():
        choice.update(UNKNOWN)
        (choice.get("delta") or choice.get("message") or {}).update(UNKNOWN)
    return json.dumps(body, ensure_ascii=False).encode()


async def _drip(answer: Any) -> None:
    words = answer.words
    shape, pause = answer.shape, (words.get("drip") or [1000])[0] / 1000
    if answer.params.get("stream"):
        body = b"".join(map(answer.dialect.delta, answer.deltas))
        await answer.connection.write(shape.head(answer.connection))
        pieces = [shape.piece(body[i : i + 1]) for i in range(len(body))]
    else:
        body = answer.dialect.whole("".join(answer.deltas))
        length = {"Content-Type": "application/json", "Content-Length": str(len(body))}
        await answer.connection.write(answer.connection.head(200, length))
        pieces = [body[i : i + 1] for i in range(len(body))]
    for piece in pieces:
        await answer.connection.write(piece)
        await asyncio.sleep(pause)


async def _endless(answer: Any) -> None:
    shape, dialect = answer.shape, answer.dialect
    await answer.connection.write(shape.head(answer.connection) + shape.piece(dialect.opening()))
    await answer.connection.write(shape.piece(dialect.delta(f"{answer.text} ")))
    piece = shape.piece(dialect.delta("x" * 4096)) * 4
    while True:
        await answer.connection.write(piece)
        await asyncio.sleep(0)


async def _line(answer: Any) -> None:
    megabytes = (answer.words.get("line") or [10])[0]
    shape = answer.shape
    await answer.connection.write(shape.head(answer.connection) + shape.piece(b"data: "))
    for _ in range(megabytes):
        await answer.connection.write(shape.piece(b"x" * MEGABYTE))
    await answer.connection.write(shape.piece(b"\n\n") + shape.end)


@functools.cache
def _packed(megabytes: int) -> bytes:
    packer = zlib.compressobj(wbits=31)
    packed = b"".join(packer.compress(b" " * MEGABYTE) for _ in range(megabytes))
    return packed + packer.flush()


async def _bomb(answer: Any) -> None:
    packed = _packed((answer.words.get("bomb") or [10])[0])
    answer.connection.reply(200, packed, {"Content-Encoding": "gzip"})


async def _lengths(answer: Any) -> None:
    body = answer.dialect.whole("".join(answer.deltas))
    head = answer.connection.head(200, {"Content-Type": "application/json"})[:-2]
    both = b"Content-Length: %d\r\nContent-Length: %d\r\n\r\n" % (len(body), len(body) - 5)
    await answer.connection.write(head + both + body)


async def _short(answer: Any) -> None:
    body = answer.dialect.whole("".join(answer.deltas))
    answer.connection.reply(200, body, missing=-20)


INSTEAD = {
    "drip": _drip,
    "endless": _endless,
    "line": _line,
    "bomb": _bomb,
    "lengths": _lengths,
    "short": _short,
}
