"""The books of the account compared with one another, and corrected."""

import pytest

from gateway.account import books, counters
from gateway.account.api_keys import KeyStore
from gateway.account.counters import Spend
from gateway.account.ledger import open_ledger
from gateway.account.owners import owner_store
from gateway.account.record_store import COMMAND
from gateway.queue import keys
from tests.unit.gateway.account.test_ledger import DAY, record
from workers.ledger_writer import LedgerWriter

MONEY = 1_500_000_000  # 1.50 USD


@pytest.fixture
def key(redis, settings):
    owner_store(redis).create("team1", {"name": "Team"}, COMMAND)
    store = KeyStore(redis, settings.key_pepper)
    return store.verify(store.create("app", owner="team1"))


@pytest.fixture
def scopes(key):
    return [key.public_id, "owner:team1"]


def write(redis, ledger):
    writer = LedgerWriter(redis, ledger, "worker-1")
    while writer.step() == 0:
        pass
    writer.stop()


def check(redis, ledger, scopes, pause=lambda _: None):
    return books.differences(redis, ledger, scopes, pause)


def test_a_correction_changes_counters_and_ledger_by_the_same_amount(redis, ledger, key, scopes):
    correction = books.correct(redis, key, -MONEY, "billed twice")
    assert check(redis, ledger, scopes) == [], "while its record waits"
    write(redis, ledger)
    assert check(redis, ledger, scopes) == []
    spent = [each.spent[name].usd for each in counters.read(redis, scopes) for name in each.spent]
    assert spent == [-MONEY] * 8
    kept = ledger.generation(correction.id)
    assert (kept.cost_nano, kept.correction, kept.note) == (-MONEY, True, "billed twice")
    assert (kept.key_id, kept.owner, kept.kind) == (key.public_id, "team1", "correction")


def test_a_correction_of_a_key_without_an_owner_is_its_own_only(redis, ledger, settings):
    store = KeyStore(redis, settings.key_pepper)
    key = store.verify(store.create("app"))
    books.correct(redis, key, 5, "gift")
    assert list(redis.scan_iter(match="gw:spend:*")) == [keys.spend(key.public_id).encode()]


def test_a_correction_is_in_the_audit_log(redis, ledger, key):
    books.correct(redis, key, 5, "gift")
    [latest, *_] = audit_log(redis)
    assert b'"key.corrected"' in latest and b'"gift"' in latest


def audit_log(redis):
    return [fields[b"entry"] for _, fields in redis.xrevrange(keys.AUDIT)]


def test_counters_of_windows_that_have_ended_begin_anew(redis, ledger, key, scopes):
    old = {"usd": 7, "d": 1, "d_usd": 7, "d_requests": 2, "w": 1, "w_usd": 7, "m": 1, "m_usd": 7}
    redis.hset(keys.spend(key.public_id), mapping=old)
    books.correct(redis, key, 5, "gift")
    [read] = counters.read(redis, [key.public_id])
    assert read.spent[""] == Spend(12)
    assert [read.spent[name] for name in counters.WINDOWS] == [Spend(5)] * 3


def test_counters_that_differ_from_the_ledger_are_named_with_their_window(
    redis, ledger, key, scopes
):
    books.correct(redis, key, 5, "gift")
    write(redis, ledger)
    redis.hincrby(keys.spend(key.public_id), "w_usd", 2)
    [difference] = check(redis, ledger, scopes)
    assert (difference.scope, difference.window) == (key.public_id, "weekly")
    assert (difference.book, difference.counted.usd, difference.summed.usd) == ("counters", 7, 5)


def test_what_a_call_that_ends_meanwhile_changes_is_no_difference(redis, ledger, key, scopes):
    redis.hincrby(keys.spend(key.public_id), "usd", 2)

    def settled(_):
        redis.hincrby(keys.spend(key.public_id), "usd", 3)

    assert check(redis, ledger, scopes, settled) == []


def test_sums_that_differ_from_the_records_are_named_with_their_day(
    redis, make_ledger, database_url
):
    ledger = make_ledger(database_url)
    now = redis.time()[0]
    ledger.write(
        [record(1, now), record(2, now - DAY), record(3, now, kind="correction", correction=True)]
    )
    assert check(redis, ledger, []) == []
    with ledger.engine.begin() as connection:
        connection.exec_driver_sql("DELETE FROM calls WHERE id = 'call-0002'")
    [difference] = check(redis, ledger, [])
    assert (difference.scope, difference.book) == ("key1", "records")
    assert (difference.counted, difference.summed) == (Spend(0), Spend(1_000, 0, 1))


def test_records_that_retention_deleted_are_no_difference(redis, make_ledger, database_url):
    ledger = make_ledger(database_url, record_days=2)
    now = redis.time()[0]
    ledger.write([record(n, now - n * DAY // 2) for n in range(10)])
    while ledger.trim(now * 1000):
        pass
    assert check(redis, ledger, []) == []


def test_without_a_database_the_books_agree_too(redis, settings, key, scopes):
    ledger = open_ledger(settings, redis)
    books.correct(redis, key, 5, "gift")
    write(redis, ledger)
    assert check(redis, ledger, scopes) == []
