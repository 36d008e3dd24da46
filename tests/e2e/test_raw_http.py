"""What only bytes on a socket can show: broken, slow and hostile HTTP."""

from __future__ import annotations

import json
import socket
from collections.abc import Iterator

import pytest

from tests.stack import Stack

PATH = "/inference/v1/chat/completions"


@pytest.fixture(scope="module")
def impatient(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    env = {"BODY_TIMEOUT_SECONDS": "1", "MAX_BODY_BYTES": "10000"}
    with Stack(tmp_path_factory.mktemp("raw"), workers=0, env=env) as stack:
        yield stack


def exchange(stack: Stack, raw: bytes, *, close_writing: bool = False) -> tuple[int, bytes]:
    """Status and body of the answer to these bytes."""
    with socket.create_connection(("127.0.0.1", stack.port), timeout=20) as client:
        client.sendall(raw)
        if close_writing:
            client.shutdown(socket.SHUT_WR)
        received = b""
        while b"\r\n\r\n" not in received or not complete(received):
            piece = client.recv(65536)
            if not piece:
                break
            received += piece
    head, _, body = received.partition(b"\r\n\r\n")
    return int(head.split(b" ")[1]), body


def complete(received: bytes) -> bool:
    head, _, body = received.partition(b"\r\n\r\n")
    for line in head.lower().split(b"\r\n"):
        if line.startswith(b"content-length:"):
            return len(body) >= int(line.split(b":")[1])
    return False


def head(stack: Stack, *lines: str, path: str = PATH, method: str = "POST") -> bytes:
    fixed = [
        f"{method} {path} HTTP/1.1",
        "Host: 127.0.0.1",
        f"Authorization: Bearer {stack.key}",
        "Content-Type: application/json",
    ]
    return "\r\n".join([*fixed, *lines, "", ""]).encode("latin-1")


def code(body: bytes) -> str | None:
    error = json.loads(body)["error"]
    assert set(error) == {"message", "type", "param", "code"}
    return error["code"]


def test_row_29_a_body_that_ends_early_is_refused(impatient: Stack) -> None:
    raw = head(impatient, "Content-Length: 100") + b'{"m'
    status, body = exchange(impatient, raw, close_writing=True)
    assert (status, code(body)) == (400, "incomplete_body")


def test_row_30_a_body_that_stalls_is_a_408(impatient: Stack) -> None:
    status, body = exchange(impatient, head(impatient, "Content-Length: 100") + b'{"m')
    assert (status, code(body)) == (408, "body_timeout")


def test_row_31_a_declared_length_over_the_limit_is_refused_unread(impatient: Stack) -> None:
    status, body = exchange(impatient, head(impatient, "Content-Length: 10001"))
    assert (status, code(body)) == (413, "request_too_large")


def test_row_32_a_chunked_body_over_the_limit_is_refused(impatient: Stack) -> None:
    chunk = b"2710\r\n" + b" " * 10_000 + b"\r\n"
    raw = head(impatient, "Transfer-Encoding: chunked") + chunk + chunk + b"0\r\n\r\n"
    status, body = exchange(impatient, raw)
    assert (status, code(body)) == (413, "request_too_large")


def test_row_28_no_body_at_all_is_no_json(impatient: Stack) -> None:
    status, body = exchange(impatient, head(impatient))
    assert (status, code(body)) == (400, "invalid_json")


def test_a_chunked_body_is_read(impatient: Stack) -> None:
    raw = head(impatient, "Transfer-Encoding: chunked") + b"2\r\n{}\r\n0\r\n\r\n"
    status, body = exchange(impatient, raw)
    assert (status, code(body)) == (400, "missing_required_parameter")


HOSTILE = {
    "row 1 bad request line": (b"POST\r\n\r\n", 400),
    "row 4 a target of 5000": (b"GET /" + b"a" * 5000 + b" HTTP/1.1\r\nHost: x\r\n\r\n", 414),
    "row 5 65 headers": (
        b"GET / HTTP/1.1\r\nHost: x\r\n" + b"".join(b"A%d: b\r\n" % n for n in range(65)) + b"\r\n",
        431,
    ),
    "row 6 a header of 9000": (
        b"GET / HTTP/1.1\r\nHost: x\r\nA: " + b"a" * 9000 + b"\r\n\r\n",
        431,
    ),
    "row 7 length and chunks": (
        b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n"
        b"0\r\n\r\n",
        400,
    ),
    "row 8 two lengths": (
        b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nab",
        400,
    ),
    "row 9 a signed length": (
        b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: +5\r\n\r\nabcde",
        400,
    ),
    "row 12 a control character": (b"GET / HTTP/1.1\r\nHost: x\r\nA: b\x00c\r\n\r\n", 400),
    "row 13 two hosts": (b"GET / HTTP/1.1\r\nHost: x\r\nHost: y\r\n\r\n", 400),
    "row 15 a folded header": (b"GET / HTTP/1.1\r\nHost: x\r\nA: b\r\n c\r\n\r\n", 400),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_broken_http_is_refused_before_the_app(impatient: Stack, name: str) -> None:
    raw, status = HOSTILE[name]
    assert exchange(impatient, raw)[0] == status


ODD_KEYS = {
    "row 19 basic": "Basic abc",
    "row 19 bearer alone": "Bearer",
    "row 21 8 KB": "Bearer " + "k" * 8000,
    "row 21 not ascii": "Bearer mk_inference_\xe9\xe9\xe9",
}


@pytest.mark.parametrize("name", ODD_KEYS)
def test_an_odd_key_is_a_wrong_key(impatient: Stack, name: str) -> None:
    lines = [
        f"POST {PATH} HTTP/1.1",
        "Host: x",
        f"Authorization: {ODD_KEYS[name]}",
        "Content-Type: application/json",
        "Content-Length: 2",
    ]
    status, body = exchange(impatient, "\r\n".join([*lines, "", ""]).encode("latin-1") + b"{}")
    assert (status, code(body)) == (401, "invalid_api_key")


def test_the_same_process_lives_after_all_of_it(impatient: Stack) -> None:
    for raw, _ in HOSTILE.values():
        exchange(impatient, raw)
    assert exchange(impatient, head(impatient, path="/inference/v1/health", method="GET"))[0] == 200
    assert impatient.logs().count("Booting worker") == 1
