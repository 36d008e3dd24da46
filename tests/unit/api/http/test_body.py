"""api/http/body.py: how long a body may take, and when its size is held."""

from __future__ import annotations

import io
from typing import Any

import gevent
import orjson
import pytest

from api.http.body import LEAST_BYTES_A_SECOND, PARSING, PIECE_BYTES, read_json
from gateway.broker.body_room import COUNTED_BYTES
from gateway.errors import BodyTimeout, PayloadTooLarge

LIMIT = 10 * COUNTED_BYTES
SHORT = 0.01  # seconds


class SlowInput:
    """A body that takes `seconds` to arrive."""

    def __init__(self, body: bytes, seconds: float = 0) -> None:
        self._body, self._seconds = io.BytesIO(body), seconds

    def read(self, size: int) -> bytes:
        gevent.sleep(self._seconds)
        return self._body.read(size)


def read(body: bytes, seconds: float = 0, chunked: bool = False, timeout: float = 60) -> list[int]:
    """Read a body; the sizes that were held."""
    environ: dict[str, Any] = {
        "CONTENT_TYPE": "application/json",
        "wsgi.input": SlowInput(body, seconds),
    }
    if chunked:
        environ["HTTP_TRANSFER_ENCODING"] = "chunked"
    else:
        environ["CONTENT_LENGTH"] = str(len(body))
    held: list[int] = []
    assert read_json(environ, LIMIT, timeout, held.append) == orjson.loads(body)
    return held


def text(size: int) -> bytes:
    return b'"' + b"x" * (size - 2) + b'"'


def test_a_body_that_does_not_come_is_given_up() -> None:
    with pytest.raises(BodyTimeout):
        read(b"{}", seconds=60, timeout=SHORT)


@pytest.mark.parametrize("chunked", [False, True])
def test_a_large_body_may_take_its_time(chunked: bool) -> None:
    assert COUNTED_BYTES / LEAST_BYTES_A_SECOND > 3
    read(text(COUNTED_BYTES), seconds=10 * SHORT, chunked=chunked, timeout=SHORT)


def test_only_the_size_of_large_bodies_is_held() -> None:
    assert read(text(COUNTED_BYTES)) == []
    assert read(text(COUNTED_BYTES + 1)) == [COUNTED_BYTES + 1]


def test_for_chunks_the_limit_is_held_until_their_size_is_known() -> None:
    assert read(text(100), chunked=True) == [LIMIT, 100]


def test_others_have_their_turn_while_a_large_body_is_read() -> None:
    turns = 0

    def turn() -> None:
        nonlocal turns
        while True:
            turns += 1
            gevent.sleep(0)

    other = gevent.spawn(turn)
    read(text(2 * PIECE_BYTES + 1))
    assert turns > 2
    other.kill()


def test_a_body_over_the_limit_is_not_held() -> None:
    with pytest.raises(PayloadTooLarge):
        read(text(LIMIT + 1))


def test_large_bodies_are_parsed_one_at_a_time_and_small_ones_meanwhile() -> None:
    with PARSING:
        waiting = gevent.spawn(read, text(COUNTED_BYTES + 1))
        assert read(b"{}") == []
        gevent.sleep(SHORT)
        assert not waiting.ready()
    waiting.get(timeout=60)
