"""api/reply.py: what a stream writes past gunicorn, and when."""

from __future__ import annotations

from types import SimpleNamespace

import gevent
import pytest
from gevent import socket

from api.chat.renderer import ChatRenderer
from api.reply import Reply
from gateway.broker.pending_call import BUFFER_BYTES, SLOW_SECONDS, Buffers, PendingCall
from gateway.errors import SlowReader
from gateway.queue.protocol import CHUNKS, OUTCOME, Event, Outcome
from tests.support.fakes import Clock


class Streaming:
    """A stream to a client: gunicorn's greenlet sends what the reply yields, in `yielded`."""

    def __init__(self, protocol: str = "HTTP/1.1") -> None:
        self.server, self.client = socket.socketpair()
        self.clock = Clock()
        self.buffers = Buffers(self.clock)
        self.pending = PendingCall("call", 60, lambda pending: None, self.buffers)
        environ = {"gunicorn.socket": self.server, "SERVER_PROTOCOL": protocol}
        broker = SimpleNamespace(abandon=lambda pending: None, leave=lambda pending: None)
        reply = Reply(
            broker,
            self.pending,
            lambda model: ChatRenderer("call", "model", created=0),
            environ,
        )
        self.yielded: list[bytes] = []
        self.payload(b'{"choices":[0]}')
        self.response = reply.streamed()
        self.greenlet = gevent.spawn(self._serve)
        gevent.sleep(0)

    def _serve(self) -> None:
        for data in self.response.response:
            self.yielded.append(data)
            self.server.sendall(data)
        self.response.close()

    def payload(self, payload: bytes) -> None:
        number = self.pending.received + 1
        self.pending.offer(Event("call", "claim", number, CHUNKS, payload))

    def end(self) -> None:
        outcome = Outcome(last=self.pending.received).encode()
        number = self.pending.received + 1
        self.pending.offer(Event("call", "claim", number, OUTCOME, outcome))


@pytest.fixture
def stream(request):
    streaming = Streaming(getattr(request, "param", "HTTP/1.1"))
    yield streaming
    streaming.server.close()
    streaming.client.close()
    streaming.greenlet.kill()


def chunk(data: bytes) -> bytes:
    return b"%X\r\n%b\r\n" % (len(data), data)


def rendered(number: int) -> bytes:
    return ChatRenderer("call", "model", created=0).events(b'{"choices":[%d]}' % number)


def test_a_payload_that_is_waited_for_is_sent_as_a_chunk_without_a_wake(stream):
    assert stream.client.recv(10_000) == rendered(0)
    stream.payload(b'{"choices":[1]}')
    assert stream.client.recv(10_000) == chunk(rendered(1))
    stream.end()
    stream.greenlet.get(timeout=10)
    assert stream.yielded == [rendered(0), b"data: [DONE]\n\n"]


def test_what_a_client_does_not_take_at_once_is_sent_in_order(stream):
    received = bytearray()
    big = b'{"choices":["%b"]}' % (b"x" * 1_000_000)
    stream.payload(big)
    stream.payload(b'{"choices":[2]}')
    stream.end()
    whole = b"".join(
        [
            rendered(0),
            chunk(ChatRenderer("call", "model", created=0).events(big)),
            rendered(2),
            b"data: [DONE]\n\n",
        ]
    )
    with gevent.Timeout(10):
        while len(received) < len(whole):
            received += stream.client.recv(100_000)
    stream.greenlet.get(timeout=10)
    assert bytes(received) == whole


def test_a_client_that_reads_nothing_is_cut(stream):
    big = b'{"choices":["%b"]}' % (b"x" * 1_000_000)
    stream.payload(big)  # sent at once, in part
    gevent.sleep(0.01)
    assert stream.buffers.held > len(big), "its rest waits for the client"
    for _ in range(BUFFER_BYTES // len(big)):
        stream.payload(big)
        gevent.sleep(0)
    assert stream.pending.outcome is None
    stream.clock.now += SLOW_SECONDS + 1
    stream.payload(big)
    assert isinstance(stream.pending.outcome.error, SlowReader)
    assert stream.buffers.held < BUFFER_BYTES + 2 * len(big)


def test_a_client_that_has_left_is_met_by_the_greenlet_of_its_request(stream):
    stream.client.close()
    stream.payload(b'{"choices":[1]}')
    with pytest.raises(OSError):
        stream.greenlet.get(timeout=10)


def test_a_renderers_failure_ends_the_stream_with_an_error(stream):
    stream.payload(b'{"usage":')
    stream.greenlet.get(timeout=10)
    assert b'"error"' in stream.yielded[-1]


@pytest.mark.parametrize("stream", ["HTTP/1.0"], indirect=True)
def test_an_older_client_gets_no_chunks(stream):
    stream.payload(b'{"choices":[1]}')
    stream.end()
    stream.greenlet.get(timeout=10)
    assert stream.yielded == [rendered(0), rendered(1), b"data: [DONE]\n\n"]


class OpeningRenderer(ChatRenderer):
    """Renders a stream that begins before its result does."""

    def first(self) -> bytes:
        return b"data: first\n\n"


def test_a_call_is_left_once_its_response_is_rendered():
    """Until then, its worker reads no other large response: this process would hold many."""
    seen = []

    class Renderer(ChatRenderer):
        def whole(self, result):
            seen.append("rendered")
            return super().whole(result)

    broker = SimpleNamespace(leave=lambda pending: seen.append("left"))
    pending = PendingCall("call", 60, lambda pending: None)
    pending.end(Outcome(answer=b'{"choices":[]}'))
    reply = Reply(broker, pending, lambda route: Renderer("call", "model", created=0), {})
    assert reply.whole(0).status_code == 200
    assert seen == ["rendered", "left"]


def test_a_stream_that_begins_at_once_has_the_events_of_a_call_that_has_ended_by_then():
    """As one that a kept response answers does."""
    pending = PendingCall("call", 60, lambda pending: None)
    pending.accepted()
    pending.offer(Event("call", "", 1, CHUNKS, b'{"choices":[0]}'))
    pending.offer(Event("call", "", 2, OUTCOME, Outcome(last=1).encode()))
    broker = SimpleNamespace(abandon=lambda pending: None, leave=lambda pending: None)
    reply = Reply(broker, pending, lambda route: OpeningRenderer("call", "model", created=0), {})
    response = reply.streamed(at_once=True)
    assert b"".join(response.response) == b"data: first\n\n" + rendered(0) + b"data: [DONE]\n\n"
    response.close()
