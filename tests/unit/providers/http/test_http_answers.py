"""Answers that no well-behaved provider gives, byte for byte."""

from dataclasses import replace

import gevent
import pytest

from gateway.errors import UpstreamError, UpstreamFailed, UpstreamThrottled, UpstreamTLS
from providers.base import WireOptions
from providers.http import provider
from providers.http.provider import HttpProvider
from providers.openai.chat import OpenAIWire
from tests.support.raw_upstream import BOTH_WAYS, call, closing_transport, content, openai, serving


@pytest.fixture
def transport():
    with closing_transport(connect_timeout=5, read_timeout=5, pool_size=4) as transport:
        yield transport


@pytest.fixture(params=["complete", "stream"])
def ask(request):
    """Asks a provider in both ways; the whole answer either way."""
    return BOTH_WAYS[request.param]


def test_a_reset_after_bytes_of_the_answer_is_not_to_be_retried(transport, ask):
    with serving(SAID, b"HTTP/1.1 200 OK\r\n", reset=True) as url:
        provider = openai(url, transport)
        ask(provider, "echo")
        with pytest.raises(UpstreamError) as caught:
            ask(provider, "echo")
    assert (caught.value.code, caught.value.retryable) == ("upstream_error", False)


def test_words_that_arrive_with_an_error_come_first(transport):
    body = b'data: {"choices":[{"delta":{"content":"a"}}]}\n\ndata: {"error":{"code":500}}\n\n'
    with serving(b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\n" + body) as url:
        stream = openai(url, transport).stream(call())
        assert next(stream)[0]["choices"][0]["delta"]["content"] == "a"
        with pytest.raises(UpstreamFailed):
            next(stream)


def test_a_finished_answer_does_not_need_its_connections_end(transport, ask):
    event = b'data: {"choices":[{"delta":{"content":"a"},"finish_reason":"stop"}]}\n\n'
    head = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n"
    head += b"Transfer-Encoding: chunked\r\n\r\n"
    with serving(head + b"%x\r\n%s\r\n" % (len(event), event)) as url:
        assert content(ask(openai(url, transport), "echo")) == "a"


EARLY = b"HTTP/1.1 103 Early Hints\r\nLink: </a>; rel=preload\r\n\r\n"
CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"
SAID = (
    b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 68\r\n\r\n"
    b'{"choices":[{"message":{"content":"Hello"},"finish_reason":"stop"}]}'
)


def test_a_whole_response_is_not_late_because_others_have_their_turn_before_it(
    transport, monkeypatch
):
    """The provider's time may end meanwhile: a second one would be paid for the same call."""
    turns = []

    def turn(size):
        turns.append(size)
        raise gevent.Timeout(0)

    monkeypatch.setattr(provider, "give_turn", turn)
    with serving(SAID) as url:
        assert content(openai(url, transport).complete(call())) == "Hello"
    assert turns == [68, 68]


@pytest.mark.parametrize("before", [EARLY, EARLY * 3, CONTINUE + EARLY, EARLY + CONTINUE])
def test_interim_answers_are_passed_over(transport, ask, before):
    with serving(before + SAID, before + SAID) as url:
        provider = openai(url, transport)
        assert [content(ask(provider, "echo")) for _ in range(2)] == ["Hello", "Hello"]


def test_interim_answers_without_end_are_no_answer(transport, ask):
    with serving(EARLY * 200 + SAID) as url, pytest.raises(UpstreamError) as caught:
        ask(openai(url, transport), "echo")
    assert caught.value.code == "upstream_bad_response"


def test_a_server_without_tls_cannot_be_trusted(transport, ask):
    with serving(b"HTTP/1.1 400 Bad Request\r\n\r\n") as url, pytest.raises(UpstreamTLS):
        ask(openai(url.replace("http:", "https:"), transport), "echo")


def test_a_retry_after_date_becomes_seconds(transport, ask):
    date = b"Wed, 21 Oct 2099 07:28:00 GMT"
    head = b"HTTP/1.1 429 Slow Down\r\nRetry-After: %s\r\nContent-Length: 0\r\n\r\n" % date
    with serving(head) as url, pytest.raises(UpstreamThrottled) as caught:
        ask(openai(url, transport), "echo")
    assert caught.value.retry_after == 3600


def test_an_answer_that_the_end_of_its_connection_ends_is_read(transport):
    body = b'{"choices": [{"message": {"content": "Hi"}}]}'
    head = b"HTTP/1.0 200 OK\r\nContent-Type: application/json\r\n\r\n"
    with serving(head + body) as url:
        answer = openai(url, transport).complete(call())
    assert content(answer) == "Hi"


@pytest.mark.parametrize(
    "answer",
    [
        b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Length: 3\r\n\r\n{}",
        b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}",  # no content type
        b"HTTP/1.1 103 Early Hints\r\nContent-Type: application/json\r\n\r\n",
        b"HTTP/1.1 204 No Content\r\n\r\n",
        b"SSH-2.0-OpenSSH\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nX: " + b"x" * 100_000 + b"\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 2\r\n\r\n[]",
        b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 4\r\n\r\n{}",
        b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\n"
        b"Transfer-Encoding: chunked\r\n\r\nzz\r\n",
    ],
)
def test_an_answer_out_of_form_is_an_error(transport, ask, answer):
    with serving(answer) as url, pytest.raises(UpstreamError) as caught:
        ask(openai(url, transport), "echo")
    assert caught.value.status == 502


CHUNK = b'{"choices":[{"index":0,"delta":{"content":"a"},"finish_reason":"stop"}]}'
WHOLE = b'{"choices":[{"message":{"content":"a"},"finish_reason":"stop"}]}'
BODIES = {
    "whole": WHOLE,
    "whole after white space": b" \r\n\n" + WHOLE,
    "whole on several lines": WHOLE.replace(b",", b",\n"),
    "whole with a byte order mark": b"\xef\xbb\xbf" + WHOLE,
    "events": b"data: " + CHUNK + b"\n\ndata: [DONE]\n\n",
    "events after a comment": b": hello\n\ndata:" + CHUNK + b"\n\n",
    "named events": b"event: message\ndata: " + CHUNK + b"\n\n",
    "objects by lines": CHUNK.replace(b'"stop"', b"null").replace(b"a", b"")
    + b"\n"
    + CHUNK
    + b"\n",
    "an object and an end marker": CHUNK + b"\n\ndata: [DONE]\n\n",
}


@pytest.mark.parametrize("body", BODIES)
@pytest.mark.parametrize(
    "content_type",
    [b"application/json", b"text/event-stream", b"text/plain", b"application/octet-stream", b""],
)
def test_an_answer_is_what_its_bytes_are(transport, ask, body, content_type):
    head = b"HTTP/1.1 200 OK\r\nContent-Type: %s\r\n\r\n" % content_type
    with serving(head + BODIES[body]) as url:
        assert content(ask(openai(url, transport), "echo")) == "a"


@pytest.mark.parametrize("content_type", [b"application/json", b"text/event-stream", b"text/html"])
@pytest.mark.parametrize("body", [b"<html>Sign in</html>", b"", b"hello", b'{"a":', b"[1]", b"7"])
def test_bytes_that_are_no_answer_are_an_error(transport, ask, body, content_type):
    head = b"HTTP/1.1 200 OK\r\nContent-Type: %s\r\n\r\n" % content_type
    with serving(head + body) as url, pytest.raises(UpstreamError) as caught:
        ask(openai(url, transport), "echo")
    assert caught.value.status == 502


@pytest.mark.parametrize("content_type", [b"application/json", b"text/event-stream", b"text/plain"])
@pytest.mark.parametrize(
    "body",
    [
        b'{"error":{"message":"slow","code":429}}',
        b'[{"error":{"message":"slow","code":429}}]',
        b'{"error":{"message":"slow","code":429}}\n\ndata: [DONE]\n\n',
        b'data: {"object":"error","message":"slow","code":429}\n\ndata: [DONE]\n\n',
        b': hi\n\n{"error":{"message":"slow","code":429}}\n\n',
        b'event: error\ndata: {"message":"slow","type":"rate_limit_error"}\n\n',
    ],
)
def test_an_error_in_a_200_has_its_status(transport, ask, body, content_type):
    head = b"HTTP/1.1 200 OK\r\nContent-Type: %s\r\n\r\n" % content_type
    with serving(head + body) as url, pytest.raises(UpstreamThrottled):
        ask(openai(url, transport), "echo")


def test_a_long_answer_is_asked_for_as_a_stream_where_the_provider_wants_it(transport):
    event = b"data: " + CHUNK + b"\n\n"
    head = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nContent-Length: %d\r\n\r\n"
    with serving(*[head % len(event) + event] * 3) as url:
        wire = OpenAIWire(f"{url}/v1", options=WireOptions(stream_above=4096))
        provider = Recording(wire, transport)
        for limit in ({}, {"max_tokens": 4096}, {"max_completion_tokens": 4097}):
            request = call()
            parameters = {**request.parameters, **limit}
            assert content(provider.complete(replace(request, parameters=parameters))) == "a"
    assert provider.streamed == [False, False, True]


class Recording(HttpProvider):
    """A provider that records whether it asks for streams."""

    def __init__(self, wire, transport):
        super().__init__(wire, transport)
        self.streamed = []
        self._request, wire.request = wire.request, self.request

    def request(self, call):
        self.streamed.append(call.stream)
        return self._request(call)
