"""api/http/sse.py: server-sent events on the wire."""

from __future__ import annotations

from api.http import sse


def test_an_event_is_framed_with_and_without_a_name():
    assert sse.event(b"{}") == b"data: {}\n\n"
    assert sse.event(b"{}", "error") == b"event: error\ndata: {}\n\n"


def test_typed_objects_become_events_that_are_named_after_their_type():
    events = sse.typed_events([{"type": "ping"}, {"type": "stop", "index": 0}])
    assert events == (
        b'event: ping\ndata: {"type":"ping"}\n\nevent: stop\ndata: {"type":"stop","index":0}\n\n'
    )
    assert sse.typed_events([]) == b""


def test_a_comment_and_the_end_marker_are_events_of_their_own():
    assert sse.COMMENT.startswith(b":")
    assert sse.DONE == b"data: [DONE]\n\n"
    assert sse.COMMENT.endswith(b"\n\n")
