"""The judge of the fault suite: what it takes for a defect, and what not."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from redis import Redis

from tests.faults.client import Seen
from tests.faults.reconciler import Allowed, leaked_keys, reconcile, sockets_left

NOW = 1_000.0
ORDINARY = Allowed()
GOOD = Seen(
    nonce="n1",
    model="fake/nonce-stream-2-10",
    stream=True,
    deadline=10.0,
    began=900.0,
    ended=901.0,
    status=200,
    text="n1 t0 t1 ",
    reasons=1,
    done=True,
)
GONE = replace(GOOD, text="n1 ", reasons=0, done=False, left=900.5)
REFUSED = replace(GOOD, status=503, text="", reasons=0, done=False, code="queue_unavailable")


MODEL = "nonce-stream-2-10"


def call(nonce: str = "n1", ended: float | None = 901.0, model: str = MODEL) -> dict[str, Any]:
    body = {"messages": [{"role": "user", "content": nonce}]}
    return {"body": body, "ended": ended, "model": model}


def kinds(seen: Seen, log: list[dict[str, Any]], allowed: Allowed = ORDINARY) -> list[str]:
    return [defect.kind for defect in reconcile([seen], log, allowed, NOW)]


def test_a_whole_answer_of_one_provider_call_is_no_defect() -> None:
    assert kinds(GOOD, [call(), call("another")]) == []


@pytest.mark.parametrize(
    ("change", "kind"),
    [
        ({"broken": "ConnectionResetError"}, "lost"),
        ({"ended": 915.5}, "lost"),
        ({"text": "n2 t0 t1 "}, "wrong"),
        ({"text": "n1 t0 t0 "}, "wrong"),
        ({"text": "n1 t0 "}, "truncated"),
        ({"reasons": 0}, "truncated"),
        ({"done": False}, "truncated"),
        ({"reasons": 2}, "duplicated"),
    ],
)
def test_a_bad_answer_is_named(change: dict[str, Any], kind: str) -> None:
    assert kind in kinds(replace(GOOD, **change), [call()])


def test_a_stream_that_ends_with_an_error_is_no_defect() -> None:
    assert kinds(replace(GOOD, text="n1 t0 ", reasons=0, code="worker_lost"), [call()]) == []


def test_a_stream_without_its_last_event_is_one_even_after_an_error() -> None:
    ended = replace(GOOD, text="n1 t0 ", reasons=0, code="worker_lost", done=False)
    assert kinds(ended, [call()]) == ["truncated"]


def test_an_unstreamed_answer_needs_no_last_event() -> None:
    whole = replace(GOOD, stream=False, done=False)
    assert kinds(whole, [call()]) == []
    assert kinds(replace(whole, text="n1 t0 "), [call()]) == ["truncated"]


def test_a_second_provider_call_is_one_unless_it_is_allowed() -> None:
    assert kinds(GOOD, [call(), call()]) == ["duplicated"]
    assert kinds(GOOD, [call(), call()], Allowed(attempts=2)) == []
    assert kinds(GOOD, [call(), call(), call()], Allowed(attempts=2)) == ["duplicated"]


def test_a_second_model_is_one_unless_it_is_allowed() -> None:
    log = [call(), call(model="another")]
    assert kinds(GOOD, log) == ["duplicated"]
    assert kinds(GOOD, log, Allowed(models=2)) == []
    assert kinds(GOOD, [*log, call()], Allowed(models=2)) == ["duplicated"]


FALLBACK = "nonce-stream-2-10-from-1000"
FELL_OVER = replace(GOOD, model="first/model", answerers={FALLBACK}, text="n1 t1000 t1001 ")


def test_the_answer_of_a_fallback_that_was_asked_is_none() -> None:
    log = [call(model="first"), call(model=FALLBACK)]
    assert kinds(FELL_OVER, log, Allowed(models=2)) == []
    assert kinds(FELL_OVER, [call(model="first")], Allowed(models=2)) == ["wrong"]


@pytest.mark.parametrize(
    "text", ["n1 t0 n1 t1000 t1001 ", "n1 t0 t1001 ", "n1 t0 t1 ", "n1 t0 t1000 t1001 "]
)
@pytest.mark.parametrize("answerer", [MODEL, FALLBACK])
def test_an_answer_spliced_onto_a_part_of_another_is_wrong(text: str, answerer: str) -> None:
    log = [call(), call(model=FALLBACK)]
    spliced = replace(FELL_OVER, answerers={answerer}, text=text)
    sound = answerer == MODEL and text == "n1 t0 t1 "
    assert ("wrong" in kinds(spliced, log, Allowed(models=2))) is not sound


def test_an_answer_of_two_models_is_wrong() -> None:
    two = replace(FELL_OVER, answerers={MODEL, FALLBACK})
    assert "wrong" in kinds(two, [call(), call(model=FALLBACK)], Allowed(models=2))


def test_a_key_in_an_answer_is_a_broken_promise() -> None:
    assert kinds(replace(GOOD, told_secret=True), [call()]) == ["promise"]


def test_connections_may_break_where_their_process_was_killed() -> None:
    broken = replace(GOOD, broken="ConnectionResetError", reasons=0, done=False)
    assert kinds(broken, [call()], Allowed(broken=True)) == []


@pytest.mark.parametrize(("ended", "found"), [(903.0, []), (904.0, ["orphaned"])])
def test_a_provider_call_ends_soon_after_its_client_left(ended: float, found: list[str]) -> None:
    assert kinds(GONE, [call(ended=ended)]) == found


def test_a_provider_call_that_has_not_ended_is_measured_until_now() -> None:
    assert kinds(GONE, [call(ended=None)]) == ["orphaned"]
    assert kinds(GONE, [call(ended=None)], Allowed(orphan_seconds=200.0)) == []


def test_who_is_told_to_try_again_was_not_sent_to_the_provider() -> None:
    told = replace(REFUSED, should_retry="true")
    assert kinds(told, []) == []
    assert kinds(told, [call()]) == ["misled"]
    assert kinds(told, [call()], Allowed(retry=True)) == []
    assert kinds(replace(told, should_retry="false"), [call()]) == []


def test_what_ends_by_itself_is_no_leaked_key(redis: Redis) -> None:
    redis.set("gw:outcome:1", "x", ex=120)
    redis.sadd("rq:queues", "rq:queue:infer")
    redis.zadd("rq:finished:infer", {"1": 1})
    redis.hset("gw:key:a", "name", "x")
    redis.set("gw:queued:bytes", 0, ex=86_400)
    assert leaked_keys(redis) == []


def test_what_stays_is_a_leaked_key(redis: Redis) -> None:
    redis.set("gw:call:1", "x")
    redis.set("gw:outcome:1", "x", ex=3_000)
    redis.zadd("rq:wip:infer", {"1:a": 1})
    redis.rpush("rq:queue:infer", "1")
    redis.set("gw:queued:bytes", 10, ex=86_400)
    leaks = leaked_keys(redis)
    named = [leak.partition(": ")[0] for leak in leaks]
    assert {
        "gw:call:1",
        "gw:outcome:1",
        "rq:wip:infer",
        "rq:queue:infer",
        "gw:queued:bytes",
    } == set(named)


def test_connections_of_a_server_are_counted_by_its_port() -> None:
    table = "\n".join(
        [
            "  sl  local_address rem_address   st tx_queue rx_queue",
            "   0: 0100007F:1F40 00000000:0000 0A 00000000:00000000",
            "   1: 0100007F:1F40 0100007F:9C40 01 00000000:00000000",
            "   2: 0100007F:1F40 0100007F:9C41 08 00000000:00000000",
            "   3: 0100007F:9C40 0100007F:1F40 01 00000000:00000000",
            "   4: 0100007F:1F40 0100007F:9C42 06 00000000:00000000",
        ]
    )
    assert sockets_left(8000, table) == 2
