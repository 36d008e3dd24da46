"""Server-sent events are read alike however the network cuts them."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.errors import UpstreamBadResponse
from providers.http.sse import MAX_LINE, EventSplitter


def read(*pieces: bytes) -> list[tuple[str, str]]:
    splitter = EventSplitter()
    events = [event for piece in pieces for event in splitter.feed(piece)]
    return events + splitter.close()


CASES = {
    "plain": (b"data: a\n\ndata: b\n\n", [("message", "a"), ("message", "b")]),
    "crlf": (b"data: a\r\n\r\ndata: b\r\n\r\n", [("message", "a"), ("message", "b")]),
    "cr": (b"data: a\r\rdata: b\r\r", [("message", "a"), ("message", "b")]),
    "named": (b"event: ping\ndata: {}\n\ndata: b\n\n", [("ping", "{}"), ("message", "b")]),
    "no space": (b"event:x\ndata:a\n\n", [("x", "a")]),
    "two spaces": (b"data:  a\n\n", [("message", " a")]),
    "several lines": (b"data: a\ndata:\ndata: b\n\n", [("message", "a\n\nb")]),
    "several lines, crlf": (b"data: a\r\ndata: b\r\n\r\n", [("message", "a\nb")]),
    "empty data": (b"data\n\ndata:\n\n", [("message", ""), ("message", "")]),
    "comments": (b": hello\n\n:\ndata: a\n: between\ndata: b\n\n", [("message", "a\nb")]),
    "byte order mark": (b"\xef\xbb\xbfdata: a\n\n", [("message", "a")]),
    "other fields": (b"id: 7\nretry: 10\nnonsense\ndata: a\n\n", [("message", "a")]),
    "name without data": (b"event: x\n\ndata: a\n\n", [("message", "a")]),
    "no last blank line": (b"data: a\n\ndata: b", [("message", "a"), ("message", "b")]),
    "no last line": (b"data: a\ndata: b\n", [("message", "a\nb")]),
    "unicode separators": (
        "data: a\u2028b\u2029c\u0085d\x0b\n\n".encode(),
        [("message", "a\u2028b\u2029c\u0085d\x0b")],
    ),
    "four bytes": ("data: \U0001f600é\n\n".encode(), [("message", "\U0001f600é")]),
    "not utf-8": (b"data: a\xff\n\n", [("message", "a\ufffd")]),
    "nothing": (b"", []),
}


@pytest.mark.parametrize("name", CASES)
def test_a_stream_is_split_into_its_events(name):
    stream, events = CASES[name]
    assert read(stream) == events


@pytest.mark.parametrize("name", CASES)
def test_every_cut_gives_the_same_events(name):
    stream, events = CASES[name]
    for cut in range(len(stream) + 1):
        assert read(stream[:cut], stream[cut:]) == events
    assert read(*(bytes([byte]) for byte in stream)) == events


@given(
    st.lists(st.text(st.characters(exclude_characters="\r\n", exclude_categories=["Cs"]))),
    st.sampled_from([b"\n", b"\r\n", b"\r"]),
    st.randoms(),
)
def test_any_text_survives_any_cut(texts, newline, random):
    stream = b"".join(b"data: %s%s%s" % (text.encode(), newline, newline) for text in texts)
    cuts = sorted(random.randrange(len(stream) + 1) for _ in range(5))
    pieces = [stream[a:b] for a, b in zip([0, *cuts], [*cuts, len(stream)], strict=True)]
    assert read(*pieces) == [("message", text) for text in texts]


@pytest.mark.parametrize("size", [1, 4096, 3 * MAX_LINE])
def test_a_line_without_end_is_refused(size):
    splitter = EventSplitter()
    with pytest.raises(UpstreamBadResponse):
        for _ in range(0, 2 * MAX_LINE, size if size > 1 else 1024):
            splitter.feed(b"x" * max(size, 1024))


def test_a_long_line_that_ends_in_the_same_piece_is_refused_too():
    with pytest.raises(UpstreamBadResponse):
        EventSplitter().feed(b"data: " + b"x" * MAX_LINE + b"\n\n")


def test_an_event_comes_as_soon_as_its_blank_line():
    splitter = EventSplitter()
    assert splitter.feed(b"data: a\n") == []
    assert splitter.feed(b"\n") == [("message", "a")]
    assert splitter.feed(b"data: b\r\n\r") == [("message", "b")]
    assert splitter.feed(b"\ndata: c\r\n\r\n") == [("message", "c")]
