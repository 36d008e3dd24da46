"""Keys, owners and counters: into the database, and back into an emptied Redis."""

import threading
from datetime import UTC, datetime

import pytest

from gateway.account import counters
from gateway.account.api_keys import KeyStore
from gateway.account.copies import Copies
from gateway.account.counters import Spend
from gateway.account.owners import owner_store
from gateway.account.record_store import COMMAND
from gateway.queue import keys
from tests.unit.gateway.account.test_ledger import record


@pytest.fixture
def database(make_ledger, database_url):
    return make_ledger(database_url)


@pytest.fixture
def copies(redis, database):
    return Copies(redis, database)


def update(copies):
    for _ in range(3):
        copies.update()


def hashes(redis):
    names = [*redis.scan_iter(match="gw:key:*"), *redis.scan_iter(match="gw:owners:*")]
    return {name: redis.hgetall(name) for name in names}


@pytest.fixture
def store(redis, settings):
    """Two keys of an owner."""
    owner_store(redis).create("team1", {"name": "Team", "rpm": 5}, COMMAND)
    store = KeyStore(redis, settings.key_pepper)
    store.create("one")
    store.create("two")
    return store


def test_an_emptied_redis_gets_keys_and_owners_back(redis, copies, store):
    update(copies)
    before = hashes(redis)
    redis.flushall()
    copies.restore()
    assert hashes(redis) == before and len(before) == 3


def test_changes_are_copied_with_their_entries_in_the_audit_log(redis, copies, store, database):
    update(copies)
    owner_store(redis).change("team1", lambda _: {"rpm": 9}, COMMAND)
    update(copies)
    [(_, fields)] = database.owners()
    assert fields["rpm"] == "9"
    actions = [entry.entry["action"] for entry in database.audit_log()]
    assert actions[0] == "owner.updated" and len(actions) == redis.xlen(keys.AUDIT)


def test_an_owner_that_was_deleted_does_not_come_back(redis, copies, store, database):
    update(copies)
    owner_store(redis).delete("team1", COMMAND)
    update(copies)
    assert list(database.owners()) == []


def test_an_owner_that_was_deleted_and_created_again_is_copied(redis, copies, store, database):
    update(copies)
    owners = owner_store(redis)
    for number in range(5):
        owners.change("team1", lambda _, number=number: {"rpm": number + 20}, COMMAND)
    owners.delete("team1", COMMAND)
    owners.create("team1", {"name": "New"}, COMMAND)
    update(copies)
    [(_, fields)] = database.owners()
    assert fields["name"] == "New"


def test_what_the_audit_log_does_not_name_is_copied_when_all_is_compared(
    redis, database, store, settings
):
    redis.delete(keys.AUDIT)
    update(Copies(redis, database))
    assert len(list(database.keys())) == 2 and len(list(database.owners())) == 1


def test_the_counters_of_the_current_windows_come_back(redis, copies, database, store):
    update(copies)
    [public_id, *_] = [public_id for public_id, _ in database.keys()]
    now = redis.time()[0]
    month_before = datetime.fromtimestamp(now, UTC).replace(day=1, hour=0, minute=0).timestamp()
    calls = [
        record(1, now, key_id=public_id, cost_nano=5),
        record(2, int(month_before) - 7 * 86_400, key_id=public_id, cost_nano=70),
    ]
    database.write(calls)
    redis.flushall()
    copies.restore()
    [restored, owner] = counters.read(redis, [public_id, "owner:team1"])
    assert restored.spent[""] == Spend(75, 30, 2)
    assert {restored.spent[name] for name in counters.WINDOWS} == {Spend(5, 15, 1)}
    assert owner.spent[""] == Spend(75, 30, 2)


def test_what_was_used_since_is_added_to_and_a_record_that_is_there_stays(
    redis, copies, database, store
):
    update(copies)
    [public_id, *_] = [public_id for public_id, _ in database.keys()]
    now = redis.time()[0]
    database.write([record(1, now, key_id=public_id, cost_nano=5)])
    redis.flushall()
    day, _ = counters.window("daily", now)
    redis.hset(keys.spend(public_id), mapping={"usd": 2, "d": day, "d_usd": 2})
    redis.hset(keys.key(public_id), mapping={"hmac": "new", "name": "new", "version": 9})
    copies.restore()
    [restored] = counters.read(redis, [public_id])
    assert (restored.spent[""].usd, restored.spent["daily"].usd) == (7, 7)
    assert restored.spent["monthly"].usd == 5
    assert redis.hget(keys.key(public_id), "name") == b"new"


def test_several_processes_restore_each_counter_once(redis, copies, database, store):
    update(copies)
    ids = [public_id for public_id, _ in database.keys()]
    now = redis.time()[0]
    database.write([record(n, now, key_id=ids[n % 2], cost_nano=1) for n in range(10)])
    redis.flushall()
    threads = [threading.Thread(target=Copies(redis, database).restore) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    spent = [each.spent[""].usd for each in counters.read(redis, [*ids, "owner:team1"])]
    assert spent == [5, 5, 10]


def test_amounts_above_what_lua_counts_exactly_come_back_exactly(redis, copies, database, store):
    update(copies)
    [public_id, *_] = [public_id for public_id, _ in database.keys()]
    amount = 2**60 + 1
    database.write([record(1, redis.time()[0], key_id=public_id, cost_nano=amount)])
    redis.flushall()
    copies.restore()
    assert counters.read(redis, [public_id])[0].spent["weekly"].usd == amount
