"""How long and how much a provider may answer: patience before and within, and every cap."""

from __future__ import annotations

import gc
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import SimpleNamespace
from typing import Any

import pytest

from gateway.errors import UpstreamBadResponse, UpstreamTimeout
from providers.http.http1 import READ
from providers.http.sse import MAX_LINE
from providers.http.transport import Response, Transport
from tests.support.raw_upstream import BOTH_WAYS, call, closing_transport, openai, serving
from tests.support.upstream import Upstream

EVENTS = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nConnection: close\r\n\r\n"
TOKEN = b'data: {"choices":[{"index":0,"delta":{"content":"a"}}]}\n\n'


@pytest.fixture(scope="module")
def upstream() -> Iterator[Upstream]:
    with Upstream() as running:
        yield running


@pytest.fixture
def transport() -> Iterator[Transport]:
    with closing_transport(read_timeout=5, max_response_bytes=1 << 20) as transport:
        yield transport


def test_a_body_whose_length_is_over_the_limit_is_not_waited_for(transport: Transport) -> None:
    head = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 1048577\r\n\r\n"
    with serving(head) as url:
        with pytest.raises(UpstreamBadResponse, match="too large"):
            openai(url, transport).complete(call())


@pytest.mark.parametrize(("size", "turns"), [(100, 0), (READ, 3)])
def test_a_provider_that_is_faster_than_we_lets_others_have_their_turn(
    size: int, turns: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    slept: list[float] = []
    monkeypatch.setattr("providers.http.transport.time.sleep", slept.append)
    exchange = SimpleNamespace(status=200, headers={}, read=lambda: b"x" * size)
    answer = Response(exchange, 1 << 20, 5.0)  # type: ignore[arg-type]
    for _ in range(3):
        answer.read()
    assert slept == [0] * turns


@pytest.mark.parametrize("way", ["complete", "stream"])
def test_a_silence_within_an_answer_has_a_limit_of_its_own(upstream: Upstream, way: str) -> None:
    transport = Transport(read_timeout=60, silence_timeout=0.05)
    with pytest.raises(UpstreamTimeout):
        BOTH_WAYS[way](openai(upstream.url, transport), "hang-mid")
    transport.close()


def test_the_next_answer_on_a_connection_is_waited_for_as_long_as_the_first(
    upstream: Upstream,
) -> None:
    upstream.clear()
    transport = Transport(read_timeout=60, silence_timeout=0.1)
    provider = openai(upstream.url, transport)
    provider.complete(call("echo"))
    provider.complete(call("delay-400"))
    transport.close()
    assert len({entry["connection"] for entry in upstream.log()}) == 1


def test_the_limit_holds_for_connections_that_are_not_kept() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        ended = threading.Event()

        def answer() -> None:
            connection, _ = server.accept()
            connection.recv(65536)
            connection.sendall(EVENTS + TOKEN)
            ended.wait(30)
            connection.close()

        thread = threading.Thread(target=answer)
        thread.start()
        transport = Transport(read_timeout=60, silence_timeout=0.05)
        stream = openai(f"http://127.0.0.1:{server.getsockname()[1]}", transport).stream(call())
        assert next(stream)
        with pytest.raises(UpstreamTimeout):
            next(stream)
        ended.set()
        thread.join()
        transport.close()
        gc.collect()


def test_others_timeouts_share_the_connections(upstream: Upstream) -> None:
    upstream.clear()
    transport = Transport(read_timeout=60)
    patient = openai(upstream.url, transport)
    hasty = openai(upstream.url, transport.with_timeouts(read=0.05))
    patient.complete(call("echo"))
    hasty.complete(call("echo"))
    assert len({entry["connection"] for entry in upstream.log()}) == 1
    with pytest.raises(UpstreamTimeout):
        hasty.complete(call("delay-400"))
    patient.complete(call("delay-400"))
    transport.close()


def test_an_endless_stream_of_events_is_cut_at_the_cap(transport: Transport) -> None:
    with serving(EVENTS + TOKEN * (2_000_000 // len(TOKEN))) as url:
        with pytest.raises(UpstreamBadResponse, match="too large"):
            for _ in openai(url, transport).stream(call()):
                pass


def test_an_event_of_endless_lines_is_cut_at_the_cap(transport: Transport) -> None:
    with serving(EVENTS + b"data: x\n" * 250_000) as url:
        with pytest.raises(UpstreamBadResponse, match="too large"):
            list(openai(url, transport).stream(call()))


def test_a_line_without_an_end_is_cut_at_the_cap() -> None:
    transport = Transport(read_timeout=5)
    with serving(EVENTS + b"data: " + b"x" * (MAX_LINE + 10)) as url:
        with pytest.raises(UpstreamBadResponse, match="too long"):
            list(openai(url, transport).stream(call()))
    transport.close()


@pytest.mark.parametrize("status", [b"301", b"302", b"303", b"307", b"308"])
@pytest.mark.parametrize("way", ["complete", "stream"])
def test_no_redirect_is_followed(transport: Transport, status: bytes, way: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as elsewhere:
        elsewhere.setblocking(False)
        place = b"http://127.0.0.1:%d/" % elsewhere.getsockname()[1]
        head = b"HTTP/1.1 %b Found\r\nLocation: %b\r\nContent-Length: 0\r\n\r\n" % (status, place)
        with serving(head) as url, pytest.raises(UpstreamBadResponse):
            BOTH_WAYS[way](openai(url, transport), "echo")
        with pytest.raises(BlockingIOError):
            elsewhere.accept()


@pytest.mark.parametrize("encoding", [b"gzip", b"deflate", b"br", b"zstd", b"gzip, gzip"])
@pytest.mark.parametrize("kind", [b"application/json", b"text/event-stream"])
def test_nothing_compressed_is_unpacked(transport: Transport, encoding: bytes, kind: bytes) -> None:
    head = (
        b"HTTP/1.1 200 OK\r\nContent-Type: %b\r\nContent-Encoding: %b\r\nContent-Length: 2\r\n\r\n"
    )
    with serving(head % (kind, encoding) + b"\x1f\x8b") as url:
        with pytest.raises(UpstreamBadResponse, match="compressed"):
            openai(url, transport).complete(call())


def test_an_event_that_is_no_json_is_a_keep_alive(transport: Transport) -> None:
    end = b'data: {"choices":[{"index":0,"delta":{},"finish_reason":"stop"}]}\n\ndata: [DONE]\n\n'
    with serving(EVENTS + TOKEN + b"data: still here\n\n" + TOKEN + end) as url:
        chunks = [chunk for chunks in openai(url, transport).stream(call()) for chunk in chunks]
    texts = [choice["delta"].get("content") for chunk in chunks for choice in chunk["choices"]]
    assert "".join(filter(None, texts)) == "aa"


class Pings:
    """An answer of one token, then pings, then the end."""

    status, headers = 200, {"content-type": "text/event-stream"}

    def __init__(self, silence: float) -> None:
        self.silence = silence
        end = (
            b'data: {"choices":[{"index":0,"delta":{},"finish_reason":"stop"}]}\n\ndata: [DONE]\n\n'
        )
        self._pieces = iter([b": ping\n\n", TOKEN, b": ping\n\n", b": ping\n\n", end, b""])

    def check_length(self) -> None:
        pass

    def read(self) -> bytes:
        return next(self._pieces)

    def drain(self) -> None:
        pass

    @contextmanager
    def post(self, request: Any) -> Iterator[Pings]:
        yield self


def test_pings_do_not_keep_a_stream_alive_that_has_stopped() -> None:
    with pytest.raises(UpstreamTimeout):
        list(openai("http://x", Pings(silence=-1)).stream(call()))
    chunks = list(openai("http://x", Pings(silence=60)).stream(call()))
    assert len(chunks) == 2
