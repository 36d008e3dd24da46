"""The scripts against a model in Python, and under many callers at once."""

from __future__ import annotations

import bisect
import itertools
import multiprocessing
from collections import defaultdict
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

import orjson
import pytest
from hypothesis import HealthCheck, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from redis import Redis

from gateway.account import counters
from gateway.queue import keys
from gateway.settings import Settings
from tests.support.admission import KEY, MONDAY, Calls, flood

MINUTE = 60_000  # milliseconds
OFFSETS = {"interactive": 0, "standard": 8, "batch": 64}
on_redis = hypothesis_settings(
    max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)


# limits


@dataclass
class Model:
    """What the limits of one key should say."""

    rpm: int | None
    tpm: int | None
    limit: int | None  # tokens a day
    max_in_flight: int | None
    now: int = MONDAY * 1000
    tats: dict[str, float] = field(default_factory=lambda: {"rpm": 0.0, "tpm": 0.0})
    spent: dict[int, int] = field(default_factory=lambda: defaultdict(int))
    held: dict[str, int] = field(default_factory=dict)  # by call, in flight

    def after(self, name: str, allowed: int, number: int) -> float:
        return max(self.tats[name], self.now) + number * MINUTE / allowed

    def submit(self, call_id: str, prompt: int, output: int) -> str:
        """The name of the limit that refuses the call, or ""."""
        tats = dict(self.tats)
        if self.rpm:
            tats["rpm"] = self.after("rpm", self.rpm, 1)
            if tats["rpm"] - self.now - MINUTE > 0.001:
                return "requests_per_minute"
        if self.limit is not None:
            left = self.limit - self.spent[self.now // 86_400_000] - sum(self.held.values())
            if left < prompt + (output > 0):
                return "limit"
            output = min(output, left - prompt) if output else 0
        if self.tpm:
            output = min(output, max(self.tpm - prompt, 0))
            tats["tpm"] = self.after("tpm", self.tpm, prompt + output)
            if prompt + output > self.tpm or tats["tpm"] - self.now - MINUTE > 0.001:
                return "tokens_per_minute"
        if self.max_in_flight is not None and len(self.held) >= self.max_in_flight:
            return "max_in_flight"
        self.tats = tats
        self.held[call_id] = prompt + output
        return ""

    def settle(self, call_id: str, tokens: int) -> None:
        reserved = self.held.pop(call_id)
        self.spent[self.now // 86_400_000] += tokens
        if self.tpm:
            self.tats["tpm"] = max(self.tats["tpm"], self.now) + (tokens - reserved) * (
                MINUTE / self.tpm
            )


maybe = st.none() | st.integers(1, 12)
steps = st.lists(
    st.one_of(
        st.tuples(st.just("submit"), st.integers(0, 30), st.integers(0, 30)),
        st.tuples(st.just("finish"), st.integers(0, 9), st.integers(0, 60)),
        st.tuples(st.just("cancel"), st.integers(0, 9), st.just(0)),
        st.tuples(st.just("pass"), st.sampled_from([1, 999, 20_000, 86_400_000]), st.just(0)),
    ),
    max_size=40,
)


@on_redis
@given(maybe, st.none() | st.integers(20, 90), st.none() | st.integers(0, 150), maybe, steps)
def test_the_script_admits_what_the_model_of_all_limits_admits(
    redis: Redis,
    settings: Settings,
    rpm: int | None,
    tpm: int | None,
    limit: int | None,
    max_in_flight: int | None,
    sequence: list[tuple[str, int, int]],
) -> None:
    redis.flushdb()
    calls, model = Calls(redis, settings), Model(rpm, tpm, limit, max_in_flight)
    fields = {"rpm": rpm, "tpm": tpm, "limit": limit, "max_in_flight": max_in_flight}
    set_fields = {name: value for name, value in fields.items() if value is not None}
    calls.key(limit_unit="tokens", limit_reset="daily", **set_fields)
    # The calls end long before a day has passed.
    for step, number, second in sequence:
        running = list(model.held)
        if step == "submit":
            call_id = calls.submit(
                prompt_tokens=number, output_tokens=second, wait=False, seconds=9e6
            )
            reply = calls.replies[call_id]
            name = orjson.loads(reply[1])["name"] if reply[0] == b"limit" else ""
            assert name == model.submit(call_id, number, second)
        elif step == "pass":
            model.now += number
            calls.pass_time(number)
        elif running:
            call_id = running[number % len(running)]
            if step == "cancel":
                calls.redis.hset(keys.job(call_id), "status", "queued")
                assert calls.cancel(call_id) == b"removed"
                second = 0
            else:
                calls.redis.hset(keys.job(call_id), mapping={"status": "started", "claim": "c1"})
                assert calls.finish(call_id, tokens=second)
            model.settle(call_id, second)
        if limit is not None:
            held = calls.numbers(keys.held(KEY)).get("tokens", "0")
            assert int(held) == sum(model.held.values())


@on_redis
@given(st.lists(st.tuples(st.integers(0, 40 * 86_400), st.integers(1, 9)), max_size=12))
def test_spend_is_booked_into_calendar_windows(
    redis: Redis, settings: Settings, uses: list[tuple[int, int]]
) -> None:
    redis.flushdb()
    calls, booked = Calls(redis, settings), []
    calls.key()
    for seconds, tokens in uses:
        calls.pass_time(seconds * 1000)
        calls.submit()
        assert calls.finish(*calls.claim(), tokens=tokens)
        booked.append((datetime.fromtimestamp(calls.now_ms / 1000, UTC), tokens))
    if not booked:
        return
    now = booked[-1][0]
    numbers = calls.numbers(keys.spend(KEY))
    same: dict[str, Callable[[datetime], Any]] = {
        "d": lambda moment: moment.date(),
        "w": lambda moment: moment.isocalendar()[:2],
        "m": lambda moment: (moment.year, moment.month),
    }
    for letter, window in same.items():
        total = sum(tokens for moment, tokens in booked if window(moment) == window(now))
        assert int(numbers[f"{letter}_tokens"]) == total
    for letter, name in zip("dwm", counters.WINDOWS, strict=True):
        assert int(numbers[letter]) == counters.window(name, now.timestamp())[0]


# the order of the queue


class FairQueue:
    """Start-time fair queuing, as simple as it can be."""

    def __init__(self) -> None:
        self.virtual_time, self.ends = 0.0, defaultdict(float)
        self.number = itertools.count(1)
        self.line: list[tuple[float, float, str]] = []

    def push(self, call_id: str, key: str, weight: int, priority: str) -> None:
        start = max(self.virtual_time, self.ends[key])
        self.ends[key] = start + 1 / weight
        score = start + OFFSETS[priority] + next(self.number) * 1e-9
        bisect.insort(self.line, (score, start, call_id))

    def pop(self, number: int) -> list[str]:
        taken, self.line = self.line[:number], self.line[number:]
        self.virtual_time = max([self.virtual_time, *(start for _, start, _ in taken)])
        if not self.line:
            self.virtual_time = 0.0
            self.ends.clear()
            self.number = itertools.count(1)
        return [call_id for _, _, call_id in taken]


key_numbers = st.integers(0, 3)
moves = st.lists(
    st.one_of(key_numbers.map(lambda key: ("push", key)), st.integers(1, 4)), max_size=60
)


@on_redis
@given(
    st.lists(
        st.tuples(st.integers(1, 5), st.sampled_from(sorted(OFFSETS))), min_size=4, max_size=4
    ),
    moves,
)
def test_calls_start_in_the_order_of_the_model(
    redis: Redis, settings: Settings, each: list[tuple[int, str]], sequence: list[Any]
) -> None:
    redis.flushdb()
    calls, model = Calls(redis, settings), FairQueue()
    for number, (weight, priority) in enumerate(each):
        calls.key(f"FairKey{number:05}", weight=weight, priority=priority)
    for move in sequence:
        if isinstance(move, int):
            assert calls.claim(move) == model.pop(move)
        else:
            key = f"FairKey{move[1]:05}"
            model.push(calls.submit(key), key, *each[move[1]])
        listed: Any = redis.lrange(keys.RQ_QUEUE, 0, -1)
        assert sorted(call_id.decode() for call_id in listed) == sorted(
            call_id for *_, call_id in model.line
        )


def test_a_key_s_next_call_overtakes_the_flood_of_another(calls: Calls) -> None:
    calls.key("Flooding0000")
    calls.key("Other0000000")
    for _ in range(1000):
        calls.submit("Flooding0000")
    calls.claim(10)  # all slots are full
    late = calls.submit("Other0000000")
    assert calls.claim(1) == [late], "it starts when the first of the running calls ends"
    following = [calls.submit("Other0000000") for _ in range(5)]
    taken = calls.claim(10)
    assert [each in taken for each in following] == [True] * 5, "then it has half of the slots"
    assert [each in following for each in taken] in ([True, False] * 5, [False, True] * 5)


def test_weights_are_shares_of_the_slots(calls: Calls) -> None:
    calls.key("Light0000000", weight=1)
    calls.key("Heavy0000000", weight=3)
    light = [calls.submit("Light0000000") for _ in range(40)]
    heavy = [calls.submit("Heavy0000000") for _ in range(120)]
    taken = set(calls.claim(40))
    assert abs(len(taken & set(heavy)) - 30) <= 1
    assert abs(len(taken & set(light)) - 10) <= 1


def test_batch_delays_an_interactive_call_by_no_call_that_does_not_run_yet(calls: Calls) -> None:
    calls.key("Batch0000000", priority="batch")
    calls.key("Person000000", priority="interactive")
    for _ in range(300):
        calls.submit("Batch0000000")
    for _ in range(100):  # one slot, and a person who sends the next call after each answer
        calls.claim(1)
        person = calls.submit("Person000000")
        assert calls.claim(1) == [person]


def test_batch_starts_even_if_interactive_calls_never_stop(calls: Calls) -> None:
    calls.key("Batch0000000", priority="batch")
    people = [f"Person{number:06}" for number in range(3)]
    for person in people:
        calls.key(person, priority="interactive")
    batch = calls.submit("Batch0000000")
    for _ in range(2):
        for person in people:
            calls.submit(person)
    started: list[str] = []
    for turn in itertools.count():
        calls.submit(people[turn % 3])
        started += calls.claim(1)
        if batch in started:
            break
    assert len(started) <= (OFFSETS["batch"] + 1) * 3 + 1


def test_a_call_may_lower_its_key_s_priority_and_not_raise_it(calls: Calls) -> None:
    calls.key("Standard0000")
    calls.key("Other0000000")
    low = calls.submit("Standard0000", account={"priority": "batch"})
    high = calls.submit("Other0000000", account={"priority": "interactive"})
    normal = calls.submit("Standard0000")
    assert calls.claim(3) == [high, normal, low]


# many at once


@pytest.fixture
def calls(redis: Redis, settings: Settings) -> Calls:
    return Calls(redis, settings)


@pytest.fixture(scope="module")
def processes() -> Iterator[ProcessPoolExecutor]:
    with ProcessPoolExecutor(4, mp_context=multiprocessing.get_context("spawn")) as pool:
        yield pool


@pytest.mark.xdist_group("processes")
@pytest.mark.parametrize(
    ("fields", "request_", "admitted"),
    [
        ({"rpm": 301}, {}, 301),
        ({"tpm": 3_017}, {"prompt_tokens": 10}, 301),
        ({"limit": 3_017, "limit_unit": "tokens"}, {"prompt_tokens": 10}, 301),
        ({"limit": 3_017}, {"prompt_nano": 10, "output_tokens": 0}, 301),
        ({"max_in_flight": 301}, {"wait": False}, 301),
        ({"max_in_flight": 101, "max_waiting": 200}, {}, 301),
    ],
    ids=["requests", "tokens", "token-budget", "money", "in-flight", "waiting"],
)
def test_2000_admissions_from_several_processes_exceed_no_limit_by_one(
    calls: Calls,
    processes: ProcessPoolExecutor,
    fields: dict[str, Any],
    request_: dict[str, Any],
    admitted: int,
) -> None:
    calls.key(owner="team", **fields)
    # The owner's are the same, for all its keys.
    calls.owner("team", **fields)
    jobs = [processes.submit(flood, calls.settings, calls.now_ms, 500, request_) for _ in range(4)]
    assert sum(job.result() for job in jobs) == admitted
    in_queue = calls.redis.zcard(keys.WAITING)
    assert in_queue + calls.redis.zcard(keys.RQ_DEFERRED) == admitted
    if "max_in_flight" in fields:
        assert in_queue == fields["max_in_flight"]
