"""gateway/broker/cached.py: identical calls run once, whichever process they are in."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

import gevent
import pytest
from redis import Redis

from gateway.account.cache import Entry
from gateway.broker.cached import CachedCalls
from gateway.broker.pending_call import PendingCall
from gateway.broker.submitter import Submission
from gateway.catalogue.target import Target
from gateway.errors import CallCancelled, PayloadTooLarge, RateLimited
from gateway.queue import clients, commands, keys, scripts
from gateway.queue.protocol import AdmissionRequest, CallSpec
from gateway.settings import Settings

NAME, OTHER = "a" * 64, "b" * 64
PATIENCE = 10.0
ENTRY = Entry(b'{"choices":[]}', 7, ["seed"])


@dataclass
class Web:
    """One web process: what it passes on, in order."""

    redis: Redis
    passed: list[Submission] = field(default_factory=list)
    refusal: Exception | None = None
    refused_by_queue: bool = False

    def __post_init__(self) -> None:
        self.cached = CachedCalls(self.redis, self.submit)

    def submit(self, submission: Submission) -> None:
        if self.refusal is not None:
            raise self.refusal
        self.passed.append(submission)
        if self.refused_by_queue:
            submission.pending.fail(RateLimited())
        else:
            submission.pending.submitted = True

    def put(
        self, name: str = NAME, budget: float = 600, logged: bool = False, batch_id: str = ""
    ) -> Submission:
        call_id = uuid.uuid4().hex
        spec = CallSpec(call_id, "web", False, (TARGET,), cache={"name": name, "seconds": 60})
        if batch_id:
            spec.account["batch_id"] = batch_id
        pending = PendingCall(call_id, budget, lambda _: None)
        pending.logged = logged
        submission = Submission(spec, b"{}", pending, AdmissionRequest("key", "hmac"))
        self.cached.put(submission)
        return submission


TARGET = Target("demo/echo", "demo", "echo")


def eventually(condition: Callable[[], bool]) -> None:
    with gevent.Timeout(PATIENCE):
        while not condition():
            gevent.sleep(0.01)


def job(redis: Redis, submission: Submission, status: str) -> None:
    redis.hset(keys.job(submission.spec.call_id), "status", status)


def keep(redis: Redis) -> None:
    scripts.run(redis, commands.store_command(NAME, ENTRY.encode(), 60, 1_000_000))


@pytest.fixture
def web(redis: Redis, settings: Settings) -> Iterator[Web]:
    client = clients.commands(settings, 2)
    yield Web(client)
    client.close()


def test_a_kept_response_goes_with_the_call(redis: Redis, web: Web) -> None:
    keep(redis)
    web.put()
    eventually(lambda: len(web.passed) == 1)
    assert web.passed[0].entry == ENTRY
    assert web.passed[0].pending.cache == ""  # the queue may still refuse it


def test_a_logged_call_waits_for_no_other(redis: Redis, web: Web) -> None:
    job(redis, web.put(), "started")
    eventually(lambda: len(web.passed) == 1)
    web.put(logged=True)
    eventually(lambda: len(web.passed) == 2)
    assert web.passed[1].entry is None
    keep(redis)
    web.put(logged=True)
    eventually(lambda: len(web.passed) == 3)
    assert web.passed[2].entry == ENTRY


def test_others_wait_for_a_logged_call(redis: Redis, web: Web) -> None:
    job(redis, web.put(logged=True), "started")
    web.put()
    gevent.sleep(0.2)
    assert len(web.passed) == 1
    keep(redis)
    eventually(lambda: len(web.passed) == 2)


def test_lines_of_batches_wait_for_each_other_alone(redis: Redis, web: Web) -> None:
    first = web.put(logged=True, batch_id="batch_1")
    web.put(logged=True, batch_id="batch_2")
    eventually(lambda: len(web.passed) == 1)
    job(redis, first, "started")
    web.put()
    eventually(lambda: len(web.passed) == 2)
    assert not web.passed[1].spec.account
    keep(redis)
    eventually(lambda: len(web.passed) == 3)
    assert web.passed[2].entry == ENTRY


def test_without_one_the_call_is_made(web: Web) -> None:
    web.put()
    web.put(OTHER)
    eventually(lambda: len(web.passed) == 2)
    assert [each.entry for each in web.passed] == [None, None]
    assert {each.pending.cache for each in web.passed} == {"miss"}


def test_identical_calls_of_all_processes_wait_for_the_first(
    redis: Redis, web: Web, settings: Settings
) -> None:
    second = Web(clients.commands(settings, 2))
    first = web.put()
    eventually(lambda: len(web.passed) == 1)
    job(redis, first, "started")
    for _ in range(3):
        web.put()
        second.put()
    gevent.sleep(0.2)
    assert (len(web.passed), second.passed) == (1, [])
    keep(redis)
    eventually(lambda: len(web.passed) == 4 and len(second.passed) == 3)
    assert [each.entry for each in (*web.passed, *second.passed)] == [None, *[ENTRY] * 6]


@pytest.mark.parametrize("status", ["finished", "failed"])
def test_each_is_made_if_the_first_leaves_nothing(redis: Redis, web: Web, status: str) -> None:
    first = web.put()
    others = [web.put() for _ in range(2)]
    eventually(lambda: len(web.passed) == 1)
    job(redis, first, status)
    eventually(lambda: len(web.passed) == 3)
    assert [each.spec.call_id for each in web.passed[1:]] == [each.spec.call_id for each in others]
    assert [each.entry for each in web.passed] == [None] * 3


def test_the_next_is_made_if_the_first_was_given_up(redis: Redis, web: Web) -> None:
    first = web.put()
    second, third = web.put(), web.put()
    eventually(lambda: len(web.passed) == 1)
    job(redis, first, "canceled")
    eventually(lambda: len(web.passed) == 2)
    assert web.passed[1].spec.call_id == second.spec.call_id
    job(redis, second, "started")
    keep(redis)
    eventually(lambda: len(web.passed) == 3)
    assert web.passed[2].spec.call_id == third.spec.call_id
    assert web.passed[2].entry == ENTRY


def test_a_call_that_ends_while_it_waits_is_not_made(redis: Redis, web: Web) -> None:
    first, second = web.put(), web.put()
    eventually(lambda: len(web.passed) == 1)
    second.pending.fail(CallCancelled())
    job(redis, first, "failed")
    web.put(OTHER)
    eventually(lambda: len(web.passed) == 2)
    gevent.sleep(0.2)
    assert len(web.passed) == 2


def test_a_call_that_waits_too_long_is_passed_on_to_be_ended(redis: Redis, web: Web) -> None:
    job(redis, web.put(), "started")
    second = web.put(budget=0.1)
    eventually(lambda: len(web.passed) == 2)
    assert web.passed[1].spec.call_id == second.spec.call_id
    assert web.passed[1].entry is None


def test_without_redis_the_submitter_says_so() -> None:
    away = Settings(key_pepper="p" * 40, redis_url="unix:///nowhere/redis.sock")
    web = Web(clients.commands(away, 1))
    web.put()
    web.put()
    eventually(lambda: len(web.passed) == 2)


def test_a_call_that_cannot_be_submitted_ends(web: Web) -> None:
    web.refusal = PayloadTooLarge()
    submission = web.put()
    eventually(lambda: submission.pending.outcome is not None)
    assert submission.pending.outcome is not None
    assert submission.pending.outcome.error is web.refusal


def test_nobody_waits_for_a_call_that_the_queue_has_refused(redis: Redis, web: Web) -> None:
    web.refused_by_queue = True
    for _ in range(5):
        web.put()
    eventually(lambda: len(web.passed) == 5)
    assert redis.exists(keys.first_call(NAME)) == 0
