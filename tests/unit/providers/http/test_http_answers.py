"""Answers that no well-behaved provider gives, byte for byte."""

import gc

import pytest

from gateway.errors import UpstreamError, UpstreamFailed, UpstreamThrottled, UpstreamTLS
from providers.http.transport import Transport
from tests.support.raw_upstream import BOTH_WAYS, call, content, openai, serving


@pytest.fixture
def transport():
    made = Transport(connect_timeout=5, read_timeout=5, pool_size=4)
    yield made
    made.close()
    gc.collect()  # a socket left open warns here, in the test that left it


@pytest.fixture(params=["complete", "stream"])
def ask(request):
    """Asks a provider in both ways; the whole answer either way."""
    return BOTH_WAYS[request.param]


def test_a_reset_after_bytes_of_the_answer_is_not_to_be_retried(transport, ask):
    head = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 14\r\n\r\n"
    with serving(head + b'{"choices":[]}', b"HTTP/1.1 200 OK\r\n", reset=True) as url:
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
