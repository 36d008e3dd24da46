"""workers/keeping.py: which responses are kept."""

from __future__ import annotations

from typing import Any

import pytest
from redis import Redis

from gateway.account.cache import ENTRY_BYTES, Entry
from gateway.catalogue.target import Target
from gateway.errors import UpstreamTruncated
from gateway.queue import keys, scripts
from gateway.queue.protocol import CallSpec, Outcome
from workers.claims import Claimed
from workers.keeping import KeepingSender

NAME = "a" * 64
FIRST, SECOND = Target("one/model", "one", "model"), Target("two/model", "two", "model")
WHOLE = b'{"choices":[{"finish_reason":"stop"}]}'
CHUNKS = [b'{"choices":[{"delta":{"content":"a"}}]}', WHOLE]


class Outbox:
    """Runs each command at once."""

    def __init__(self, redis: Redis) -> None:
        self._redis = redis

    def put(self, command: Any) -> None:
        scripts.run(self._redis, command)

    def ready(self, sender: Any) -> None:
        pass

    def wait_sent(self) -> None:
        raise AssertionError("the test sends too much")


@pytest.fixture
def keep(redis: Redis) -> Any:
    """A function that keeps a response, if it may; returns what is kept then."""

    def keep(
        outcome: Outcome, *chunks: bytes, admission: dict[str, Any] | None = None
    ) -> Entry | None:
        cache = {"name": NAME, "seconds": 60}
        spec = CallSpec("call", "web", bool(chunks), (FIRST, SECOND), cache=cache)
        claimed = Claimed("call", "web", "claim", 600, b"", admission or {})
        outbox: Any = Outbox(redis)
        sender = KeepingSender(outbox, claimed, spec, 10_000_000)
        for chunk in chunks:
            sender.send(chunk)
            sender.unsent = None
        sender.keep(outcome, 42)
        value: Any = redis.get(keys.cached(NAME))
        return Entry.decode(value) if value else None

    return keep


def outcome(answer: bytes = b"", route: str = FIRST.route, **more: Any) -> Outcome:
    return Outcome(answer=answer, route=route, **more)


def test_a_whole_response_is_kept(keep: Any) -> None:
    assert keep(outcome(WHOLE, dropped=["seed"])) == Entry(WHOLE, 42, ["seed"])


def test_the_chunks_of_a_stream_are_kept(keep: Any) -> None:
    assert keep(outcome(), *CHUNKS) == Entry(b"\n".join(CHUNKS), 42)


def test_a_stream_that_fails_is_not_kept(keep: Any) -> None:
    assert keep(outcome(error=UpstreamTruncated()), *CHUNKS) is None


def test_an_error_is_not_kept(keep: Any) -> None:
    assert keep(outcome(error=UpstreamTruncated())) is None


def test_what_a_fallback_has_answered_is_not_kept(keep: Any) -> None:
    assert keep(outcome(WHOLE, SECOND.route)) is None


def test_what_a_budget_has_capped_is_not_kept(keep: Any) -> None:
    assert keep(outcome(WHOLE), admission={"cap": 10}) is None
    assert keep(outcome(WHOLE), admission={"cap": 0}) is not None


@pytest.mark.parametrize("stream", [False, True])
def test_what_a_provider_has_filtered_is_not_kept(keep: Any, stream: bool) -> None:
    filtered = b'{"choices":[{"finish_reason":"content_filter"}]}'
    chunks = (CHUNKS[0], filtered) if stream else ()
    assert keep(outcome(b"" if stream else filtered), *chunks) is None


def test_a_text_about_filters_is_kept(keep: Any) -> None:
    quoted = b'{"choices":[{"message":"\\"finish_reason\\":\\"content_filter\\""}]}'
    assert keep(outcome(quoted)) is not None


@pytest.mark.parametrize(("size", "kept"), [(ENTRY_BYTES, True), (ENTRY_BYTES + 1, False)])
def test_a_long_response_is_not_kept(keep: Any, size: int, kept: bool) -> None:
    assert (keep(outcome(b"x" * size)) is not None) is kept


@pytest.mark.parametrize(("size", "kept"), [(ENTRY_BYTES - 2, True), (ENTRY_BYTES, False)])
def test_a_long_stream_is_not_kept(keep: Any, size: int, kept: bool) -> None:
    half = b"x" * (size // 2)
    assert (keep(outcome(), half, half) is not None) is kept
