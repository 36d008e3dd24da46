"""bench: what its client makes of the bytes that come over a connection."""

from __future__ import annotations

import json

import pytest

from bench import frames, load, targets
from bench.client import Endpoint, Exchange

HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"
DONE = b"data: [DONE]\n\n"


def delta(text: str | None, finish: str | None = None) -> bytes:
    choice = {"index": 0, "delta": {"content": text} if text else {}, "finish_reason": finish}
    return b"data: " + json.dumps({"choices": [choice]}).encode() + b"\n\n"


def chunk(data: bytes) -> bytes:
    return b"%x\r\n%b\r\n" % (len(data), data)


def pieces(*bodies: bytes, every: float = 0.02) -> list[tuple[float, bytes]]:
    """A whole answer: each body in a chunk and a piece of its own."""
    found = [(10.0 + every * index, chunk(body)) for index, body in enumerate(bodies)]
    return [(10.0, HEAD), *found, (11.0, b"0\r\n\r\n")]


STOP = delta(None, "stop")


def test_deltas_have_the_times_at_which_they_came():
    came = pieces(delta("w0@9999000 "), delta("w1@10010000 "), STOP + DONE)

    found = frames.stream(came, 2)

    assert found.problem == ""
    assert found.arrivals == pytest.approx([10.0, 10.02])
    assert found.delays == pytest.approx([0.001, 0.01])
    assert found.gap == pytest.approx(0.02)


def test_a_frame_in_two_pieces_came_with_its_last_byte():
    whole = HEAD + chunk(delta("w0@0 ")) + chunk(STOP + DONE) + b"0\r\n\r\n"
    cut = whole.index(b"w0@") + 2

    found = frames.stream([(1.0, whole[:cut]), (2.0, whole[cut:])], 1)

    assert found.problem == ""
    assert found.arrivals == [2.0]


def test_joined_deltas_and_comments_are_taken_apart():
    found = frames.stream(pieces(b": hello\n\n" + delta("w0@0 w1@0 "), STOP, DONE), 2)

    assert found.problem == ""
    assert len(found.arrivals) == 2


def test_frames_may_lie_across_chunks():
    frame = delta("w0@0 ")

    found = frames.stream(pieces(frame[:9], frame[9:], STOP + DONE), 1)

    assert found.problem == ""
    assert found.arrivals == pytest.approx([10.02])


@pytest.mark.parametrize(
    ("bodies", "problem"),
    [
        ([delta("w0@0 "), STOP + DONE], "1 of 2 deltas"),
        ([delta("w1@0 "), delta("w0@0 "), STOP + DONE], "order"),
        ([delta("w0@0 "), delta("w0@0 "), STOP + DONE], "order"),
        ([delta("w0@0 w1@0 ")], "end missing"),
        ([delta("w0@0 w1@0 "), DONE], "end done"),
        ([delta("w0@0 w1@0 "), STOP], "end stop"),
        ([delta("w0@0 w1@0 "), delta(None, "length") + DONE], "end length+done"),
        ([b'data: {"error":{}}\n\n'], "frame"),
        ([b"data: nothing\n\n"], "frame"),
    ],
)
def test_what_is_wrong_with_a_stream_is_told(bodies, problem):
    assert frames.stream(pieces(*bodies), 2).problem == problem


def test_a_stream_that_was_cut_or_refused_is_told():
    cut = [(1.0, HEAD + b"fff\r\ndata: ")]
    refused = [(1.0, b"HTTP/1.1 503 Busy\r\nContent-Length: 0\r\n\r\n")]

    assert frames.stream(cut, 2).problem == "chunks"
    assert frames.stream(refused, 2).problem == "status 503"
    assert frames.stream([], 2).problem == "status 0"


def test_the_length_of_an_answer_is_known_from_its_head():
    sized = b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nhel"

    assert frames.needed(sized) == len(sized) + 2
    assert frames.needed(HEAD) == -1


@pytest.mark.parametrize(
    ("answer", "problem"),
    [
        (b"HTTP/1.1 200 OK\r\n\r\n The capital of France is Paris.", ""),
        (b"HTTP/1.1 200 OK\r\n\r\n sorry", "body"),
        (b"HTTP/1.1 429 Slow\r\n\r\n", "status 429"),
        (b"", "status 0"),
    ],
)
def test_an_unstreamed_answer_is_looked_at(answer, problem):
    assert frames.problem([(0.0, answer)]) == problem


def exchange(slot: int, started: float, error: str = "") -> Exchange:
    words = [delta(f"w{word}@{int(started * 1e6)} ") for word in range(load.WORDS)]
    found = Exchange(slot, started, error=error)
    found.pieces = [(started + 0.5 + when, data) for when, data in pieces(*words, STOP + DONE)]
    return found


def test_a_connections_first_stream_is_checked_but_not_timed():
    cell = load.stream_cell([exchange(0, 1.0), exchange(0, 2.0), exchange(1, 1.0, "timeout")], 2)

    assert (cell.whole, cell.broken, cell.problems) == (2, 1, ["timeout"])
    assert cell.first_p50 == pytest.approx(10_500)
    assert cell.gap == pytest.approx(20)


def test_a_request_has_what_the_endpoint_wants():
    endpoint = Endpoint(81, "/v1/x", "m", {"Authorization": "Bearer k"})

    head, _, body = endpoint.request("wait=20", stream=True).partition(b"\r\n\r\n")

    assert head.startswith(b"POST /v1/x HTTP/1.1\r\n")
    assert b"Authorization: Bearer k" in head
    assert f"Content-Length: {len(body)}".encode() in head
    assert json.loads(body)["stream"] is True
    assert "wait=20" in json.loads(body)["messages"][0]["content"]


def test_a_gateway_that_does_not_start_is_stopped():
    stopped = []

    class Half(targets.Running):
        def stop(self) -> None:
            stopped.append(True)

    def fails() -> None:
        raise targets.DidNotServe("no")

    with pytest.raises(targets.DidNotServe):
        targets.begin(Half(Endpoint(1)), fails)
    assert stopped == [True]
