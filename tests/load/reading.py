"""What the bytes of an answer mean, and when each of its tokens came."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tests.load.calls import Call

Pieces = Sequence[tuple[float, bytes]]


def read(call: Call, pieces: Pieces) -> None:
    """Note in `call` what the pieces of its answer say; times are those of their arrival."""
    head, rest = _split(pieces)
    if not head:
        return
    status, *lines = head.decode("latin-1").split("\r\n")
    headers = {n.lower(): v.strip() for n, _, v in (line.partition(":") for line in lines)}
    call.status = int(status.split(" ")[1])
    call.should_retry = headers.get("x-should-retry", "")
    call.retry_after = headers.get("retry-after", "")
    body = _dechunked(rest) if "chunked" in headers.get("transfer-encoding", "") else iter(rest)
    if headers.get("content-type", "").startswith("text/event-stream"):
        _read_events(call, body)
    else:
        _read_whole(call, list(body))


def _split(pieces: Pieces) -> tuple[bytes, list[tuple[float, bytes]]]:
    """The head, and the pieces of the body."""
    start = b""
    for number, (when, data) in enumerate(pieces):
        start += data
        head, blank, body = start.partition(b"\r\n\r\n")
        if blank:
            return head, [(when, body), *pieces[number + 1 :]]
    return b"", []


def _dechunked(pieces: Pieces) -> Iterator[tuple[float, bytes]]:
    """The bodies of the chunks, each with the time of its last byte."""
    buffer = b""
    for when, data in pieces:
        buffer += data
        while True:
            size, line, rest = buffer.partition(b"\r\n")
            length = int(size, 16) if line else 0
            if not line or len(rest) < length + 2:
                break
            yield when, rest[:length]
            buffer = rest[length + 2 :]


def _read_whole(call: Call, body: Pieces) -> None:
    text = b"".join(data for _, data in body)
    try:
        answer = json.loads(text)
    except ValueError:
        call.broken = call.broken or "cut"
        return
    call.first = body[-1][0] - call.began
    _take(call, answer)


def _read_events(call: Call, body: Iterator[tuple[float, bytes]]) -> None:
    buffer, last, texts = b"", 0.0, []
    for when, data in body:
        *events, buffer = (buffer + data).split(b"\n\n")
        tokens = sum(_read_event(call, event, texts) for event in events)
        if tokens and last:
            call.gaps.append(when - last)
        elif tokens:
            call.first = when - call.began
        if tokens:
            last = when
    call.text = "".join(texts)


def _read_event(call: Call, event: bytes, texts: list[str]) -> bool:
    """Take an event in; whether it was a token."""
    if not event.startswith(b"data: "):
        return False
    if event == b"data: [DONE]":
        call.done = True
        return False
    before = len(texts)
    _take(call, json.loads(event[6:]), texts)
    return len(texts) > before


def _take(call: Call, body: dict[str, Any], texts: list[str] | None = None) -> None:
    if "error" in body:
        call.code = body["error"].get("code") or body["error"].get("type") or "error"
        return
    for choice in body.get("choices", ()):
        said = (choice.get("delta") or choice.get("message") or {}).get("content") or ""
        if texts is None:
            call.text += said
        elif said:
            texts.append(said)
        call.reasons += choice.get("finish_reason") is not None
