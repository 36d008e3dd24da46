"""How records of calls get from Redis into the ledger, whatever fails on the way."""

import dataclasses
import threading

import orjson
import pytest

from gateway.account.api_keys import KeyStore, public_id
from gateway.account.database import schema
from gateway.account.ledger import LedgerUnavailable, open_ledger
from gateway.account.owners import owner_store
from gateway.account.record_store import COMMAND
from gateway.account.records import Record
from gateway.catalogue.catalogue import Catalogue
from gateway.metrics.labels import ModelLabels
from gateway.metrics.records import RecordCounter
from gateway.queue import keys
from gateway.settings import ConfigurationError
from workers.ledger_writer import BATCH, IDLE_SECONDS, LedgerWriter, spent

SETTLED = 1_796_000_000_000


class Killed(BaseException):
    """What ends a process in the middle of a step."""


class Failing:
    """A ledger whose next writes fail as they are told to, and then work again."""

    def __init__(self, ledger):
        self._ledger = ledger
        self.errors = []
        self.after_commit = False

    def __getattr__(self, name):
        return getattr(self._ledger, name)

    def write(self, records):
        if self.errors and not self.after_commit:
            raise self.errors.pop(0)
        self._ledger.write(records)
        if self.errors:
            raise self.errors.pop(0)


@pytest.fixture
def ledger(settings, redis, tmp_path):
    url = f"sqlite:///{tmp_path}/account.db"
    ledger = open_ledger(dataclasses.replace(settings, database_url=url), redis)
    schema.upgrade(ledger.engine)
    return Failing(ledger)


@pytest.fixture
def make_writer(redis, ledger, settings):
    labels = ModelLabels(Catalogue.load(settings))

    def make(name="worker-1"):
        return LedgerWriter(redis, ledger, name, RecordCounter(redis, labels))

    return make


@pytest.fixture
def writer(make_writer):
    return make_writer()


def append(redis, *numbers, **script):
    for number in numbers:
        record = Record(
            id=f"call-{number:04}",
            key_id="key1",
            created_ms=SETTLED - 900,
            settled_ms=SETTLED - 1,
            usage={"input": 3},
            cost_nano=7,
        )
        values = {"settled_ms": SETTLED, "queued_ms": 4, "reserved_usd": 50, "reserved_tokens": 6}
        redis.xadd(keys.RECORDS, {"r": record.encode(), "q": orjson.dumps(values | script)})


def run(writer):
    """Let the writer work until it has nothing to do or fails."""
    while (seconds := writer.step()) == 0:
        pass
    return seconds


def requests(ledger):
    return ledger.totals("key1", SETTLED // 1000).all_time.requests


def counted(redis):
    """The calls in the metrics."""
    fields = redis.hgetall(keys.METRICS).items()
    return sum(int(value) for name, value in fields if name.startswith(b"inference_calls_total"))


def test_records_are_moved_with_what_the_script_knows(redis, writer, ledger):
    append(redis, *range(BATCH + 1))
    assert run(writer) == IDLE_SECONDS
    assert redis.xlen(keys.RECORDS) == 0
    assert requests(ledger) == BATCH + 1
    record = ledger.generation("call-0000")
    assert (record.settled_ms, record.queued_ms) == (SETTLED, 4)
    assert (record.reserved_nano, record.reserved_tokens) == (50, 6)


def test_a_writer_killed_after_the_commit_leaves_nothing_counted_twice(
    redis, writer, ledger, make_writer
):
    append(redis, 1, 2)
    ledger.after_commit = True
    ledger.errors = [Killed()]
    with pytest.raises(Killed):
        run(writer)
    assert (redis.xlen(keys.RECORDS), requests(ledger)) == (2, 2)
    append(redis, 3)
    redis.delete(keys.LEDGER_WRITER)  # it expires
    run(make_writer("worker-2"))
    assert (redis.xlen(keys.RECORDS), requests(ledger), counted(redis)) == (0, 3, 3)


def test_a_writer_killed_before_the_commit_loses_nothing(redis, writer, ledger, make_writer):
    append(redis, 1, 2)
    ledger.errors = [Killed()]
    with pytest.raises(Killed):
        run(writer)
    redis.delete(keys.LEDGER_WRITER)
    run(make_writer("worker-2"))
    assert (redis.xlen(keys.RECORDS), requests(ledger), counted(redis)) == (0, 2, 2)


def test_records_wait_while_the_database_is_away_and_the_pauses_grow(redis, writer, ledger, caplog):
    append(redis, 1, 2)
    ledger.errors = [LedgerUnavailable("connection refused")] * 7
    pauses = [run(writer) for _ in range(7)]
    assert pauses == sorted(pauses) and pauses[0] < 1 and pauses[-1] == 10
    assert redis.xlen(keys.RECORDS) == 2
    assert run(writer) == IDLE_SECONDS
    assert (redis.xlen(keys.RECORDS), requests(ledger)) == (0, 2)
    assert [message for message in caplog.messages if "connection refused" in message] == [
        "ledger: records wait in Redis (LedgerUnavailable: connection refused)"
    ]


def test_a_writer_without_its_database_lets_another_one_write(redis, writer, ledger):
    append(redis, 1)
    ledger.errors = [LedgerUnavailable("connection refused")]
    run(writer)
    assert run(LedgerWriter(redis, ledger, "worker-2")) == IDLE_SECONDS
    assert requests(ledger) == 1


def test_only_one_writer_writes(redis, writer, ledger):
    run(writer)
    append(redis, 1)
    other = LedgerWriter(redis, ledger, "worker-2")
    assert run(other) == IDLE_SECONDS
    assert redis.xlen(keys.RECORDS) == 1
    writer.stop()
    run(other)
    assert redis.xlen(keys.RECORDS) == 0


def test_calls_are_counted_while_the_database_is_away(redis, writer, ledger):
    append(redis, *range(BATCH + 1))
    ledger.errors = [LedgerUnavailable("connection refused")] * 2
    run(writer)
    assert (requests(ledger), counted(redis)) == (0, BATCH + 1)
    append(redis, 1_000)
    run(writer)
    assert (requests(ledger), counted(redis)) == (0, BATCH + 2)
    run(writer)
    assert (requests(ledger), counted(redis)) == (BATCH + 2, BATCH + 2)


def test_writers_that_write_at_the_same_time_count_each_record_once(redis, ledger, make_writer):
    """As after a pause that was longer than the lease."""
    append(redis, *range(500))
    writers = [make_writer(f"worker-{n}") for n in range(3)]

    def work(writer):
        while redis.xlen(keys.RECORDS):
            redis.delete(keys.LEDGER_WRITER)
            writer.step()

    threads = [threading.Thread(target=work, args=(writer,)) for writer in writers]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert (requests(ledger), counted(redis)) == (500, 500)


@pytest.mark.parametrize(
    "entry",
    [
        b"{broken",
        b"[]",
        b"{}",
        b'{"id": "c", "key_id": "k"}',
        b'{"id": "c", "key_id": "k", "settled_ms": 1, "cost_nano": 1e300}',
        b'{"id": "c", "key_id": "k", "settled_ms": 1, "cost_nano": 9223372036854775808}',
        b'{"id": "c", "key_id": 7, "settled_ms": 1}',
        b'{"id": "c", "key_id": "k", "settled_ms": "1"}',
        b'{"id": "c", "key_id": "k", "settled_ms": 1, "usage": [1]}',
        b'{"id": "c", "key_id": "k", "settled_ms": 1, "usage": {"input": null}}',
    ],
)
def test_an_entry_that_is_no_record_is_put_aside_and_the_others_are_kept(
    redis, writer, ledger, entry
):
    append(redis, 1)
    redis.xadd(keys.RECORDS, {"r": entry})
    append(redis, 2)
    run(writer)
    assert (redis.xlen(keys.RECORDS), requests(ledger)) == (0, 2)
    assert redis.xlen(keys.RECORDS_REFUSED) == 1


def test_wrong_tables_are_found_again_when_the_database_is_back(redis, writer, ledger):
    append(redis, 1)

    def wrong():
        raise ConfigurationError("run `flask db upgrade`")

    ledger.check = wrong
    assert run(writer) > 0
    assert redis.xlen(keys.RECORDS) == 1
    del ledger.check
    run(writer)
    assert requests(ledger) == 1


def test_without_a_database_redis_keeps_the_records(settings, redis):
    ledger = open_ledger(settings, redis)
    append(redis, 1, 2)
    run(LedgerWriter(redis, ledger, "worker-1"))
    assert requests(ledger) == 2


def test_redis_that_is_away_is_waited_for(redis, ledger, caplog):
    away = type(redis).from_url("redis://127.0.0.1:9")
    writer = LedgerWriter(away, ledger, "worker-1")
    assert run(writer) > 0
    assert run(writer) > 0
    assert len([message for message in caplog.messages if message.startswith("ledger:")]) == 1


@pytest.mark.parametrize(
    ("end", "event_type"),
    [
        ({"finish_reason": "stop"}, "response.completed"),
        ({"finish_reason": "length"}, "response.incomplete"),
        ({"status": "cancelled"}, "response.cancelled"),
        ({"status": "lost"}, "response.failed"),
    ],
)
def test_the_end_of_a_background_response_is_an_event_of_its_key(
    redis, writer, settings, end, event_type
):
    store = KeyStore(redis, settings.key_pepper)
    hooked = public_id(store.create("a", webhook_url="https://x.example/", webhook_nonce="n"))
    for call_id, response_id in (("call-1", "resp_1"), ("call-2", "")):
        record = Record(
            id=call_id,
            key_id=hooked,
            created_ms=SETTLED - 9,
            settled_ms=SETTLED,
            response_id=response_id,
            **end,
        )
        redis.xadd(keys.RECORDS, {"r": record.encode()})
    run(writer)
    (event,) = [orjson.loads(redis.get(name)) for name in redis.keys(keys.webhook("*"))]
    assert (event["type"], event["data"]) == (event_type, {"id": "resp_1"})


def test_an_alert_is_logged_in_usd_and_by_whom_it_is_about() -> None:
    alert = {"scope": "owner:team", "share": 0.8, "unit": "usd", "limit": 25e9, "spent": 20.5e9}
    assert spent({**alert, "window": "monthly"}) == {
        "owner": "team",
        "share": 0.8,
        "spent": 20.5,
        "limit": 25.0,
        "unit": "usd",
        "window": "monthly",
    }
    tokens = spent({**alert, "scope": "AbCdEfGh1234", "unit": "tokens", "limit": 9, "window": None})
    assert (tokens["key_id"], tokens["limit"], tokens["window"]) == ("AbCdEfGh1234", 9, None)


def test_a_budget_threshold_is_logged_and_becomes_an_event_of_its_key_or_owner(
    redis, writer, settings, caplog
):
    store, hook = KeyStore(redis, settings.key_pepper), {"webhook_url": "https://x.example/"}
    owner_store(redis).create("team", {}, COMMAND)
    hooked = public_id(store.create("a", **hook, webhook_nonce="n"))
    sisters = [public_id(store.create("b", owner="team", **hook)) for _ in range(3)]
    store.revoke(sisters.pop())
    store.create("c", owner="team")  # without a webhook
    record = Record(id="call-1", key_id=hooked, created_ms=SETTLED - 9, settled_ms=SETTLED)
    spent = {"unit": "usd", "limit": 25e9, "spent": 24e9, "window": "monthly"}
    crossed = [{"scope": hooked, "share": share, **spent} for share in (0.8, 0.95)]
    crossed.append({"scope": "owner:team", "share": 0.8, **spent})
    script = {"settled_ms": SETTLED, "queued_ms": 0, "reserved_usd": 0, "reserved_tokens": 0}
    entry = {"r": record.encode(), "q": orjson.dumps(script), "a": orjson.dumps(crossed)}
    redis.xadd(keys.RECORDS, entry)
    run(writer)
    events = [orjson.loads(redis.get(name)) for name in redis.keys(keys.webhook("*"))]
    assert sorted((event["type"], event["data"]["id"]) for event in events) == [
        *[("key.budget_threshold", hooked)] * 2,
        *[("owner.budget_threshold", "team")] * 2,
    ]
    assert [redis.zcard(keys.webhooks(each)) for each in (hooked, *sisters)] == [2, 1, 1]
    assert caplog.messages.count("limit used up") == 3
