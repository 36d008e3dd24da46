"""What goes wrong between us and a provider, and what the caller is told of it."""

import socket
import time
from itertools import chain

import pytest

from gateway.chat import fold
from gateway.errors import (
    InvalidRequest,
    UpstreamAuth,
    UpstreamBadResponse,
    UpstreamError,
    UpstreamFailed,
    UpstreamOverloaded,
    UpstreamRejected,
    UpstreamThrottled,
    UpstreamTimeout,
    UpstreamTruncated,
    UpstreamUnreachable,
)
from providers.anthropic.wire import AnthropicWire
from providers.http import transport as transport_module
from providers.http.provider import HttpProvider
from providers.http.transport import Transport
from providers.openai.chat import OpenAIWire
from tests.support.raw_upstream import (
    BOTH_WAYS,
    KEY,
    call,
    closing_transport,
    content,
    openai,
    serving,
)
from tests.support.upstream import Upstream


@pytest.fixture(scope="module")
def upstream():
    with Upstream() as running:
        yield running


@pytest.fixture
def transport(upstream):
    upstream.clear()
    limits = {"connect_timeout": 5, "read_timeout": 5, "max_response_bytes": 1 << 20}
    with closing_transport(pool_size=4, **limits) as transport:
        yield transport


@pytest.fixture(params=["complete", "stream"])
def ask(request):
    """Asks a provider in both ways; the whole answer either way."""
    return BOTH_WAYS[request.param]


def eventually(true, seconds=5):
    """Waits for what another process is about to know."""
    end = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < end
        time.sleep(0.01)


def test_an_answer_comes_back_both_ways(upstream, transport, ask):
    answer = ask(openai(upstream.url, transport), "gpt-4o-mini")
    assert content(answer) == "Hello there"
    assert answer["choices"][0]["finish_reason"] == "stop"
    assert answer["usage"] == {"prompt_tokens": 3, "completion_tokens": 2, "total_tokens": 5}


def test_anthropic_comes_back_both_ways(upstream, transport, ask):
    answer = ask(HttpProvider(AnthropicWire(upstream.url, KEY), transport), "claude-sonnet-4-5")
    assert content(answer) == "Hello there"
    assert answer["usage"]["total_tokens"] == 5


def test_connections_are_used_again(upstream, transport, ask):
    provider = openai(upstream.url, transport)
    for _ in range(5):
        ask(provider, "echo")
    assert len({entry["connection"] for entry in upstream.log()}) == 1


def test_a_refusal_leaves_the_connection_usable(upstream, transport, ask):
    provider = openai(upstream.url, transport)
    with pytest.raises(UpstreamFailed):
        ask(provider, "status-500")
    ask(provider, "echo")
    assert len({entry["connection"] for entry in upstream.log()}) == 1


def test_a_provider_that_holds_a_finished_stream_open_is_not_waited_for(upstream, transport):
    provider = openai(upstream.url, transport)
    chunks = chain.from_iterable(provider.stream(call("linger")))
    assert content(fold(chunks)) == "Hello there"
    eventually(lambda: upstream.log()[0]["closed_early"])


@pytest.mark.parametrize(
    ("model", "error"),
    [
        ("reset", UpstreamError),
        ("reset-mid", UpstreamTruncated),
        ("cut", UpstreamTruncated),
        ("redirect", UpstreamBadResponse),
        ("gzip", UpstreamBadResponse),
        ("html", UpstreamBadResponse),
        ("malformed", UpstreamBadResponse),
        ("huge-2", UpstreamBadResponse),
        ("status-400", UpstreamRejected),
        ("status-401", UpstreamAuth),
        ("status-429-after-7", UpstreamThrottled),
        ("status-500", UpstreamFailed),
        ("status-502", UpstreamFailed),
        ("status-503", UpstreamOverloaded),
        ("status-504", UpstreamTimeout),
    ],
)
def test_each_failure_has_its_error(upstream, transport, ask, model, error):
    with pytest.raises(UpstreamError) as caught:
        ask(openai(upstream.url, transport), model, "one two three four")
    assert type(caught.value) is error
    assert str(upstream.port) not in caught.value.message
    assert "secret" not in caught.value.message
    assert [entry["path"] for entry in upstream.log()] == ["/v1/chat/completions"]


def test_a_reset_of_a_fresh_connection_is_not_to_be_retried(upstream, transport, ask):
    with pytest.raises(UpstreamError) as caught:
        ask(openai(upstream.url, transport), "reset")
    assert (caught.value.status, caught.value.retryable) == (502, False)


def test_a_reset_of_a_used_connection_may_be_retried(upstream, transport, ask):
    provider = openai(upstream.url, transport)
    ask(provider, "stale")
    with pytest.raises(UpstreamError) as caught:
        ask(provider, "echo")
    assert (caught.value.code, caught.value.retryable) == ("upstream_connect", True)
    assert content(ask(provider, "echo")) == "Hello there"


def test_a_used_connection_that_is_reset_late_may_have_been_acted_on(
    upstream, transport, ask, monkeypatch
):
    monkeypatch.setattr(transport_module, "STALE_SECONDS", 0.0)
    provider = openai(upstream.url, transport)
    ask(provider, "stale")
    with pytest.raises(UpstreamError) as caught:
        ask(provider, "echo")
    assert (caught.value.retryable, caught.value.should_retry) == (False, False)


def test_a_refused_connection_is_unreachable(transport, ask):
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    with pytest.raises(UpstreamUnreachable) as caught:
        ask(openai(f"http://127.0.0.1:{port}", transport), "echo")
    assert caught.value.retryable
    assert str(port) not in caught.value.message


def test_an_unknown_host_is_unreachable(transport, ask):
    with pytest.raises(UpstreamUnreachable):
        ask(openai("http://nowhere.invalid", transport), "echo")


def test_a_failure_names_host_status_and_cause_for_the_log(upstream, transport, ask):
    with pytest.raises(UpstreamUnreachable) as caught:
        ask(openai("http://127.0.0.1:1", transport), "echo")
    failure = caught.value
    assert (failure.host, failure.upstream_status) == ("127.0.0.1", 0)
    assert failure.cause == "ConnectionRefusedError: Connection refused"
    with pytest.raises(UpstreamUnreachable) as caught:
        ask(openai("http://nowhere.invalid", transport), "echo")
    assert caught.value.host == "nowhere.invalid"
    assert caught.value.cause.startswith("gaierror: ")
    with pytest.raises(UpstreamFailed) as caught:
        ask(openai(upstream.url, transport), "status-500")
    assert (caught.value.host, caught.value.upstream_status) == ("127.0.0.1", 500)
    assert not {"host", "upstream_status", "cause"} & caught.value.to_dict().keys()


def test_an_unreachable_proxy_is_unreachable(ask):
    with socket.create_server(("127.0.0.1", 0)) as server:
        proxy = f"http://127.0.0.1:{server.getsockname()[1]}"
    transport = Transport(proxy=proxy)
    with pytest.raises(UpstreamUnreachable):
        ask(openai("http://provider.example", transport), "echo")
    with pytest.raises(UpstreamUnreachable):
        ask(openai("https://provider.example", transport), "echo")
    transport.close()


def test_a_proxy_that_refuses_the_tunnel_is_unreachable(ask):
    with serving(b"HTTP/1.1 403 Forbidden\r\nContent-Length: 0\r\n\r\n") as proxy:
        transport = Transport(proxy=proxy, read_timeout=5)
        with pytest.raises(UpstreamUnreachable):
            ask(openai("https://provider.example", transport), "echo")
        transport.close()


@pytest.mark.parametrize("model", ["hang", "hang-mid"])
def test_a_silent_provider_times_out(upstream, ask, model):
    transport = Transport(read_timeout=0.2)
    with pytest.raises(UpstreamTimeout):
        ask(openai(upstream.url, transport), model)
    transport.close()
    eventually(lambda: upstream.log()[-1]["closed_early"])


def test_a_stream_that_is_closed_closes_its_connection(upstream, transport):
    stream = openai(upstream.url, transport).stream(call("stream-100-20"))
    next(stream)
    assert not upstream.log()[0]["closed_early"]
    stream.close()
    eventually(lambda: upstream.log()[0]["closed_early"])


def test_what_arrived_before_an_error_is_passed_on(upstream, transport):
    stream = openai(upstream.url, transport).stream(call("error-mid", "one two three four"))
    text = ""
    with pytest.raises(UpstreamFailed):
        for chunks in stream:
            text += "".join(chunk["choices"][0]["delta"].get("content", "") for chunk in chunks)
    assert text == "one two "


def test_retry_after_is_kept(upstream, transport, ask):
    with pytest.raises(UpstreamThrottled) as caught:
        ask(openai(upstream.url, transport), "status-429-after-7")
    assert caught.value.retry_after == 7


@pytest.mark.parametrize("model", ["json", "sse"])
def test_the_other_kind_of_answer_is_understood(upstream, transport, ask, model):
    assert content(ask(openai(upstream.url, transport), model)) == "Hello there"


@pytest.mark.parametrize("key", ["two\nlines", "\u20ac"])
def test_a_key_that_no_header_can_hold_is_not_told(upstream, transport, key):
    provider = HttpProvider(OpenAIWire(f"{upstream.url}/v1", key), transport)
    with pytest.raises(UpstreamError) as caught:
        provider.complete(call())
    assert key not in repr(caught.value.__cause__) + caught.value.message


def test_a_newline_after_the_key_is_forgiven(upstream, transport):
    provider = HttpProvider(OpenAIWire(f"{upstream.url}/v1", "key\n"), transport)
    assert content(provider.complete(call())) == "Hello there"


def test_the_request_is_as_it_should_be(upstream, transport, ask):
    ask(openai(upstream.url, transport), "echo")
    headers = upstream.log()[0]["headers"]
    assert headers.pop("host") and int(headers.pop("content-length"))
    assert headers == {
        "authorization": "***",
        "content-type": "application/json",
        "accept-encoding": "identity",
        "user-agent": "inference-service",
    }


def test_what_a_provider_cannot_do_is_never_sent(upstream, transport):
    provider = HttpProvider(AnthropicWire(upstream.url, KEY), transport)
    with pytest.raises(InvalidRequest):
        next(provider.stream(call(n=2)))
    assert upstream.log() == []


def test_the_environment_changes_nothing(upstream, transport, monkeypatch):
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:9")
    monkeypatch.setenv("ALL_PROXY", "http://127.0.0.1:9")
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", "/nowhere")
    assert content(openai(upstream.url, transport).complete(call())) == "Hello there"
