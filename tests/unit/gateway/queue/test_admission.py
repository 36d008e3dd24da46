"""Limits, waiting in line and settlement: the scripts on a real Redis whose clock the test sets."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from redis import Redis

from gateway.account.records import Record
from gateway.queue import keys
from gateway.queue.clients import DedicatedConnection
from gateway.settings import Settings
from tests.support.admission import HMAC, KEY, MONDAY, Calls
from workers.claims import Claims

USD = 1_000_000_000  # in 1e-9 USD
OTHER = "OtherKey0000"


@pytest.fixture
def calls(redis: Redis, settings: Settings) -> Calls:
    return Calls(redis, settings)


def word(calls: Calls, **request: Any) -> bytes:
    reply: bytes = calls.replies[calls.submit(**request)][0]
    return reply


# the key


def test_a_key_without_limits_admits_and_holds_nothing(calls: Calls) -> None:
    calls.key()
    assert calls.admitted(prompt_tokens=9, output_tokens=9, prompt_nano=9) == {
        "requests": None,
        "tokens": None,
        "cap": 0,
        "parked": False,
        "reserved_usd": 0,
        "reserved_tokens": 0,
    }
    kept = {name for name in calls.redis.keys() if KEY.encode() in name}
    assert kept == {keys.key(KEY).encode()}


@pytest.mark.parametrize(
    ("fields", "reply"),
    [
        ({}, b"ok"),
        ({"revoked": MONDAY}, b"key"),
        ({"hmac": "other"}, b"key"),
        ({"hmac": "new", "hmac_old": HMAC, "hmac_old_until": MONDAY + 1}, b"ok"),
        ({"hmac": "new", "hmac_old": HMAC, "hmac_old_until": MONDAY}, b"key"),
        ({"hmac": "new", "hmac_old": HMAC}, b"key"),
        ({"expires": MONDAY + 1}, b"ok"),
        ({"expires": MONDAY}, b"expired"),
        ({"disabled": 1}, b"disabled"),
        ({"version": 3}, b"changed"),
        ({"owner": "nobody"}, b"ok"),
    ],
)
def test_what_the_record_of_the_key_says_holds_at_once(
    calls: Calls, fields: dict[str, Any], reply: bytes
) -> None:
    calls.key(**fields)
    assert word(calls) == reply
    assert calls.redis.zcard(keys.WAITING) == (reply == b"ok")


def test_a_disabled_owner_disables_its_keys(calls: Calls) -> None:
    calls.key(owner="team")
    calls.owner("team", disabled=1)
    assert word(calls) == b"disabled"


def test_too_many_records_refuse_calls_until_they_are_written(calls: Calls) -> None:
    calls.key()
    calls.settings = replace(calls.settings, records_backlog=2)
    calls.redis.xadd(keys.RECORDS, {"r": "{}"})
    assert word(calls) == b"ok"
    calls.redis.xadd(keys.RECORDS, {"r": "{}"})
    assert word(calls) == b"records"
    calls.redis.delete(keys.RECORDS)
    assert word(calls) == b"ok"


# requests and tokens per minute


def test_requests_per_minute_are_a_minutes_allowance_that_refills_steadily(calls: Calls) -> None:
    calls.key(rpm=3)
    assert [calls.admitted()["requests"] for _ in range(3)] == [
        [3, 2, 20_000],
        [3, 1, 40_000],
        [3, 0, 60_000],
    ]
    refusal = calls.refused()
    assert (refusal["name"], refusal["scope"]) == ("requests_per_minute", "key")
    assert (refusal["limit"], refusal["reset_ms"]) == (3, 20_000)
    calls.pass_time(19_999)
    assert calls.refused()["reset_ms"] == 1
    calls.pass_time(1)
    assert calls.admitted()["requests"] == [3, 0, 60_000]


def test_tokens_per_minute_reserve_an_estimate_and_settle_to_the_real_ones(calls: Calls) -> None:
    calls.key(tpm=1000)
    admitted = calls.admitted(prompt_tokens=300, output_tokens=500)
    assert admitted["tokens"] == [1000, 200, 48_000]
    assert (admitted["cap"], admitted["reserved_tokens"]) == (0, 800)
    assert calls.refused(prompt_tokens=201)["name"] == "tokens_per_minute"
    (call_id,) = calls.claim()
    calls.finish(call_id, tokens=350)
    assert calls.admitted(prompt_tokens=201, output_tokens=0)["tokens"] == [1000, 449, 33_060]


def test_more_tokens_than_reserved_are_paid_back_before_the_next_call(calls: Calls) -> None:
    calls.key(tpm=1000)
    calls.admitted(prompt_tokens=10, output_tokens=0)
    (call_id,) = calls.claim()
    calls.finish(call_id, tokens=1500)
    assert calls.refused(prompt_tokens=100)["reset_ms"] == 36_000
    calls.pass_time(36_000)
    calls.admitted(prompt_tokens=100)


def test_a_guess_of_the_output_alone_refuses_no_call(calls: Calls) -> None:
    calls.key(tpm=1000)
    assert calls.admitted(prompt_tokens=400, output_tokens=5000)["reserved_tokens"] == 1000
    refusal = calls.refused(prompt_tokens=1001)
    assert (refusal["never"], refusal["reset_ms"]) == (True, 0)


def test_the_tightest_of_key_and_owner_is_shown_and_the_first_that_refuses_is_named(
    calls: Calls,
) -> None:
    calls.key(rpm=100, owner="team")
    calls.owner("team", rpm=1)
    assert calls.admitted()["requests"] == [1, 0, 60_000]
    assert calls.refused()["scope"] == "owner"


# budgets


def test_a_budget_reserves_prompt_and_output_and_settles_to_the_cost(calls: Calls) -> None:
    calls.key(limit=10 * USD, limit_unit="usd")
    params = {"prompt_nano": 2 * USD, "output_tokens": 1000, "output_nano_per_token": 2_000_000.0}
    first = calls.admitted(**params, max_output_tokens=1000)
    assert (first["reserved_usd"], first["cap"]) == (4 * USD, 0)
    calls.admitted(**params, max_output_tokens=1000)
    assert calls.numbers(keys.held(KEY))["usd"] == str(8 * USD)
    assert calls.refused(**params)["name"] == "limit"
    for call_id in calls.claim(2):
        calls.finish(call_id, nano=3 * USD, tokens=10)
    assert not calls.redis.exists(keys.held(KEY))
    assert calls.numbers(keys.spend(KEY))["usd"] == str(6 * USD)


def test_little_left_of_a_budget_caps_the_output_instead_of_refusing(calls: Calls) -> None:
    calls.key(limit=1000, limit_unit="tokens")
    admitted = calls.admitted(prompt_tokens=600, output_tokens=500, max_output_tokens=16_000)
    assert (admitted["cap"], admitted["reserved_tokens"]) == (400, 1000)
    (call_id,) = calls.claim()
    assert calls.redis.hget(keys.job(call_id), "cap") == b"400"
    refusal = calls.refused(prompt_tokens=1)
    assert (refusal["unit"], refusal["window"], refusal["reset_ms"]) == ("tokens", None, 0)


def test_a_call_of_unknown_length_is_capped_where_little_is_left(calls: Calls) -> None:
    calls.key(limit=50_000, limit_unit="tokens")
    assert calls.admitted(prompt_tokens=10_000, output_tokens=100)["cap"] == 40_000
    calls.key(OTHER, limit=5_000_000, limit_unit="tokens")
    assert calls.admitted(OTHER, prompt_tokens=10_000, output_tokens=100)["cap"] == 0


def test_a_call_without_cost_passes_an_exhausted_budget_exactly(calls: Calls) -> None:
    calls.key(limit=5)
    call_id = calls.submit(prompt_nano=5)
    assert calls.replies[call_id][0] == b"ok"
    calls.admitted(prompt_nano=0)
    assert calls.refused(prompt_nano=1)["name"] == "limit"


@pytest.mark.parametrize(
    ("reset", "ends"),
    [("daily", 86_400), ("weekly", 7 * 86_400), ("monthly", 27 * 86_400)],
)
def test_a_budget_is_whole_again_when_its_window_ends(calls: Calls, reset: str, ends: int) -> None:
    calls.key(limit=100, limit_unit="tokens", limit_reset=reset)
    calls.admitted(prompt_tokens=100)
    calls.finish(*calls.claim(), tokens=100)
    refusal = calls.refused(prompt_tokens=1)
    assert (refusal["window"], refusal["reset_ms"]) == (reset, ends * 1000)
    calls.pass_time(ends * 1000 - 1)
    assert calls.refused(prompt_tokens=1)["reset_ms"] == 1
    calls.pass_time(1)
    calls.admitted(prompt_tokens=100)


def test_what_was_added_to_a_limit_for_a_while_counts_until_then(calls: Calls) -> None:
    calls.key(limit=10, limit_unit="tokens", limit_extra=5, limit_extra_until=MONDAY + 1)
    calls.admitted(prompt_tokens=15)
    calls.finish(*calls.claim(), tokens=12)
    calls.admitted(prompt_tokens=3)
    calls.pass_time(1000)
    assert calls.refused(prompt_tokens=1)["limit"] == 10


def test_all_limits_of_key_and_owner_admit_or_nothing_is_used(calls: Calls) -> None:
    calls.key(rpm=5, tpm=1000, limit=1000, limit_unit="tokens", max_in_flight=5, owner="team")
    calls.owner("team", limit=10, limit_unit="tokens")
    assert calls.refused(prompt_tokens=11)["scope"] == "owner"
    calls.owner("team", max_in_flight=0)
    assert calls.refused(prompt_tokens=11, wait=False)["name"] == "max_in_flight"


def test_submitting_twice_reserves_once_and_replies_the_same(calls: Calls) -> None:
    calls.key(rpm=5, tpm=1000, limit=1000, limit_unit="tokens", max_in_flight=5)
    call_id = calls.submit(prompt_tokens=7, output_tokens=3)
    first, before = calls.replies[call_id], calls.dump()
    calls.pass_time(3)
    before.pop(b"test:clock")
    calls.submit(call_id=call_id, prompt_tokens=7, output_tokens=3)
    after = calls.dump()
    after.pop(b"test:clock")
    assert (calls.replies[call_id], after) == (first, before)


# in flight and waiting


def parked(calls: Calls, scope: str = KEY) -> list[str]:
    return [call_id.decode() for call_id in calls.redis.zrange(keys.parked(scope), 0, -1)]


def test_a_call_over_the_limit_in_flight_waits_as_a_deferred_job(calls: Calls) -> None:
    calls.key(max_in_flight=1)
    first, second, third = (calls.submit() for _ in range(3))
    assert [b'"parked":true' in calls.replies[each][1] for each in (first, second, third)] == [
        False,
        True,
        True,
    ]
    assert [calls.status(each) for each in (first, second)] == ["queued", "deferred"]
    assert calls.redis.zrange(keys.RQ_DEFERRED, 0, -1) != []
    assert parked(calls) == [second, third]
    assert calls.claim(5) == [first]
    calls.redis.delete(keys.BELL)
    calls.finish(first)
    assert calls.redis.exists(keys.BELL), "somebody must come for it"
    assert (calls.status(second), parked(calls)) == ("queued", [third])
    assert calls.claim(5) == [second]
    assert calls.lose(second)
    assert calls.claim(5) == [third]
    calls.finish(third)
    assert not calls.redis.exists(keys.flight(KEY), keys.parked(KEY), keys.RQ_DEFERRED)
    assert not calls.redis.exists(keys.PARKED)


def test_a_call_that_does_not_wait_is_refused(calls: Calls) -> None:
    calls.key(max_in_flight=1)
    calls.admitted(wait=False)
    assert calls.refused(wait=False)["name"] == "max_in_flight"


def test_a_kept_response_is_one_more_request_and_takes_no_place(calls: Calls) -> None:
    calls.key(max_in_flight=1, max_waiting=0, rpm=3, limit=100, limit_unit="tokens")
    calls.admitted()
    hit = {"hit": b'{"id":"kept"}', "wait": False}
    call_id = calls.submit(**hit)
    first = calls.replies[call_id]
    assert (first[0], b'"requests":[3,1,40000]' in first[1]) == (b"ok", True)
    calls.submit(call_id=call_id, **hit)
    assert calls.replies[call_id] == first
    assert [each["id"] for each in calls.records()] == ["kept"]
    assert calls.numbers(keys.spend(KEY))["requests"] == "1"
    assert calls.redis.zcard(keys.flight(KEY)) == 1


def test_no_more_calls_wait_than_key_and_owner_allow(calls: Calls) -> None:
    calls.key(max_in_flight=1, max_waiting=2, owner="team")
    calls.key(OTHER, max_waiting=0, owner="team")
    calls.owner("team", max_in_flight=2, max_waiting=3)
    for _ in range(3):
        calls.submit()
    assert calls.refused()["scope"] == "key"
    calls.admitted(OTHER)
    refusal = calls.refused(OTHER)
    assert (refusal["name"], refusal["limit"]) == ("max_waiting", 0)


def test_keys_of_an_owner_take_turns_when_a_place_is_free(calls: Calls) -> None:
    calls.key(owner="team")
    calls.key(OTHER, owner="team")
    calls.owner("team", max_in_flight=1)
    running = calls.submit()
    flood = [calls.submit() for _ in range(4)]
    late = [calls.submit(OTHER) for _ in range(2)]
    order = []
    for _ in range(7):
        (call_id,) = calls.claim(5)
        order.append(call_id)
        calls.finish(call_id)
    assert order == [running, flood[0], late[0], flood[1], late[1], flood[2], flood[3]] or (
        order == [running, late[0], flood[0], late[1], flood[1], flood[2], flood[3]]
    )
    assert not calls.redis.exists(keys.turns("team"), keys.parked("owner:team"))


def test_a_full_key_does_not_keep_its_owner_s_place_from_another(calls: Calls) -> None:
    calls.key(max_in_flight=1, owner="team")
    calls.key(OTHER, owner="team")
    calls.owner("team", max_in_flight=2)
    mine, theirs = calls.submit(), calls.submit(OTHER)
    waiting = [calls.submit(), calls.submit(OTHER)]
    calls.claim(5)
    calls.finish(theirs)
    assert [calls.status(each) for each in waiting] == ["deferred", "queued"]
    calls.finish(mine)
    assert calls.status(waiting[0]) == "queued"


def test_a_cancelled_waiting_call_is_settled_and_makes_room(calls: Calls) -> None:
    calls.key(max_in_flight=1, limit=100, limit_unit="tokens", tpm=100)
    first, second, third = (calls.submit(prompt_tokens=30) for _ in range(3))
    calls.pass_time(25)
    assert calls.cancel(second) == b"removed"
    assert calls.cancel(second) == b"ended"
    assert calls.cancel(first) == b"removed"
    assert (calls.status(third), calls.claim(5)) == ("queued", [third])
    assert calls.numbers(keys.held(KEY))["tokens"] == "30"
    assert calls.numbers(keys.spend(KEY))["requests"] == "2"
    assert [(each["id"], each["status"], each["q"]["queued_ms"]) for each in calls.records()] == [
        (second, "cancelled", 25),
        (first, "cancelled", 25),
    ]


def test_calls_that_nobody_settled_are_released_a_minute_after_their_deadline(
    calls: Calls,
) -> None:
    calls.key(max_in_flight=1, limit=100, limit_unit="tokens")
    calls.submit(prompt_tokens=60, seconds=10)
    waiting = calls.submit(prompt_tokens=20, seconds=600)
    calls.claim(5)
    calls.pass_time(70_001)
    assert calls.promote() == 0
    assert calls.status(waiting) == "queued"
    assert calls.numbers(keys.held(KEY))["tokens"] == "20"


def test_the_next_call_releases_expired_ones_too(calls: Calls) -> None:
    calls.key(max_in_flight=1)
    calls.submit(seconds=10)
    calls.pass_time(70_001)
    assert calls.admitted()["parked"] is False


def test_a_parked_call_past_its_deadline_is_settled_by_a_worker(calls: Calls) -> None:
    calls.key(max_in_flight=1)
    calls.submit(seconds=600)
    late = calls.submit(seconds=10)
    calls.pass_time(75_000)
    assert calls.promote() == 0
    (record,) = calls.records()
    assert (record["id"], record["status"]) == (late, "failed")
    assert record["error_code"] == "deadline_exceeded"
    assert not calls.redis.exists(keys.parked(KEY), keys.call(late), keys.RQ_DEFERRED)


def test_a_raised_limit_lets_waiting_calls_go_at_once(calls: Calls) -> None:
    calls.key(max_in_flight=1)
    calls.submit()
    waiting = [calls.submit() for _ in range(2)]
    calls.key(max_in_flight=3)
    calls.promote()
    assert [calls.status(each) for each in waiting] == ["queued", "queued"]


# settlement


def test_a_finished_call_is_booked_once_into_all_windows(calls: Calls) -> None:
    calls.key(owner="team")
    call_id = calls.submit()
    calls.pass_time(40)
    calls.claim()
    calls.pass_time(3)
    assert calls.finish(call_id, nano=123, tokens=45, record=b'{"id":"x"}')
    assert not calls.finish(call_id, nano=123, tokens=45, record=b'{"id":"x"}')
    assert not calls.lose(call_id)
    day, month = MONDAY // 86_400, 2026 * 12
    for scope in (KEY, "owner:team"):
        numbers = calls.numbers(keys.spend(scope))
        for prefix in ("", "d_", "w_", "m_"):
            amounts = [numbers[f"{prefix}{each}"] for each in ("usd", "tokens", "requests")]
            assert amounts == ["123", "45", "1"]
        assert (numbers["d"], numbers["w"], numbers["m"]) == (
            str(day),
            str((day + 3) // 7),
            str(month),
        )
    settled = MONDAY * 1000 + 43
    q = {"queued_ms": 40, "reserved_usd": 0, "reserved_tokens": 0, "settled_ms": settled}
    assert calls.records() == [{"id": "x", "q": q, "a": []}]


def test_usage_is_booked_into_the_windows_of_its_settlement(calls: Calls) -> None:
    calls.key()
    for _ in range(2):
        calls.finish(calls.submit() and calls.claim()[0], nano=5, tokens=1)
        calls.pass_time(7 * 86_400_000)
    calls.pass_time(-1)
    calls.finish(calls.submit() and calls.claim()[0], nano=7, tokens=1)
    numbers = calls.numbers(keys.spend(KEY))
    assert [numbers[f"{each}usd"] for each in ("", "m_", "w_", "d_")] == ["17", "17", "12", "7"]


def test_a_lost_call_costs_an_estimate(calls: Calls) -> None:
    calls.key(limit=100, limit_unit="tokens")
    account = {"owner": "", "request_id": "req_1", "model": "gpt", "created_ms": 5}
    call_id = calls.submit(prompt_tokens=9, prompt_nano=90, account=account)
    calls.claim()
    assert calls.lose(call_id, prompt_tokens=9, prompt_nano=90, output_nano_per_token=2.5)
    (entry,) = calls.records()
    ((_, fields),) = calls.redis.xrange(keys.RECORDS)
    record = Record.decode(fields[b"r"])
    assert (record.id, record.key_id, record.status) == (call_id, KEY, "lost")
    assert (record.usage_source, record.usage) == ("estimated", {"input": 9, "output": 7})
    assert (record.cost_nano, record.request_id, record.model_requested) == (108, "req_1", "gpt")
    assert (record.created_ms, record.settled_ms) == (5, MONDAY * 1000)
    assert entry["q"]["reserved_tokens"] == 9
    assert calls.numbers(keys.spend(KEY))["tokens"] == "16"


def test_a_call_whose_web_process_died_before_it_was_claimed_is_settled(calls: Calls) -> None:
    calls.key(max_in_flight=1)
    first, second = calls.submit(), calls.submit()
    calls.redis.delete(keys.lease("web-1"))
    judge = Claims(calls.redis, DedicatedConnection(calls.redis), "w", lambda: MONDAY + 9.0)
    assert calls.run(judge.command("c1", 5)) == []
    assert [(each["id"], each["error_code"], each["cancelled"]) for each in calls.records()] == [
        (first, "web_lost", True),
        (second, "web_lost", True),
    ]
    assert not calls.redis.exists(keys.flight(KEY), keys.parked(KEY))


def test_after_a_flush_the_record_of_a_running_call_is_still_appended_once(calls: Calls) -> None:
    calls.key(limit=100, max_in_flight=1)
    call_id = calls.submit()
    calls.claim()
    calls.redis.flushall()
    calls.pass_time(0)
    assert calls.finish(call_id, nano=5, tokens=5, record=b'{"id":"x"}')
    assert not calls.finish(call_id, nano=5, tokens=5, record=b'{"id":"x"}')
    assert [each["id"] for each in calls.records()] == ["x"]
    assert calls.promote() == 0


def test_alerts_are_raised_once_a_window(calls: Calls) -> None:
    calls.key(limit=100, limit_unit="tokens", limit_reset="daily", alerts="[0.5, 0.8]")

    def use(tokens: int) -> list[Any]:
        calls.submit(prompt_tokens=0)
        calls.finish(*calls.claim(), tokens=tokens)
        return [(each["share"], each["spent"], each["limit"]) for each in calls.records()[-1]["a"]]

    assert [use(each) for each in (49, 1, 1, 30)] == [[], [(0.5, 50, 100)], [], [(0.8, 81, 100)]]
    calls.key(limit=100, limit_unit="tokens", limit_reset="daily", alerts="[0.5, 0.8]")
    assert use(1) == []
    calls.pass_time(86_400_000)
    assert use(90) == [(0.5, 90, 100), (0.8, 90, 100)]


@pytest.mark.parametrize("unit", ["usd", "tokens"])
def test_a_call_that_used_nothing_is_settled_for_a_key_that_has_used_nothing(
    calls: Calls, unit: str
) -> None:
    """Its counters of all time are not there yet; alerts are compared with them."""
    calls.key(limit=100, limit_unit=unit, alerts="[0.5]")
    free, removed = calls.submit(), calls.submit()
    calls.finish(*calls.claim(), record=b'{"id":"free"}')
    assert calls.cancel(removed) == b"removed"
    assert calls.status(free) == "finished"
    assert [each["id"] for each in calls.records()] == ["free", removed]


def test_a_job_of_the_previous_release_is_run_and_recorded(calls: Calls) -> None:
    """It stands in RQ's list alone, and its job knows neither key nor limits."""
    calls.key()
    ours = calls.submit()
    old = {"status": "queued", "web": "web-1", "deadline_ms": calls.now_ms + 1000, "bytes": 2}
    calls.redis.hset(keys.job("old"), mapping={**old, "created_at": "2020"})
    calls.redis.lpush(keys.RQ_QUEUE, "old")
    calls.redis.rpush(keys.RQ_QUEUE, "older")
    assert calls.claim(5) == ["old", ours]
    assert calls.redis.llen(keys.RQ_QUEUE) == 0 or calls.claim(5) == []
    assert calls.redis.llen(keys.RQ_QUEUE) == 0
    assert calls.finish("old", nano=1, tokens=1, record=b'{"id":"old"}')
    assert [each["id"] for each in calls.records()] == ["old"]


def test_a_call_that_a_worker_of_the_previous_release_took_from_the_list_starts_once(
    calls: Calls,
) -> None:
    calls.key()
    taken, left = calls.submit(), calls.submit()
    assert calls.redis.lpop(keys.RQ_QUEUE) == taken.encode()
    calls.redis.hset(keys.job(taken), "status", "started")
    assert calls.claim(5) == [left]
    assert calls.redis.zcard(keys.WAITING) == 0
