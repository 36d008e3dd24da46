"""The account's database under real processes: kills, absence, wrong tables, an emptied Redis."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from sqlalchemy import text

from gateway.account.database import schema
from gateway.account.database.engine import make_engine
from gateway.account.database.ledger import SqlLedger
from gateway.account.records import Record
from gateway.queue import keys
from gateway.settings import Settings
from tests.support.postgres import PostgresServer
from tests.support.stack import PATIENCE_SECONDS, PEPPER, ROOT, Stack, until

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def postgres() -> Iterator[PostgresServer]:
    with PostgresServer() as server:
        schema.upgrade_url(server.url)
        yield server


@pytest.fixture
def stack(tmp_path: Path, postgres: PostgresServer) -> Iterator[Stack]:
    with Stack(tmp_path / "s", workers=2, env={"DATABASE_URL": postgres.url}) as stack:
        yield stack


@pytest.fixture
def ledger(stack: Stack, postgres: PostgresServer) -> Iterator[SqlLedger]:
    settings = Settings(key_pepper=PEPPER, database_url=postgres.url)
    ledger = SqlLedger(settings, stack.redis)
    yield ledger
    ledger.engine.dispose()


def append(stack: Stack, key_id: str, count: int) -> None:
    now = int(time.time() * 1000)
    with stack.redis.pipeline(transaction=False) as pipeline:
        for number in range(count):
            record = Record(f"{key_id}-{number}", key_id, now, now, usage={"input": 2}, cost_nano=3)
            pipeline.xadd(keys.RECORDS, {"r": record.encode(), "q": b"{}"})
        pipeline.execute()


def writer(stack: Stack) -> str:
    name: bytes | None = stack.redis.get(keys.LEDGER_WRITER)
    return name.decode() if name else ""


def kill_writer(stack: Stack) -> None:
    """kill -9 the worker that writes."""
    name = until(lambda: writer(stack))
    pid = int(stack.redis.hget(keys.rq_worker(name), "pid"))
    [worker] = [each for each in stack.workers if each.pid == pid]
    worker.kill()


def requests_of(ledger: SqlLedger, key_id: str) -> int:
    return ledger.totals(key_id, int(time.time())).all_time.requests


def test_a_writer_killed_at_work_is_replaced_and_every_record_counts_once(
    stack: Stack, ledger: SqlLedger
) -> None:
    append(stack, "killed", 5_000)
    until(lambda: requests_of(ledger, "killed"))
    kill_writer(stack)
    stack.start_worker()
    until(lambda: not stack.redis.xlen(keys.RECORDS))
    assert requests_of(ledger, "killed") == 5_000


def test_while_the_database_is_away_calls_go_on_and_records_wait(
    stack: Stack, ledger: SqlLedger, postgres: PostgresServer
) -> None:
    until(lambda: writer(stack))
    postgres.stop()
    try:
        append(stack, "away", 300)
        for number in range(5):
            assert stack.ask("fake/echo", f"without a database {number}").status_code == 200
        assert stack.redis.xlen(keys.RECORDS) >= 300
    finally:
        postgres.start()
    until(lambda: not stack.redis.xlen(keys.RECORDS))
    assert requests_of(ledger, "away") == 300
    assert stack.logs().count("records wait in Redis") <= len(stack.workers)


def test_an_emptied_redis_gets_its_keys_and_counters_back_by_itself(
    stack: Stack, ledger: SqlLedger
) -> None:
    public_id = stack.key.split("_")[2]
    append(stack, public_id, 10)
    until(lambda: requests_of(ledger, public_id) == 10)
    until(lambda: public_id in dict(ledger.keys()))
    record = stack.redis.hgetall(keys.key(public_id))
    stack.redis.flushall()
    until(lambda: stack.redis.exists(keys.LEDGER_RESTORED))
    assert stack.redis.hgetall(keys.key(public_id)) == record
    assert stack.redis.hget(keys.spend(public_id), "usd") == b"30"
    stack.until_ready()
    assert stack.ask("fake/echo", "after the loss").status_code == 200


def test_the_books_agree_after_calls_of_all_kinds(stack: Stack) -> None:
    for number in range(10):
        assert stack.ask("fake/echo", f"whole {number}").status_code == 200
        assert stack.ask("fake/echo", f"streamed {number}", stream=True).status_code == 200
        assert stack.ask("closed/echo", f"failed {number}").status_code == 502
        stack.open_stream("fake/echo", f"left {number}").close()
    check = [sys.executable, "-m", "flask", "account", "check"]

    def equal() -> bool:
        if stack.redis.xlen(keys.RECORDS):
            return False
        run = subprocess.run(check, cwd=ROOT, env=stack.env, capture_output=True, text=True)
        return run.returncode == 0

    until(equal)


@pytest.mark.parametrize(
    "command",
    [["gunicorn", "--bind", "127.0.0.1:0", "wsgi:app"], ["workers"]],
    ids=["web", "worker"],
)
@pytest.mark.parametrize("revision", ["", "0000"], ids=["no tables", "old tables"])
def test_a_process_without_its_tables_does_not_start_and_names_the_command(
    tmp_path: Path, redis_url: str, command: list[str], revision: str
) -> None:
    url = f"sqlite:///{tmp_path}/account.db"
    if revision:
        engine = make_engine(url)
        schema.upgrade(engine)
        with engine.begin() as connection:
            connection.execute(text(f"UPDATE alembic_version SET version_num = '{revision}'"))
        engine.dispose()
    env = {"KEY_PEPPER": PEPPER, "REDIS_URL": redis_url, "DATABASE_URL": url, "PATH": ""}
    ended = subprocess.run(
        [sys.executable, "-m", *command],
        cwd=ROOT,
        env=env,
        capture_output=True,
        text=True,
        timeout=PATIENCE_SECONDS,
    )
    assert ended.returncode != 0
    assert "run `flask db upgrade`" in ended.stderr
    assert "Traceback" not in ended.stderr
