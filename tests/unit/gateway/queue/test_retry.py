"""A call that runs once more because its worker was lost: lua/retry.lua on a real Redis."""

from __future__ import annotations

from typing import Any

import orjson
import pytest
from redis import Redis

from gateway.queue import commands, event_logs, keys, scripts, steering
from gateway.queue.commands import JobState
from gateway.queue.protocol import CHUNKS, RETRY, Event
from gateway.settings import Settings
from tests.support.admission import KEY, WEB, WORKER, Calls

CALL_ID = "c" * 32
LOG = keys.log_address(CALL_ID, 600)
ENTRY = {"time": 1, "action": "queue.test", "target": "t"}


@pytest.fixture
def calls(redis: Redis, settings: Settings) -> Calls:
    calls = Calls(redis, settings)
    calls.key()
    return calls


def claim(calls: Calls, claim_id: str = "c1") -> list[tuple[str, bytes | None, dict[str, Any]]]:
    """Id, body and admission of what a claim takes."""
    reply = calls.run(calls.claims.command(claim_id, 8))
    rows = zip(reply[::5], reply[3::5], reply[4::5], strict=True)
    return [(each.decode(), body, orjson.loads(admission)) for each, body, admission in rows]


def lost(calls: Calls, call_id: str, claim_id: str = "c1", address: str = WEB) -> bool:
    return bool(calls.run(commands.retry_command(call_id, claim_id, address)))


def running(calls: Calls, **request: Any) -> str:
    call_id = calls.submit(**{"retry": True, **request})
    assert [row[0] for row in claim(calls)] == [call_id]
    return call_id


def events(redis: Redis, address: str = WEB) -> list[Event]:
    entries: Any = redis.xrange(keys.inbox(address))
    return [Event.decode(fields[b"e"]) for _, fields in entries]


def test_a_call_whose_worker_is_lost_is_claimed_once_more_with_its_body(calls: Calls) -> None:
    call_id = calls.submit(retry=True)
    calls.pass_time(70)
    ((_, body, admission),) = claim(calls)
    assert admission["retry"] is True and "lost_ms" not in admission
    calls.pass_time(1_500)
    assert lost(calls, call_id)
    assert calls.redis.zcard(keys.RQ_STARTED) == 0
    assert calls.status(call_id) == "queued"
    assert events(calls.redis) == [Event(call_id, "", 0, RETRY, b"c1")]
    calls.pass_time(30)
    ((again, same_body, admission),) = claim(calls, "c2")
    assert (again, same_body) == (call_id, body)
    assert (admission["queued_ms"], admission["lost_ms"]) == (100, 1_500)
    assert "retry" not in admission
    assert commands.states(calls.redis, [call_id]) == [JobState("started", WORKER, "c2", "c1")]


def test_a_second_look_at_the_same_loss_changes_nothing(calls: Calls) -> None:
    call_id = running(calls)
    assert lost(calls, call_id)
    before = calls.dump()
    assert lost(calls, call_id)
    assert calls.dump() == before
    claim(calls, "c2")
    before = calls.dump()
    assert lost(calls, call_id)
    assert calls.dump() == before


def test_a_call_runs_no_third_time(calls: Calls) -> None:
    call_id = running(calls)
    assert lost(calls, call_id)
    claim(calls, "c2")
    assert not lost(calls, call_id, "c2")
    assert calls.status(call_id) == "started"


def test_a_call_that_may_not_does_not_run_again(calls: Calls) -> None:
    call_id = running(calls, retry=False)
    before = calls.dump()
    assert not lost(calls, call_id)
    assert calls.dump() == before


@pytest.mark.parametrize("claim_id", ["", "c2"])
def test_another_claim_than_the_one_that_was_lost_goes_on(calls: Calls, claim_id: str) -> None:
    call_id = running(calls)
    assert not lost(calls, call_id, claim_id)
    assert calls.status(call_id) == "started"


def test_a_call_that_has_ended_does_not_run_again(calls: Calls) -> None:
    call_id = running(calls)
    assert calls.finish(call_id)
    assert not lost(calls, call_id)
    assert calls.status(call_id) == "finished"


def test_the_late_outcome_of_the_lost_worker_is_refused(calls: Calls) -> None:
    call_id = running(calls)
    assert lost(calls, call_id)
    assert not calls.finish(call_id)
    claim(calls, "c2")
    assert not calls.finish(call_id)
    assert calls.records() == []


def test_a_call_whose_body_is_gone_does_not_run_again(calls: Calls) -> None:
    """A worker of the previous release removes it."""
    call_id = running(calls)
    calls.redis.delete(keys.call(call_id))
    assert not lost(calls, call_id)


def test_a_call_that_redis_has_lost_does_not_run_again(calls: Calls) -> None:
    call_id = running(calls)
    calls.redis.flushdb()
    calls.pass_time(0)
    assert not lost(calls, call_id)
    scripts.run(calls.redis, commands.announce_command(call_id, "c1", WORKER, WEB, 60))
    assert not lost(calls, call_id)
    assert commands.states(calls.redis, [call_id]) == [JobState("started", WORKER, "c1")]


def test_a_call_past_its_deadline_does_not_run_again(calls: Calls) -> None:
    call_id = running(calls, seconds=10)
    calls.pass_time(10_000)
    assert not lost(calls, call_id)


@pytest.mark.parametrize("field", ["revoked", "disabled"])
def test_a_call_whose_key_is_no_longer_valid_does_not_run_again(calls: Calls, field: str) -> None:
    call_id = running(calls)
    calls.redis.hset(keys.key(KEY), field, 1)
    assert not lost(calls, call_id)


def test_a_call_that_was_cancelled_does_not_run_again(calls: Calls) -> None:
    call_id = running(calls)
    assert calls.cancel(call_id) == b"told"
    assert not lost(calls, call_id)


def test_a_call_that_waits_to_run_again_can_be_cancelled(calls: Calls) -> None:
    call_id = running(calls)
    assert lost(calls, call_id)
    assert calls.cancel(call_id) == b"removed"
    (record,) = calls.records()
    assert (record["id"], record["status"]) == (call_id, "cancelled")
    assert int(calls.redis.get(keys.QUEUED_BYTES) or 0) == 0


def test_a_logged_call_runs_again_only_while_its_log_is_empty(calls: Calls) -> None:
    call_id = running(calls, call_id=CALL_ID, web=LOG)
    scripts.run(
        calls.redis,
        commands.emit_command(LOG, [Event(call_id, "c1", 1, CHUNKS, b"{}").encode()]),
    )
    assert not lost(calls, call_id, address=LOG)


def test_readers_of_a_log_learn_before_the_second_run_that_the_first_was_lost(
    calls: Calls,
) -> None:
    call_id = running(calls, call_id=CALL_ID, web=LOG)
    assert lost(calls, call_id, address=LOG)
    assert events(calls.redis, LOG) == [Event(call_id, "", 0, RETRY, b"c1")]
    assert calls.redis.ttl(keys.log(call_id)) > keys.SHARED_SECONDS
    assert event_logs.logged_outcome(calls.redis, call_id) is None


def test_what_a_call_has_reserved_stays_reserved_and_is_released_once(calls: Calls) -> None:
    calls.key(limit=1_000, max_in_flight=3, rpm=60)
    call_id = running(calls, prompt_tokens=10, prompt_nano=100)
    held = calls.numbers(keys.held(KEY))
    assert lost(calls, call_id)
    assert calls.numbers(keys.held(KEY)) == held
    assert calls.redis.zcard(keys.flight(KEY)) == 1
    assert int(calls.redis.get(keys.QUEUED_BYTES) or 0) > 0
    claim(calls, "c2")
    assert not calls.redis.exists(keys.QUEUED_BYTES)
    [command] = commands.finish_commands(
        call_id, "c2", WEB, WORKER, commands.Outcome(answer=b"{}"), b"{}", 90, 9
    )
    assert calls.run(command)
    assert not calls.redis.exists(keys.held(KEY), keys.flight(KEY), keys.call(call_id))
    spent = calls.numbers(keys.spend(KEY))
    assert (spent["usd"], spent["tokens"], spent["requests"]) == ("90", "9", "1")


def test_a_call_that_runs_again_starts_before_those_that_wait(calls: Calls) -> None:
    calls.key("Other0000000")
    call_id = running(calls)
    waiting = [calls.submit() for _ in range(3)]
    urgent = calls.submit("Other0000000", account={"priority": "interactive"})
    assert lost(calls, call_id)
    order = [row[0] for row in claim(calls, "c2")]
    assert order[0] == call_id
    assert set(order) == {call_id, urgent, *waiting}


def test_a_paused_call_runs_again_when_the_pause_has_ended(calls: Calls) -> None:
    call_id = running(calls)
    assert steering.pause(calls.redis, f"key:{KEY}", 7, "boss", ENTRY)
    assert lost(calls, call_id)
    assert claim(calls, "c2") == []
    assert steering.resume(calls.redis, f"key:{KEY}", ENTRY)
    calls.promote()
    assert [row[0] for row in claim(calls, "c3")] == [call_id]


def test_bodies_that_stay_for_a_second_run_leave_room_for_other_calls(calls: Calls) -> None:
    """A caller with a few large and slow calls would fill Redis for everybody."""
    used, repeatable = calls.redis.info("memory")["used_memory"], 0
    calls.redis.config_set("maxmemory", used + 40_000_000)
    for number in range(60):
        call_id = calls.submit(retry=True, body=b"x" * 1_000_000)
        assert calls.replies[call_id][0] == b"ok", number
        ((_, _, admission),) = claim(calls, f"c{number}")
        if "retry" in admission:
            repeatable += 1
        else:  # as its worker does
            calls.redis.unlink(keys.call(call_id))
            assert not lost(calls, call_id, f"c{number}")
    assert 0 < repeatable < 20
