"""The database of the account: tables, migrations, retention, and how its driver waits."""

import dataclasses
import subprocess
import sys
import textwrap
import threading

import pytest
from sqlalchemy import text

from gateway.account.database import schema
from gateway.account.database.engine import make_engine
from gateway.account.ledger import (
    AuditEntry,
    LedgerUnavailable,
    RecordRefused,
    UsageQuery,
    open_ledger,
)
from gateway.settings import ConfigurationError
from tests.unit.gateway.account.test_ledger import DAY, NOW, record


@pytest.fixture
def engine(database_url):
    engine = make_engine(database_url)
    yield engine
    engine.dispose()


@pytest.fixture
def database(make_ledger, database_url):
    """The ledger in an empty database."""
    return make_ledger(database_url)


class TestMigrations:
    def test_from_nothing_they_make_the_tables_of_the_code(self, engine):
        assert schema.upgrade(engine) == ("", schema.HEAD)
        assert schema.differences(engine) == []

    def test_run_again_they_change_nothing(self, engine):
        schema.upgrade(engine)
        assert schema.upgrade(engine) == (schema.HEAD, schema.HEAD)

    def test_started_by_several_processes_together_they_run_once(self, engine):
        results = []
        threads = [
            threading.Thread(target=lambda: results.append(schema.upgrade(engine)[1]))
            for _ in range(3)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert results == [schema.HEAD] * 3

    def test_without_tables_a_process_does_not_start(self, engine):
        with pytest.raises(ConfigurationError, match="revision none.*run `flask db upgrade`"):
            schema.check(engine)

    @pytest.mark.parametrize("revision", ["0000", "abc"])
    def test_on_another_revision_a_process_does_not_start(self, engine, revision):
        schema.upgrade(engine)
        with engine.begin() as connection:
            connection.execute(text("UPDATE alembic_version SET version_num = :r"), {"r": revision})
        with pytest.raises(ConfigurationError, match=f"{revision}.*run `flask db upgrade`"):
            schema.check(engine)

    def test_tables_of_this_and_of_a_newer_release_are_used(self, engine):
        schema.upgrade(engine)
        schema.check(engine)
        with engine.begin() as connection:
            connection.execute(text("UPDATE alembic_version SET version_num = '9999'"))
        schema.check(engine)
        assert schema.upgrade(engine) == ("9999", "9999")


class TestRetention:
    def test_old_records_and_minutes_go_in_slices_and_larger_sums_stay(
        self, make_ledger, database_url
    ):
        ledger = make_ledger(database_url, record_days=2)
        old = NOW - 2 * DAY - 60
        ledger.write([record(number, old) for number in range(1_200)])
        ledger.write([record(9_000, NOW)])
        assert ledger.trim(NOW * 1000) == 1_001  # a slice of records, and a minute
        assert ledger.trim(NOW * 1000) == 200
        assert ledger.trim(NOW * 1000) == 0
        assert [each.id for each in ledger.generations().records] == ["call-9000"]
        counts = {
            width: sum(b.rows[0].sums.requests for b in ledger.usage(UsageQuery(0, NOW + 1, width)))
            for width in ("1m", "1h", "1d")
        }
        assert counts == {"1m": 1, "1h": 1_201, "1d": 1_201}
        assert ledger.totals("key1", NOW).all_time.requests == 1_201


class TestCopies:
    def test_a_key_and_an_owner_are_kept_as_they_are_in_redis(self, database):
        database.save_key("key1", {"hmac": "abc", "name": "app", "version": "3"})
        database.save_owner("team1", {"name": "Team", "limit": "5"})
        assert list(database.keys()) == [("key1", {"hmac": "abc", "name": "app", "version": "3"})]
        assert list(database.owners()) == [("team1", {"name": "Team", "limit": "5"})]

    def test_an_older_version_that_comes_late_changes_nothing(self, database):
        database.save_key("key1", {"name": "new", "version": "10", "revoked": "1"})
        database.save_key("key1", {"name": "old", "version": "9"})
        [(_, fields)] = database.keys()
        assert fields["name"] == "new"
        database.save_key("key1", {"name": "newer", "version": "11"})
        [(_, fields)] = database.keys()
        assert fields == {"name": "newer", "version": "11"}

    def test_the_audit_log_is_paged_from_the_latest_entry(self, database):
        entries = [AuditEntry(f"{1_000 + n}-{n % 2}", {"action": f"a{n}"}) for n in range(5)]
        database.audit(entries[:3])
        database.audit(entries)
        database.audit([])
        latest = database.audit_log(limit=2)
        assert latest == [entries[4], entries[3]]
        assert database.audit_log(after=latest[-1].id) == entries[2::-1]


class TestFailures:
    def test_a_value_that_the_database_cannot_hold_is_refused_and_nothing_written(self, database):
        with pytest.raises(RecordRefused):
            database.write([record(1), record(2, cost_nano=2**63)])
        assert database.generation("call-0001") is None
        assert database.totals("key1", NOW).all_time.requests == 0

    def test_without_tables_the_ledger_is_unavailable(self, settings, redis, database_url):
        ledger = open_ledger(dataclasses.replace(settings, database_url=database_url), redis)
        with pytest.raises(LedgerUnavailable):
            ledger.write([record(1)])
        with pytest.raises(LedgerUnavailable):
            ledger.generation("call-0001")
        ledger.engine.dispose()

    def test_a_server_that_is_away_is_unavailable_and_its_password_not_shown(self, tmp_path):
        engine = make_engine(f"postgres://user:secret@/db?host={tmp_path}")
        with pytest.raises(LedgerUnavailable) as caught:
            schema.check(engine)
        assert "secret" not in str(caught.value)

    def test_an_error_names_no_value(self, database):
        with pytest.raises(RecordRefused) as caught:
            database.write([record(2, cost_nano=2**63, user_agent="secret")])
        assert "secret" not in str(caught.value) + str(caught.value.__cause__)


TICKING = """
    from gevent import monkey
    monkey.patch_all()
    import gevent, sys, time
    from gateway.account.database.engine import make_engine, off_loop, transaction
    from sqlalchemy import text

    engine = make_engine(sys.argv[1])
    ticks = 0
    def tick():
        global ticks
        while True:
            ticks += 1
            gevent.sleep(0.01)

    def wait():
        with transaction(engine) as connection:
            if engine.dialect.name == "sqlite":
                connection.connection.driver_connection.create_function(
                    "pause", 0, lambda: monkey.get_original("time", "sleep")(1))
                connection.execute(text("SELECT pause()"))
            else:
                connection.execute(text("SELECT pg_sleep(1)"))

    gevent.spawn(tick)
    off_loop(engine, wait)
    print(ticks)
"""


def test_other_greenlets_run_while_the_database_works(database_url):
    run = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(TICKING), database_url],
        capture_output=True,
        text=True,
    )
    assert run.returncode == 0, run.stderr
    assert int(run.stdout) > 10  # of a hundred: a driver that blocks leaves one


def test_a_process_imports_no_database_before_it_needs_one(tmp_path):
    """SQLAlchemy takes 16 MB; psycopg takes 9."""
    program = (
        "import sys; from app import create_app; from gateway.settings import Settings;"
        f"create_app(Settings(key_pepper='p' * 40, database_url='sqlite:///{tmp_path}/a.db'));"
        "loaded = {'sqlalchemy', 'alembic', 'psycopg', 'prometheus_client'} & set(sys.modules);"
        "assert not loaded, loaded"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
