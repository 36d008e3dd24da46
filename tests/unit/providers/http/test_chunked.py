"""providers/http/chunked.py: chunked bodies, however the network cut them."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from providers.http.chunked import MAX_LINE, ChunkedBody


def chunked(*pieces: bytes, end: bytes = b"\r\n") -> bytes:
    body = b"".join(b"%x" % len(piece) + end + piece + end for piece in pieces if piece)
    return body + b"0" + end + end


def fed(*pieces: bytes) -> tuple[bytes, bool]:
    body = ChunkedBody()
    return b"".join(body.feed(piece) for piece in pieces), body.ended


def test_all_chunks_that_have_arrived_come_together():
    body = ChunkedBody()
    assert body.feed(b"3\r\none\r\n3\r\ntwo\r\n5\r\nth") == b"onetwoth"
    assert not body.ended
    assert body.feed(b"ree\r\n0\r\n\r\n") == b"ree"
    assert body.ended


@given(
    st.lists(st.binary(max_size=40), max_size=6),
    st.lists(st.integers(0, 300), max_size=8),
    st.sampled_from([b"\r\n", b"\n"]),
)
def test_a_body_is_the_same_however_it_was_cut(pieces, cuts, end):
    whole = chunked(*pieces, end=end)
    at = sorted({0, len(whole), *(min(cut, len(whole)) for cut in cuts)})
    cuts = [whole[a:b] for a, b in zip(at, at[1:], strict=False)]
    assert fed(*cuts) == (b"".join(pieces), True)
    assert fed(*(whole[i : i + 1] for i in range(len(whole)))) == (b"".join(pieces), True)


def test_extensions_and_trailers_are_passed_over():
    assert fed(b"3;name=value\r\none\r\n0;last\r\nDigest: x\r\n\r\n") == (b"one", True)


def test_a_body_without_its_last_chunk_has_not_ended():
    assert fed(b"3\r\none\r\n") == (b"one", False)
    assert fed(b"3\r\none\r\n0\r\n") == (b"one", False)


def test_what_follows_the_body_is_not_part_of_it():
    assert fed(chunked(b"one") + b"HTTP/1.1 200 OK") == (b"one", True)


@pytest.mark.parametrize(
    "wrong",
    [b"x\r\n", b"\r\n", b"-3\r\none\r\n", b"+3\r\none\r\n", b"1_0\r\n", b"0x3\r\none\r\n",
     b"f" * 17 + b"\r\n", b"3\r\none!\r\n", b"3\r\nonetwo\r\n", b"1" * (MAX_LINE + 1)],
)  # fmt: skip
def test_what_is_not_chunked_is_refused(wrong):
    with pytest.raises(ValueError):
        ChunkedBody().feed(wrong)
