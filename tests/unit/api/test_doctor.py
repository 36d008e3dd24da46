"""api/doctor.py: `flask doctor`."""

from __future__ import annotations

import dataclasses
import time

import pytest

from gateway.account.api_keys import KeyStore
from gateway.account.database import schema
from gateway.queue import keys


@pytest.fixture
def doctor(make_client, settings, redis):
    """Runs the command with these settings; returns its exit code and its output."""

    def run(offline=True, **changed):
        given = dataclasses.replace(settings, **{"release": "r1", **changed})
        runner = make_client(given).application.test_cli_runner()
        result = runner.invoke(args=["doctor", *["--offline"] * offline])
        return result.exit_code, result.output

    return run


@pytest.fixture
def worker(redis):
    redis.sadd(keys.RQ_WORKERS, "rq:worker:w1")
    redis.hset(keys.rq_worker("w1"), "release", "r1")
    redis.set(keys.lease("w1"), "100 7")


@pytest.fixture
def database(tmp_path):
    return f"sqlite:///{tmp_path}/account.db"


def line(output, state, subject):
    """The text of the one line with this state and subject."""
    lines = output.splitlines()
    [found] = [each for each in lines if each.startswith(f"{state:<4}  {subject:<12} ")]
    return found[19:]


def test_a_deployment_that_works_passes(doctor, worker, settings, redis, database):
    KeyStore(redis, settings.key_pepper).create("tests")
    schema.upgrade_url(database)
    code, output = doctor(database_url=database)
    assert code == 0
    assert line(output, "ok", "workers") == "1 alive, 100 calls at once"
    assert line(output, "ok", "keys") == "1 of callers, 0 of operators"
    assert line(output, "ok", "database").startswith("answers")
    assert "FAIL" not in output
    assert settings.key_pepper not in output


def test_without_redis_what_needs_it_is_left_out(doctor, tmp_path):
    code, output = doctor(redis_url=f"unix://{tmp_path}/absent.sock")
    assert code == 1
    assert line(output, "FAIL", "Redis") == "does not answer (ConnectionError)"
    assert "-> Check REDIS_URL" in output
    assert "workers" not in output


def test_a_service_without_workers_and_keys_is_told_what_to_do(doctor):
    code, output = doctor()
    assert code == 1
    assert line(output, "FAIL", "workers") == "none is alive"
    assert "-> Start one (python -m workers)" in output
    assert "-> Create one: flask keys create NAME." in output


def test_workers_of_another_release_are_named(doctor, worker):
    code, output = doctor(release="r2")
    assert code == 0
    assert line(output, "warn", "workers") == "1 alive, 100 calls at once, of release r1"


def test_tables_of_an_older_release_fail(doctor, worker, database):
    code, output = doctor(database_url=database)
    assert code == 1
    assert "flask db upgrade" in line(output, "FAIL", "database")


def test_a_long_queue_and_old_records_are_seen(doctor, worker, redis):
    redis.rpush(keys.RQ_QUEUE, "c1")
    redis.hset(keys.job("c1"), "queued_ms", int((time.time() - 310) * 1000))
    redis.xadd(keys.RECORDS, {"r": b"{}"}, id=f"{int(time.time() - 310) * 1000}-0")
    code, output = doctor()
    assert code == 0
    assert line(output, "warn", "queue").startswith("1 calls wait, the oldest for 3")
    assert line(output, "warn", "records").startswith("1 wait, the oldest for 3")


def test_webhooks_that_are_not_delivered_are_seen(doctor, worker, make_key, redis):
    make_key(webhook_url="https://hooks.example/x")
    assert "1 keys" in line(doctor(webhook_hosts=("hooks.example",))[1], "ok", "webhooks")
    assert "1 keys" in line(doctor()[1], "warn", "webhooks")
    redis.zadd(keys.WEBHOOKS, {"AbCdEfGh1234": (time.time() - 300) * 1000})
    assert "due for" in line(doctor(webhook_hosts=("hooks.example",))[1], "warn", "webhooks")


def test_an_evicting_redis_fails(doctor, worker, redis):
    redis.config_set("maxmemory-policy", "allkeys-lru")
    try:
        code, output = doctor()
    finally:
        redis.config_set("maxmemory-policy", "noeviction")
    assert code == 1
    assert line(output, "FAIL", "Redis") == "has the maxmemory-policy allkeys-lru"


@pytest.mark.parametrize(("share", "stops"), [(0.45, "from 50 %"), (0.75, "from 80 % on, all")])
def test_a_redis_that_fills_up_is_seen_before_calls_stop(doctor, worker, redis, share, stops):
    redis.config_set("maxmemory", int(redis.info("memory")["used_memory"] / share))
    code, output = doctor()
    assert code == 0
    assert " MB used" in line(output, "warn", "memory")
    assert stops in output


def test_a_folder_for_files_that_cannot_be_written_fails(doctor, worker, tmp_path):
    good, bad = tmp_path / "files", tmp_path / "file"
    bad.write_text("not a folder")
    assert line(doctor(files_url=f"file://{good}")[1], "ok", "files").startswith("can be written")
    code, output = doctor(files_url=f"file://{bad}")
    assert code == 1
    assert "cannot be written" in line(output, "FAIL", "files")


def test_a_check_of_providers_that_cannot_run_fails(doctor, worker, monkeypatch):
    monkeypatch.setenv("KEY_PEPPER", "short")  # of the process that calls the providers
    code, output = doctor(offline=False)
    assert code == 1
    assert line(output, "FAIL", "providers").startswith("configuration: KEY_PEPPER must be set")
