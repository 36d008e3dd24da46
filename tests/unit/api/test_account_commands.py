"""api/account_commands.py: `flask account ...`."""

import csv

import pytest

from gateway.account.api_keys import KeyStore
from gateway.account.ledger import open_ledger
from gateway.queue import keys
from tests.unit.gateway.account.test_ledger import NOW, record


@pytest.fixture
def run(client):
    runner = client.application.test_cli_runner()
    return lambda *words: runner.invoke(args=words)


@pytest.fixture
def public_id(redis, settings):
    return KeyStore(redis, settings.key_pepper).create("app")[13:25]


def test_a_correction_is_taken_and_the_books_stay_equal(run, redis, public_id):
    result = run("account", "correct", public_id, "--usd", "-1.50", "--why", "billed twice")
    assert result.exit_code == 0 and f": -1.5 USD for {public_id}" in result.output
    assert redis.hget(keys.spend(public_id), "usd") == b"-1500000000"
    checked = run("account", "check")
    assert (checked.exit_code, checked.output) == (
        0,
        "Counters, sums and records of 1 keys and owners are equal.\n",
    )


def test_books_that_differ_are_shown_with_exit_code_1(run, redis, public_id, monkeypatch):
    monkeypatch.setattr("gateway.account.books.PAUSE_SECONDS", 0)
    redis.hincrby(keys.spend(public_id), "usd", 1)
    result = run("account", "check")
    assert result.exit_code == 1
    assert result.output == (
        f"{public_id}  all time:  counters 0.000000001 USD, 0 tokens, 0 calls,"
        "  ledger 0 USD, 0 tokens, 0 calls\n"
    )


@pytest.mark.parametrize("usd", ["", "x", "0", "nan", "inf", "1e-10", "1e10", "1e999999"])
def test_an_amount_that_is_none_is_refused(run, redis, public_id, usd):
    result = run("account", "correct", public_id, "--usd", usd, "--why", "w")
    assert result.exit_code == 1 and "--usd must be an amount" in result.output
    assert not redis.exists(keys.spend(public_id))


def test_a_correction_of_a_key_that_does_not_exist_is_refused(run):
    result = run("account", "correct", "nobody", "--usd", "1", "--why", "w")
    assert (result.exit_code, result.output) == (1, "Error: there is no key nobody\n")


def test_a_correction_needs_a_reason(run, public_id):
    assert run("account", "correct", public_id, "--usd", "1").exit_code == 2


def test_a_month_is_exported_as_csv(run, redis, settings):
    month = 30 * 86_400
    open_ledger(settings, redis).write(
        [
            record(1, cost_nano=1_000_000_001),
            record(2, key_id="key2"),
            record(3, cost_nano=1),
            record(4, NOW + month),
        ]
    )
    result = run("account", "export", "--month", "2026-11")
    assert result.exit_code == 0
    first, second = csv.DictReader(result.output.splitlines())
    assert (first["api_key_id"], first["owner"], first["kind"]) == ("key1", "team1", "chat")
    names = ("num_model_requests", "input_tokens", "cost")  # those of GET /usage
    assert tuple(first[name] for name in names) == ("2", "20", "1.000000002")
    assert (second["api_key_id"], second["cost"]) == ("key2", "0.000001")


@pytest.mark.parametrize("month", ["november", "9999-12"])
def test_a_month_that_is_none_is_refused(run, month):
    result = run("account", "export", "--month", month)
    assert result.exit_code == 1 and "2026-11" in result.output
