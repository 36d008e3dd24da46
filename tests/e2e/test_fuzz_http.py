"""Broken bytes, over real sockets, to the whole service.

`--hypothesis-profile=nightly` sends 2,000 byte strings, see CONTRIBUTING.md. A failure prints its
seed, which FUZZ_SEED takes. Mutated requests are in tests/contract/test_fuzz.py.
"""

from __future__ import annotations

import os
import random
import re
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import hypothesis
import pytest

from tests.support.raw_http import CHAT, PARSERS, get, post, say
from tests.support.stack import Stack

pytestmark = pytest.mark.slow

NIGHTLY = hypothesis.settings.get_current_profile_name() == "nightly"
BYTES = (2_000 if NIGHTLY else 500) // len(PARSERS)
SEED = int(os.environ.get("FUZZ_SEED") or random.randrange(2**32))
AT_ONCE = 16
ANSWERED = {200, 400, 401, 404, 405, 408, 413, 414, 415, 417, 431}
PARSERS_OWN = {501, 505}
STATUS = re.compile(rb"HTTP/1\.\d (\d{3}) ")


@pytest.fixture(
    scope="module",
    params=[pytest.param(name, marks=pytest.mark.xdist_group(f"fuzz {name}")) for name in PARSERS],
)
def service(tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest) -> Iterator:
    env = {
        "BODY_TIMEOUT_SECONDS": "1",
        "GUNICORN_CMD_ARGS": f"--http-parser {request.param} --keep-alive 1",
    }
    with Stack(tmp_path_factory.mktemp("fuzz"), env=env) as stack:
        yield stack


def processes(stack: Stack) -> list[str]:
    """The processes of the service: gunicorn, what it has started, and the worker."""
    children = Path(f"/proc/{stack.web.pid}/task/{stack.web.pid}/children").read_text()
    assert all(process.popen.poll() is None for process in (stack.web, *stack.workers))
    return [str(stack.web.pid), *children.split(), *(str(each.pid) for each in stack.workers)]


def survives(stack: Stack, sent: list[bytes]) -> Counter:
    """Send all of these, some at once; counts what the answers were, 0 for none."""
    before = processes(stack)

    def ask(number: int) -> Counter:
        raw = sent[number]
        try:
            received = say(stack, raw, close_writing=number % 7 == 0, until_closed=number % 3 == 0)
        except TimeoutError:
            pytest.fail(f"no end of the connection; seed {SEED}: {raw[:2_000]!r}")
        statuses = [int(status) for status in STATUS.findall(received)]
        bad = set(statuses) - ANSWERED - PARSERS_OWN - {100}
        assert not bad, f"{bad}; seed {SEED}: {raw[:2_000]!r} {received[:500]!r} {stack.logs()}"
        return Counter(statuses or [0])

    with ThreadPoolExecutor(AT_ONCE) as pool:
        counted = sum(pool.map(ask, range(len(sent))), Counter())
    assert processes(stack) == before
    assert stack.ask("fake/echo", "still there").json()["choices"][0]["message"]["content"]
    logs = stack.logs()
    for word in ("Traceback", "ERROR", stack.key):
        assert word not in logs, f"seed {SEED}: {logs}"
    return counted


def test_broken_bytes_break_nothing(service: Stack) -> None:
    chance = random.Random(SEED)
    sent = [broken(chance, good(chance, service)) for _ in range(BYTES)]
    counted = survives(service, sent)
    print(f"{len(sent)} byte strings: {dict(counted)}")  # noqa: T201
    assert counted[400]


def good(chance: random.Random, stack: Stack) -> bytes:
    """A request that is good."""
    body = b'{"model":"fake/echo","messages":[{"role":"user","content":"hello"}]}'
    length = f"Content-Length: {len(body)}"
    half = len(body) // 2
    pieces = (body[:half], body[half:], b"")
    chunks = b"".join(b"%x\r\n%b\r\n" % (len(piece), piece) for piece in pieces)
    whole = post(stack, length, "Expect: 100-continue", body=body)
    return chance.choice(
        [
            get(),
            get(target="/inference/v1/models"),
            post(stack, length, body=body),
            post(stack, length, body=body, path=CHAT.replace("chat/completions", "messages")),
            post(stack, "Transfer-Encoding: chunked", body=chunks),
            post(stack, "Transfer-Encoding: chunked", body=chunks[:-2] + b"A: b\r\n\r\n"),
            whole,
            get() + whole,
        ]
    )


def broken(chance: random.Random, raw: bytes) -> bytes:
    """The same, broken in one way or another; now and then nothing but noise."""
    at, end = sorted(chance.randrange(len(raw)) for _ in range(2))
    kind = chance.randrange(7)
    if kind == 0:
        return chance.randbytes(chance.randint(1, 2_000))
    if kind == 1:
        return raw[:at]
    if kind == 2:
        return raw[:at] + raw[end:]
    if kind == 3:
        return raw[:end] + raw[at:]
    if kind == 4:
        return raw[:at] + chance.randbytes(chance.randint(1, 40)) + raw[at:]
    flipped = bytearray(raw)
    head = raw.index(b"\r\n\r\n") + 4
    for _ in range(chance.randint(1, 4)):
        place = chance.randrange(head if kind == 5 else len(raw))
        flipped[place] ^= 1 << chance.randrange(8)
    return bytes(flipped)
