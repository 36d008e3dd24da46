"""What only bytes on a socket can show: broken, slow and hostile HTTP, to both parsers of gunicorn.

The numbers are those of the table of bad input. What the app makes of a request that has arrived
whole is in tests/contract/test_http_bad_input.py.
"""

from __future__ import annotations

import re
import socket
from collections.abc import Iterator

import pytest

from tests.support.raw_http import CHAT, HEALTH, PARSERS, answer, get, post, request, say
from tests.support.stack import PATIENCE_SECONDS, Stack

pytestmark = pytest.mark.slow

CANARY = "PROMPT-CANARY"
CHUNKED = "Transfer-Encoding: chunked"
LIMIT = 10_000  # bytes of a body
REQUEST_ID = re.compile(rb"\r\nX-Request-Id: [0-9a-f]{32}\r\n")
WRONG_KEY = ("Host: x", "Authorization: Bearer no", "Content-Type: application/json")


@pytest.fixture(
    scope="module",
    params=[pytest.param(name, marks=pytest.mark.xdist_group(f"raw {name}")) for name in PARSERS],
)
def service(tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest) -> Iterator:
    env = {
        "BODY_TIMEOUT_SECONDS": "1",
        "MAX_BODY_BYTES": str(LIMIT),
        "GUNICORN_CMD_ARGS": f"--http-parser {request.param} --keep-alive 1",
    }
    with Stack(tmp_path_factory.mktemp("raw"), workers=0, env=env) as stack:
        yield stack
        # Whatever was response to it: the same process, and nothing of it in the logs.
        assert answer(say(stack, get())).status == 200
        logs = stack.logs()
        assert logs.count("Booting worker") == 1
        assert "Traceback" not in logs
        assert "MonkeyPatchWarning" not in logs
        assert "ERROR" not in logs
        assert CANARY not in logs
        assert stack.key not in logs


# 1 to 15 and 17: refused by the server, in OpenAI's envelope, and closed

BROKEN = {
    "1 a word": (b"POST\r\n\r\n", 400),
    "1 two words": (request("GET /"), 400),
    "1 four words": (request("GET / x HTTP/1.1", "Host: x"), 400),
    "1 a blank first": (request(f" GET {HEALTH} HTTP/1.1", "Host: x"), 400),
    "1 blank lines": (b"\r\n\r\n\r\n", 400),
    "1 noise": (b"\x00\x01\x02\r\n\r\n", 400),
    "1 a prompt": (b'{"messages":"%b"}\r\n\r\n' % CANARY.encode(), 400),
    "2 lower case": (request(f"get {HEALTH} HTTP/1.1", "Host: x"), 400),
    "2 mixed case": (request(f"Get {HEALTH} HTTP/1.1", "Host: x"), 400),
    "2 number sign": (request(f"G#T {HEALTH} HTTP/1.1", "Host: x"), 400),
    "2 of 21": (request(f"{'A' * 21} {HEALTH} HTTP/1.1", "Host: x"), 400),
    "3 HTTP/2.0": (request(f"GET {HEALTH} HTTP/2.0", "Host: x"), 400),
    "3 HTTP/0.9": (request(f"GET {HEALTH} HTTP/0.9", "Host: x"), 400),
    "3 without a version": (request(f"GET {HEALTH}"), 400),
    "3 HTTP/1.10": (request(f"GET {HEALTH} HTTP/1.10", "Host: x"), 400),
    "3 HTTPS/1.1": (request(f"GET {HEALTH} HTTPS/1.1", "Host: x"), 400),
    "3 HTTP/2's preface": (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 400),
    "4 a line of 4095": (get(target="/" + "a" * 4081), 414),
    "4 a target of 5000": (get(target="/" + "a" * 5000), 414),
    "5 65 headers": (get(*(f"A{n}: b" for n in range(64))), 431),
    "6 a header of 8191": (get("A: " + "a" * 8186), 431),
    "6 a name of 9000": (get("a" * 9000 + ": b"), 431),
    "6 headers of 40000": (get(*(f"A{n}: {'a' * 8000}" for n in range(5))), 431),
    "12 only bare LF": (get().replace(b"\r\n", b"\n"), 400),
    "12 bare LF after the target": (get().replace(b"\r\n", b"\n", 1), 400),
    "12 bare LF between headers": (get("A: b\nContent-Length: 5"), 400),
    "12 bare LF at the end": (get("A: b")[:-4] + b"\n\r\n", 400),
    "12 bare CR": (get("A: b\rB: c"), 400),
    "12 NUL": (get("A: b\0c"), 400),
    "12 NUL in a name": (get("A\0: b"), 400),
    "12 NUL in the target": (get(target=HEALTH + "\0"), 400),
    "12 a control character": (get("A: b\x01c"), 400),
    "12 DEL": (get("A: b\x7fc"), 400),
    "12 a blank after a name": (get("A : b"), 400),
    "12 no name": (get(": b"), 400),
    "12 no colon": (get(f"Authorization Bearer {CANARY}"), 400),
    "12 the target is not ASCII": (get(target=HEALTH + "\xe9"), 400),
    "13 two hosts": (get("Host: y"), 400),
    "13 one host twice": (get("Host: x"), 400),
    "14 absolute": (get(target=f"http://x{HEALTH}"), 400),
    "14 absolute, broken": (get(target="http://[::1"), 400),
    "14 authority": (get(target="x:80"), 400),
    "14 authority to CONNECT": (request("CONNECT x:80 HTTP/1.1", "Host: x"), 400),
    "14 asterisk": (get(target="*"), 400),
    "14 asterisk to OPTIONS": (request("OPTIONS * HTTP/1.1", "Host: x"), 400),
    "14 no slash": (get(target=HEALTH[1:]), 400),
    "15 folded": (get("A: b", " c"), 400),
    "15 folded by a tab": (get("A: b", "\tc"), 400),
    "15 folded at once": (request(f"GET {HEALTH} HTTP/1.1", " c", "Host: x"), 400),
    "17 another expectation": (get("Expect: x"), 417),
}


@pytest.mark.parametrize(("raw", "status"), BROKEN.values(), ids=BROKEN.keys())
def test_a_broken_head_is_refused_before_the_app(service: Stack, raw: bytes, status: int) -> None:
    received = say(service, raw)
    response = answer(received)
    assert (response.status, response.closed) == (status, True)
    assert response.error["code"] == "invalid_http"
    assert REQUEST_ID.search(received)


FRAMING = {
    "7 length, then chunks": (["Content-Length: 5", CHUNKED], b"0\r\n\r\n"),
    "7 chunks, then length": ([CHUNKED, "Content-Length: 5"], b"0\r\n\r\n"),
    "8 two lengths": (["Content-Length: 2", "Content-Length: 1"], b"{}"),
    "8 one length twice": (["Content-Length: 2", "Content-Length: 2"], b"{}"),
    "9 +2": (["Content-Length: +2"], b"{}"),
    "9 2,2": (["Content-Length: 2,2"], b"{}"),
    "9 -1": (["Content-Length: -1"], b"{}"),
    "9 2 2": (["Content-Length: 2 2"], b"{}"),
    "9 0x2": (["Content-Length: 0x2"], b"{}"),
    "9 2.0": (["Content-Length: 2.0"], b"{}"),
    "9 a superscript": (["Content-Length: \xb2"], b"{}"),
    "9 nothing": (["Content-Length: "], b"{}"),
    "10 gzip": (["Transfer-Encoding: gzip"], b"{}"),
    "10 identity": (["Transfer-Encoding: identity"], b"{}"),
    "10 chunked before gzip": (["Transfer-Encoding: chunked, gzip"], b"2\r\n{}\r\n0\r\n\r\n"),
    "10 chunked and chunked": (["Transfer-Encoding: chunked, chunked"], b"2\r\n{}\r\n0\r\n\r\n"),
    "10 chunked twice": ([CHUNKED, CHUNKED], b"2\r\n{}\r\n0\r\n\r\n"),
    "10 a control character": (["Transfer-Encoding: \x0bchunked"], b"2\r\n{}\r\n0\r\n\r\n"),
    "10 a blank after the name": (["Transfer-Encoding : chunked"], b"2\r\n{}\r\n0\r\n\r\n"),
    "13 two kinds": (["Content-Type: application/json", "Content-Length: 2"], b"{}"),
}


@pytest.mark.parametrize(("headers", "body"), FRAMING.values(), ids=FRAMING.keys())
def test_a_body_whose_end_is_in_doubt_is_refused_before_the_app(
    service: Stack, headers: list[str], body: bytes
) -> None:
    response = answer(say(service, post(service, *headers, body=body)))
    assert (response.status, response.closed) == (400, True)
    assert response.error["code"] == "invalid_http"


@pytest.mark.parametrize("coding", ["foo", "xchunked", "foo, chunked"])
def test_10_an_unknown_transfer_coding_is_refused(service: Stack, coding: str) -> None:
    response = answer(say(service, post(service, f"Transfer-Encoding: {coding}", body=b"{}")))
    # The C parser does not tell it from other headers that are wrong.
    assert response.status == (501 if "python" in service.env["GUNICORN_CMD_ARGS"] else 400)
    assert response.closed


def test_10_http_1_0_knows_no_chunks(service: Stack) -> None:
    raw = post(service, CHUNKED, body=b"2\r\n{}\r\n0\r\n\r\n").replace(b"HTTP/1.1", b"HTTP/1.0", 1)
    response = answer(say(service, raw))
    assert (response.status, response.closed) == (400, True)


AT_THE_LIMIT = {
    "4 a line of 4094": (get(target="/" + "a" * 4080), 404),
    "5 64 headers": (get(*(f"A{n}: b" for n in range(63))), 200),
    "6 a header of 8190": (get("A: " + "a" * 8185), 200),
}


@pytest.mark.parametrize(("raw", "status"), AT_THE_LIMIT.values(), ids=AT_THE_LIMIT.keys())
def test_a_head_at_the_limit_reaches_the_app(service: Stack, raw: bytes, status: int) -> None:
    assert answer(say(service, raw)).status == status


def test_no_header_changes_the_address(service: Stack) -> None:
    """The tests' client, at 127.0.0.1, is a proxy for gunicorn."""
    assert answer(say(service, get("SCRIPT_NAME: /x"))).status == 200
    hidden = get("SCRIPT_NAME: /x", target=f"/x{HEALTH}")
    assert answer(say(service, hidden)).status == 404


# 11: the app has begun to read when a chunk turns out to be none

CHUNKS = {
    "size g": b"g\r\n{}\r\n0\r\n\r\n",
    "size -2": b"-2\r\n{}\r\n0\r\n\r\n",
    "size +2": b"+2\r\n{}\r\n0\r\n\r\n",
    "size 0x2": b"0x2\r\n{}\r\n0\r\n\r\n",
    "size 1_0": b"1_0\r\n{}\r\n0\r\n\r\n",
    "no size": b"\r\n{}\r\n0\r\n\r\n",
    "a prompt for a size": b'{"messages":"%b"}\r\n0\r\n\r\n' % CANARY.encode(),
    "too short a size": b"1\r\n{}\r\n0\r\n\r\n",
    "no end of a chunk": b"2\r\n{}0\r\n\r\n",
    "bare CR in an extension": b"2;a\rb\r\n{}\r\n0\r\n\r\n",
    "a control character in an extension": b"2;\x01\r\n{}\r\n0\r\n\r\n",
    "a size without end": b"2;" + b"a" * 20_000,
    "a trailer that is a header": b"2\r\n{}\r\n0\r\nHost: b\r\n\r\n",
    "NUL in a trailer": b"2\r\n{}\r\n0\r\nA: \0\r\n\r\n",
}


@pytest.mark.parametrize("body", CHUNKS.values(), ids=CHUNKS.keys())
def test_11_chunks_that_are_none_are_refused(service: Stack, body: bytes) -> None:
    response = answer(say(service, post(service, CHUNKED, body=body), until_closed=True))
    assert (response.status, response.error["code"]) == (400, "invalid_chunks")
    assert response.closed
    assert CANARY.encode() not in response.body


GOOD_CHUNKS = [
    b"2\r\n{}\r\n0\r\n\r\n",
    b"1;a=b\r\n{\r\n1\r\n}\r\n0\r\n\r\n",
    b"2\r\n{}\r\n0\r\nA: b\r\n\r\n",
]


@pytest.mark.parametrize("body", GOOD_CHUNKS, ids=["plain", "an extension", "a trailer"])
def test_a_chunked_body_is_read(service: Stack, body: bytes) -> None:
    response = answer(say(service, post(service, CHUNKED, body=body)))
    assert (response.status, response.error["param"]) == (400, "model")


# 16: silence


@pytest.mark.parametrize(
    "raw", [b"", b"GET ", f"GET {HEALTH} HTTP/1.1\r\nHost: x\r\nA".encode()],
    ids=["nothing", "half a line", "half a header"],
)  # fmt: skip
def test_16_who_does_not_finish_a_head_is_left(service: Stack, raw: bytes) -> None:
    assert say(service, raw) == b""


# Keys and bodies, as the app gets them from the server


def test_19_two_keys_are_no_key(service: Stack) -> None:
    key = f"Authorization: Bearer {service.key}"
    response = answer(say(service, post(service, key, "Content-Length: 2", body=b"{}")))
    assert (response.status, response.error["code"]) == (401, "invalid_api_key")


def test_28_no_body_at_all_is_no_json(service: Stack) -> None:
    response = answer(say(service, post(service)))
    assert (response.status, response.error["code"]) == (400, "invalid_json")


SHORT = {
    "a length": (["Content-Length: 100"], b'{"m'),
    "a chunk": ([CHUNKED], b"5\r\n{}"),
    "a last chunk": ([CHUNKED], b"2\r\n{}\r\n"),
    "a chunk's size": ([CHUNKED], b"2"),
}


@pytest.mark.parametrize(("headers", "body"), SHORT.values(), ids=SHORT.keys())
def test_29_a_body_that_ends_early_is_refused(
    service: Stack, headers: list[str], body: bytes
) -> None:
    response = answer(say(service, post(service, *headers, body=body), close_writing=True))
    assert (response.status, response.error["code"]) == (400, "incomplete_body")


@pytest.mark.parametrize(("headers", "body"), SHORT.values(), ids=SHORT.keys())
def test_30_a_body_that_stalls_is_a_408(service: Stack, headers: list[str], body: bytes) -> None:
    response = answer(say(service, post(service, *headers, body=body)))
    assert (response.status, response.error["code"]) == (408, "body_timeout")
    assert response.closed


def test_30_a_body_that_was_asked_for_and_does_not_come_is_a_408(service: Stack) -> None:
    raw = post(service, "Expect: 100-continue", "Content-Length: 100")
    received = say(service, raw)
    assert received.startswith(b"HTTP/1.1 100 Continue\r\n\r\n")
    assert answer(received).error["code"] == "body_timeout"


def test_30_a_body_is_not_asked_for_without_a_good_key(service: Stack) -> None:
    raw = request(f"POST {CHAT} HTTP/1.1", *WRONG_KEY, "Expect: 100-continue", "Content-Length: 9")
    received = say(service, raw, until_closed=True)
    assert b"100 Continue" not in received
    assert answer(received).status == 401


def test_31_a_length_past_64_bits_is_too_large(service: Stack) -> None:
    response = answer(say(service, post(service, f"Content-Length: {2**64}")))
    assert (response.status, response.error["code"]) == (413, "request_too_large")


@pytest.mark.parametrize("more", [0, 1], ids=["at the limit", "over the limit"])
def test_32_a_chunked_body_over_the_limit_is_refused(service: Stack, more: int) -> None:
    chunk = b"%x\r\n%b\r\n" % (LIMIT // 2, b" " * (LIMIT // 2))
    body = chunk + chunk + b"1\r\n \r\n" * more + b"0\r\n\r\n"
    response = answer(say(service, post(service, CHUNKED, body=body)))
    code = "request_too_large" if more else "invalid_json"
    assert (response.status, response.error["code"]) == (413 if more else 400, code)


def test_64_a_request_id_with_a_line_break_is_no_header(service: Stack) -> None:
    response = answer(say(service, get("X-Request-ID: a\nSet-Cookie: b")))
    assert (response.status, response.closed) == (400, True)


# A request that is refused before its body is read


def test_a_refused_request_with_a_body_ends_its_connection(service: Stack) -> None:
    raw = request(f"POST {CHAT} HTTP/1.1", *WRONG_KEY, "Content-Length: 9000", body=b" " * 9000)
    response = answer(say(service, raw))
    assert (response.status, response.closed) == (401, True)


def test_a_refused_request_without_a_body_keeps_its_connection(service: Stack) -> None:
    response = answer(say(service, request(f"POST {CHAT} HTTP/1.1", *WRONG_KEY)))
    assert (response.status, response.closed) == (401, False)


def test_a_body_without_end_is_not_read_for_a_wrong_key(service: Stack) -> None:
    chunk = b"10000\r\n%b\r\n" % (b" " * 65_536)
    sent = 0
    with socket.create_connection(("127.0.0.1", service.port), PATIENCE_SECONDS) as client:
        client.sendall(request(f"POST {CHAT} HTTP/1.1", *WRONG_KEY, CHUNKED))
        with pytest.raises(ConnectionError):
            while sent < 100_000_000:
                client.sendall(chunk)
                sent += len(chunk)
    assert sent < 50_000_000  # what the systems of both sides hold, and a little more


def test_silent_connections_keep_nobody_out(tmp_path_factory: pytest.TempPathFactory) -> None:
    env = {"GUNICORN_CMD_ARGS": "--worker-connections 16"}
    with Stack(tmp_path_factory.mktemp("silent"), workers=0, env=env) as stack:
        address = ("127.0.0.1", stack.port)
        silent = [socket.create_connection(address, PATIENCE_SECONDS) for _ in range(64)]
        # Without a key or a byte they would be 16 for 10 seconds, and 64 for 40.
        assert silent[0].recv(1) == b""
        assert answer(say(stack, get())).status == 200
        for connection in silent:
            connection.close()
