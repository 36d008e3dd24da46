"""What the clients of a load make of the bytes that came, and of their times."""

from __future__ import annotations

import json

import pytest

from tests.load.calls import Call
from tests.load.reading import read

HEAD = b"HTTP/1.1 %d OK\r\nContent-Type: %b\r\n%b\r\n\r\n"
STREAM = HEAD % (200, b"text/event-stream", b"Transfer-Encoding: chunked")


def call(stream: bool = True) -> Call:
    return Call("n1x", "fake/nonce-stream-2-10", stream, began=100.0)


def chunk(*events: bytes) -> bytes:
    data = b"".join(b"data: " + event + b"\n\n" for event in events)
    return b"%x\r\n%b\r\n" % (len(data), data)


def token(text: str, reason: str | None = None) -> bytes:
    return json.dumps({"choices": [{"delta": {"content": text}, "finish_reason": reason}]}).encode()


END = chunk(token("", "stop"), b"[DONE]") + b"0\r\n\r\n"


def test_a_stream_has_its_text_and_the_times_of_its_tokens() -> None:
    seen = call()
    pieces = [
        (101.0, STREAM),
        (102.0, chunk(token("n1x "))),
        (102.5, b"e\r\n: keep-alive\n\n\r\n"),
        (103.0, chunk(token("t0 "), token("t1 "))),
        (103.1, END),
    ]
    read(seen, pieces)
    assert (seen.text, seen.text, seen.reasons, seen.done) == ("n1x t0 t1 ", seen.wanted, 1, True)
    assert (seen.first, seen.gaps) == (2.0, [1.0])


@pytest.mark.parametrize("size", [1, 2, 7, 50])
def test_how_the_bytes_were_cut_changes_no_text(size: int) -> None:
    seen, data = call(), STREAM + chunk(token("n1x "), token("t0 ")) + chunk(token("t1 ")) + END
    read(seen, [(101.0 + at, data[at : at + size]) for at in range(0, len(data), size)])
    assert (seen.text, seen.done, seen.status) == (seen.wanted, True, 200)
    assert len(seen.gaps) in (1, 2)


def test_a_stream_that_just_ends_has_no_end() -> None:
    seen = call()
    read(seen, [(101.0, STREAM + chunk(token("n1x ")) + chunk(token("t0 "))[:-9])])
    assert (seen.text, seen.reasons, seen.done) == ("n1x ", 0, False)


def test_a_refusal_says_why_and_when_to_come_back() -> None:
    seen = call()
    head = HEAD % (503, b"application/json", b"Retry-After: 7\r\nx-should-retry: true")
    read(seen, [(101.0, head + b'{"error": {"code": "server_is_overloaded"}}')])
    assert (seen.status, seen.code) == (503, "server_is_overloaded")
    assert (seen.retry_after, seen.should_retry) == ("7", "true")


def test_an_error_within_a_stream_is_an_error() -> None:
    seen = call()
    read(seen, [(101.0, STREAM + chunk(b'{"error": {"code": "slow_reader"}}') + END)])
    assert (seen.status, seen.code) == (200, "slow_reader")


def test_half_an_answer_is_broken() -> None:
    seen = call(stream=False)
    read(seen, [(101.0, HEAD % (200, b"application/json", b"Content-Length: 99") + b'{"choi')])
    assert (seen.status, seen.broken) == (200, "cut")


def test_where_nothing_came_nothing_is_said() -> None:
    seen = call()
    read(seen, [])
    assert (seen.status, seen.text) == (0, "")
