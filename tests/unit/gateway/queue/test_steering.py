"""A queue that operators look at and steer, and scheduled calls: on a Redis whose clock is set."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import orjson
import pytest
from redis import Redis

from gateway.errors import CancelledByOperator
from gateway.queue import commands, event_logs, keys, steering
from gateway.queue.protocol import Event, Outcome
from gateway.queue.steering import IN_LINE, LIMIT, PAUSED, SCHEDULED
from gateway.settings import Settings
from tests.support.admission import KEY, MONDAY, WEB, WORKER, Calls

OTHER = "OtherKey0000"
MODEL = "model:demo/echo"  # of every call here
ENTRY = {"time": 1, "action": "queue.test", "target": "t"}
HOUR = 3_600_000  # milliseconds


@pytest.fixture
def calls(redis: Redis, settings: Settings) -> Calls:
    calls = Calls(redis, settings)
    calls.key()
    calls.key(OTHER)
    return calls


def page(calls: Calls, **filters: Any) -> list[steering.Waiting]:
    return steering.waiting(calls.redis, **filters)[0]


def reasons(calls: Calls) -> dict[str, str]:
    return {call.id: call.reason for call in page(calls)}


def pause(calls: Calls, name: str = f"key:{KEY}") -> None:
    assert steering.pause(calls.redis, name, 7, "boss", ENTRY)


def audited(calls: Calls) -> int:
    return calls.redis.xlen(keys.AUDIT)


def leftovers(calls: Calls) -> set[bytes]:
    """What is left of the sets in which calls wait."""
    return {name for name in calls.redis.keys() if b"paused" in name or b"scheduled" in name}


# pauses


@pytest.mark.parametrize("name", [f"key:{KEY}", MODEL, "provider:demo"])
def test_a_paused_call_waits_and_goes_on_when_the_pause_ends(calls: Calls, name: str) -> None:
    pause(calls, name)
    first, second = calls.submit(), calls.submit()
    assert calls.claim() == []
    assert (calls.status(first), calls.status(second)) == ("deferred", "deferred")
    assert reasons(calls) == {first: PAUSED, second: PAUSED}
    assert calls.promote() == 2
    assert calls.claim() == []
    assert steering.resume(calls.redis, name, ENTRY)
    assert calls.promote() == 0
    assert calls.claim(2) == [first, second]
    assert leftovers(calls) == set()
    assert calls.numbers(keys.job(first)).get("aside") is None


def test_others_pass_paused_calls_and_new_ones_of_the_paused_key_wait(calls: Calls) -> None:
    waiting = [calls.submit() for _ in range(3)]
    pause(calls)
    other = calls.submit(OTHER)
    late = calls.submit()
    assert calls.claim() == [other]
    assert calls.claim() == []
    assert set(reasons(calls)) == {*waiting, late}


def test_a_claim_sets_no_more_than_some_hundred_calls_aside(calls: Calls) -> None:
    pause(calls)
    with calls.redis.pipeline(transaction=False) as pipeline:
        for _ in range(501):
            command = calls.command()
            pipeline.execute_command("EVALSHA", calls.by_clock(command[1]), *command[2:])
        pipeline.execute()
    assert calls.claim() == []
    assert steering.counts(calls.redis) == {IN_LINE: 1, LIMIT: 0, PAUSED: 500, SCHEDULED: 0}
    assert calls.redis.llen(keys.BELL) > 0  # somebody comes back for the rest
    assert calls.claim() == []
    assert steering.counts(calls.redis)[PAUSED] == 501


def test_a_paused_call_ends_at_its_deadline(calls: Calls) -> None:
    pause(calls)
    call_id = calls.submit(seconds=10)
    calls.claim()
    calls.pass_time((10 + keys.GRACE_SECONDS) * 1000)
    assert calls.promote() == 0
    assert calls.status(call_id) == "canceled"
    (record,) = calls.records()
    assert (record["status"], record["error_code"]) == ("failed", "deadline_exceeded")
    assert leftovers(calls) == {keys.PAUSED.encode()}
    assert not calls.redis.exists(keys.call(call_id), keys.WAITING)
    assert int(calls.redis.get(keys.QUEUED_BYTES) or 0) == 0


@pytest.mark.parametrize("why", [PAUSED, SCHEDULED, LIMIT])
def test_a_logged_call_that_does_not_start_ends_in_its_log_at_its_deadline(
    calls: Calls, why: str
) -> None:
    """No process waits for it, which would end it."""
    call_id = "c" * 32
    delay = 9 if why == SCHEDULED else 0
    if why == LIMIT:
        calls.key(max_in_flight=1)
        calls.submit(seconds=600)
    calls.submit(call_id=call_id, web=keys.log_address(call_id, 60), seconds=10, delay=delay)
    if why == PAUSED:
        pause(calls)
        assert calls.claim() == []
    assert reasons(calls)[call_id] == why
    calls.pass_time(10_000)
    assert calls.promote() == 0
    logged = event_logs.logged_outcome(calls.redis, call_id)
    assert logged is not None and logged[0].error is not None
    assert logged[0].error.code == "deadline_exceeded"


def test_a_call_past_its_deadline_is_not_held_but_handed_out_to_be_ended(calls: Calls) -> None:
    pause(calls)
    call_id = calls.submit(seconds=10)
    calls.pass_time(10_000)
    assert calls.claim() == [call_id]


def test_a_cancelled_paused_call_leaves_nothing(calls: Calls) -> None:
    pause(calls)
    call_id = calls.submit()
    calls.claim()
    assert calls.cancel(call_id) == b"removed"
    assert leftovers(calls) == {keys.PAUSED.encode()}
    assert not calls.redis.exists(keys.RQ_DEFERRED)


def test_paused_calls_are_not_in_flight_and_keep_what_they_reserved(calls: Calls) -> None:
    calls.key(max_in_flight=1, limit=1000, limit_unit="tokens")
    pause(calls, MODEL)
    first, second = (calls.submit(prompt_tokens=10) for _ in range(2))
    assert reasons(calls) == {first: PAUSED, second: LIMIT}
    assert calls.claim() == []  # and the second, for which there was room then, is held too
    assert reasons(calls) == {first: PAUSED, second: PAUSED}
    assert not calls.redis.exists(keys.flight(KEY), keys.parked(KEY))
    assert calls.numbers(keys.held(KEY))["tokens"] == "20"
    steering.resume(calls.redis, MODEL, ENTRY)
    calls.promote()
    assert reasons(calls) == {first: IN_LINE, second: LIMIT}
    assert calls.claim(2) == [first]
    calls.finish(first)
    assert calls.claim(2) == [second]
    calls.finish(second)
    assert not calls.redis.exists(keys.flight(KEY), keys.held(KEY), keys.parked(KEY))


def test_calls_of_an_owner_s_other_keys_go_on_while_one_is_paused(calls: Calls) -> None:
    calls.owner("team", max_in_flight=1)
    calls.key(owner="team")
    calls.key(OTHER, owner="team")
    pause(calls)
    held, other = calls.submit(owner="team"), calls.submit(OTHER, owner="team")
    assert calls.claim() == [other]
    assert reasons(calls) == {held: PAUSED}


@pytest.mark.parametrize("change", ["revoked", "disabled", "expires", "gone", "owner"])
def test_a_key_that_is_no_longer_valid_after_the_pause_starts_nothing(
    calls: Calls, change: str
) -> None:
    calls.owner("team")
    calls.key(owner="team")
    pause(calls)
    call_id = calls.submit(owner="team")
    calls.claim()
    if change == "gone":
        calls.redis.delete(keys.key(KEY))
    elif change == "owner":
        calls.redis.hset(keys.owner_record("team"), "disabled", 1)
    else:
        calls.redis.hset(keys.key(KEY), change, MONDAY)
    steering.resume(calls.redis, f"key:{KEY}", ENTRY)
    assert calls.promote() == 0
    assert calls.claim() == []
    (record,) = calls.records()
    assert (record["id"], record["error_code"]) == (call_id, "invalid_api_key")


def test_paused_and_scheduled_calls_leave_half_of_the_queue_to_others(calls: Calls) -> None:
    calls.settings = replace(calls.settings, queue_limit=4)
    pause(calls)
    for _ in range(2):
        calls.submit()
    calls.claim()
    assert calls.replies[calls.submit()][0] == b"calls"
    assert calls.replies[calls.submit(OTHER, delay=60)][0] == b"calls"
    assert calls.replies[calls.submit(OTHER)][0] == b"ok"


def test_a_pause_is_audited_once_and_says_who_and_since_when(calls: Calls) -> None:
    pause(calls, MODEL)
    assert not steering.pause(calls.redis, MODEL, 9, "another", ENTRY)
    assert audited(calls) == 1
    calls.submit()
    calls.claim()
    assert steering.pauses(calls.redis) == [steering.Pause(MODEL, 7, "boss", 1)]
    assert steering.resume(calls.redis, MODEL, ENTRY)
    assert not steering.resume(calls.redis, MODEL, ENTRY)
    assert audited(calls) == 2
    assert steering.pauses(calls.redis) == []


# schedules


def test_a_scheduled_call_starts_when_its_time_has_come(calls: Calls) -> None:
    later = calls.submit(delay=3600, seconds=3600 + 600)
    sooner = calls.submit(delay=60, seconds=60 + 600)
    assert calls.promote() == 2
    assert calls.claim(2) == []
    assert {call.id: call.starts_ms for call in page(calls)} == {
        later: calls.now_ms + HOUR,
        sooner: calls.now_ms + 60_000,
    }
    assert [call.reason for call in page(calls)] == [SCHEDULED, SCHEDULED]
    calls.pass_time(60_000)
    assert calls.promote() == 1
    assert calls.claim(2) == [sooner]
    calls.pass_time(HOUR - 60_000)
    assert calls.promote() == 0
    assert calls.claim(2) == [later]
    assert leftovers(calls) == set()
    (body, job) = (calls.redis.pttl(keys.call(later)), calls.redis.ttl(keys.job(later)))
    assert 0 < body <= (3600 + 600 + keys.GRACE_SECONDS) * 1000
    assert job > body / 1000


def test_a_scheduled_call_reserves_its_budget_and_is_in_flight_only_once_it_starts(
    calls: Calls,
) -> None:
    calls.key(max_in_flight=1, limit=1000, limit_unit="tokens", rpm=10)
    scheduled = calls.submit(prompt_tokens=10, delay=60)
    running = calls.submit(prompt_tokens=10)
    assert calls.claim(2) == [running]
    assert calls.numbers(keys.held(KEY))["tokens"] == "20"
    calls.pass_time(60_000)
    assert calls.promote() == 1
    assert reasons(calls) == {scheduled: LIMIT}
    calls.finish(running, tokens=10)
    assert calls.claim(2) == [scheduled]
    calls.finish(scheduled, tokens=10)
    assert not calls.redis.exists(keys.held(KEY), keys.flight(KEY), keys.RQ_DEFERRED)


def test_no_more_calls_of_a_key_are_scheduled_than_may_wait(calls: Calls) -> None:
    calls.key(max_waiting=1)
    calls.admitted(delay=60)
    refusal = calls.refused(delay=60)
    assert (refusal["name"], refusal["scope"]) == ("max_waiting", "key")
    calls.admitted()


def test_a_cancelled_scheduled_call_leaves_nothing(calls: Calls) -> None:
    calls.owner("team", max_waiting=1)
    calls.key(owner="team", max_waiting=1)
    call_id = calls.submit(owner="team", delay=60)
    assert len(leftovers(calls)) == 3
    assert calls.cancel(call_id) == b"removed"
    assert leftovers(calls) == set()
    assert calls.replies[calls.submit(owner="team", delay=60)][0] == b"ok"


# the front


def test_a_call_moved_to_the_front_starts_next_and_others_keep_their_turns(calls: Calls) -> None:
    flood = [calls.submit() for _ in range(5)]
    assert calls.claim() == [flood[0]]
    assert steering.move(calls.redis, flood[4], ENTRY) == "moved"
    assert [call.id for call in page(calls)] == [flood[4], *flood[1:4]]
    assert [call.position for call in page(calls)] == [1, 2, 3, 4]
    assert calls.claim() == [flood[4]]
    # The queue's time did not jump to the place that the moved call had before.
    other = calls.submit(OTHER)
    assert calls.claim(2) == [other, flood[1]]
    assert audited(calls) == 1


def test_a_batch_call_moved_to_the_front_passes_interactive_ones(calls: Calls) -> None:
    calls.key(priority="batch")
    calls.key(OTHER, priority="interactive")
    batch, other = calls.submit(), calls.submit(OTHER)
    steering.move(calls.redis, batch, ENTRY)
    assert calls.claim(2) == [batch, other]


def test_a_parked_call_moves_to_the_front_of_its_key_s(calls: Calls) -> None:
    calls.owner("team")
    calls.key(owner="team", max_in_flight=1)
    running, *parked = (calls.submit(owner="team") for _ in range(4))
    calls.claim()
    positions = {call.id: call.position for call in page(calls)}
    assert positions == {parked[0]: 1, parked[1]: 2, parked[2]: 3}
    assert steering.move(calls.redis, parked[2], ENTRY) == "moved"
    calls.finish(running)
    assert calls.claim() == [parked[2]]


def test_what_cannot_be_moved_says_why_and_is_not_audited(calls: Calls) -> None:
    scheduled = calls.submit(delay=60)
    running = calls.submit()
    calls.claim()
    pause(calls)
    held = calls.submit()
    calls.claim()
    assert steering.move(calls.redis, scheduled, ENTRY) == "scheduled"
    assert steering.move(calls.redis, held, ENTRY) == "paused"
    assert steering.move(calls.redis, running, ENTRY) == "started"
    assert steering.move(calls.redis, "nobody", ENTRY) == ""
    assert audited(calls) == 1  # the pause


# cancelling


def test_the_caller_of_a_cancelled_waiting_call_is_told_at_once(calls: Calls) -> None:
    call_id = calls.submit()
    assert steering.cancel(calls.redis, call_id, ENTRY)
    (outcome,) = commands.outcomes(calls.redis, [call_id])
    assert outcome is not None and isinstance(outcome.error, CancelledByOperator)
    entries: Any = calls.redis.xrange(keys.inbox(WEB))
    event = Event.decode(entries[0][1][b"e"])
    assert (event.call_id, event.number) == (call_id, 1)
    assert isinstance(Outcome.decode(event.payload).error, CancelledByOperator)
    (record,) = calls.records()
    assert (record["status"], record["error_code"]) == ("cancelled", "cancelled_by_operator")
    assert calls.claim() == []
    assert not steering.cancel(calls.redis, call_id, ENTRY)
    assert not steering.cancel(calls.redis, "nobody", ENTRY)
    assert audited(calls) == 1


def test_a_running_call_is_named_to_its_worker(calls: Calls) -> None:
    call_id = calls.submit()
    calls.claim()
    assert steering.cancel(calls.redis, call_id, ENTRY)
    names: Any = calls.redis.smembers(keys.cancel(WORKER))
    assert names == {f"{call_id}{commands.BY_OPERATOR}".encode()}
    assert audited(calls) == 1


# looking


def test_a_page_says_who_waits_and_shows_nothing_of_the_request(calls: Calls) -> None:
    account = {"priority": "batch", "model": "echo", "request_id": "r1", "created_ms": 5}
    call_id = calls.submit(account=account, owner="team")
    (call,) = page(calls)
    assert replace(call, cursor="") == steering.Waiting(
        id=call_id,
        reason=IN_LINE,
        cursor="",
        key=KEY,
        owner="",
        model="demo/echo",
        model_requested="echo",
        provider="demo",
        kind="chat",
        priority="batch",
        request_id="r1",
        position=1,
        since_ms=MONDAY * 1000,
        deadline_ms=(MONDAY + 600) * 1000,
        bytes=call.bytes,
    )


def test_pages_bring_each_call_once_although_the_queue_moves(calls: Calls) -> None:
    calls.key(max_in_flight=4)
    ids = [calls.submit() for _ in range(6)]  # two of them parked
    ids += [calls.submit(OTHER, delay=60 + number) for number in range(2)]
    seen: list[str] = []
    after, more = "", True
    while more:
        found, more = steering.waiting(calls.redis, after=after, limit=3)
        seen += [call.id for call in found]
        after = found[-1].cursor
        if len(seen) == 3:  # these start, the last one among them: the cursor's call is gone
            calls.claim(3)
    assert sorted(seen) == sorted(ids)


def test_pages_can_be_filtered(calls: Calls) -> None:
    calls.key(OTHER, max_in_flight=1)
    mine, other, parked = calls.submit(), calls.submit(OTHER), calls.submit(OTHER)
    assert [call.id for call in page(calls, key=KEY)] == [mine]
    assert {call.id for call in page(calls, key=OTHER)} == {other, parked}
    assert [call.id for call in page(calls, reason=LIMIT)] == [parked]
    assert page(calls, model="demo/other") == []
    assert steering.counts(calls.redis) == {IN_LINE: 2, LIMIT: 1, PAUSED: 0, SCHEDULED: 0}


@pytest.mark.parametrize("cursor", ["x:1:a", "q:one:a", "q"])
def test_a_wrong_cursor_is_a_value_error(calls: Calls, cursor: str) -> None:
    if cursor == "q":
        assert steering.waiting(calls.redis, after=cursor) == ([], False)
        return
    with pytest.raises(ValueError):
        steering.waiting(calls.redis, after=cursor)


def test_the_entry_of_the_audit_log_is_as_it_was_given(calls: Calls) -> None:
    pause(calls)
    entries: Any = calls.redis.xrange(keys.AUDIT)
    assert orjson.loads(entries[0][1][b"entry"]) == ENTRY
