"""api/commands.py: `flask keys` and `flask check-config`."""

from __future__ import annotations

import dataclasses
import re

import pytest

from gateway.account.api_keys import KeyStore
from gateway.errors import AuthenticationFailed
from gateway.queue import keys


@pytest.fixture
def run(client):
    runner = client.application.test_cli_runner()
    return lambda *words: runner.invoke(args=words)


@pytest.fixture
def store(redis, settings):
    return KeyStore(redis, settings.key_pepper)


def test_a_created_key_is_on_the_last_line_and_works(run, store):
    result = run("keys", "create", "Zoë's laptop")
    assert result.exit_code == 0
    assert store.verify(result.output.splitlines()[-1]).name == "Zoë's laptop"


def test_a_key_needs_a_name(run, redis):
    assert run("keys", "create").exit_code == 2
    assert redis.keys() == []


def test_no_keys_are_an_empty_list(run):
    result = run("keys", "list")
    assert (result.exit_code, result.output) == (0, "")


def test_the_list_shows_state_and_times_and_no_secret(run, store, redis):
    first, second = store.create("first"), store.create("second")
    redis.hset(keys.key(first[13:25]), mapping={"created": 86_400, "last_used": 172_800})
    store.revoke(second[13:25])
    lines = run("keys", "list").output.splitlines()
    assert lines[0] == f"{first[13:25]}  active   created 1970-01-02  last used 1970-01-03  first"
    assert re.fullmatch(
        rf"{second[13:25]}  revoked  created \d{{4}}-\d\d-\d\d  last used never  second", lines[1]
    )
    assert len(lines) == 2
    assert first[26:] not in "".join(lines)


@pytest.mark.parametrize("how", ["public id", "whole key"])
def test_a_revoked_key_is_refused(run, store, how):
    key = store.create("one")
    result = run("keys", "revoke", key if how == "whole key" else key[13:25])
    assert (result.exit_code, result.output) == (0, f"revoked {key[13:25]}\n")
    with pytest.raises(AuthenticationFailed):
        store.verify(key)


@pytest.mark.parametrize("name", ["000000000000", "nobody", "", "mk_inference_000000000000_x"])
def test_revoking_an_unknown_key_says_so(run, name, redis):
    result = run("keys", "revoke", name)
    assert result.exit_code == 1
    assert "Error: there is no key" in result.output
    assert redis.keys() == []


def test_a_good_configuration_is_told_with_its_providers(run):
    result = run("check-config")
    assert result.exit_code == 0
    assert re.match(r"Redis \d+\.\d+\.\d+ answers\. Providers configured: ", result.output)
    assert re.search(r"\bopenai, anthropic\b.*\bdemo\b", result.output)
    assert "groq" not in result.output


@pytest.fixture
def without_redis(make_client, settings, tmp_path):
    absent = dataclasses.replace(settings, redis_url=f"unix://:hidden@{tmp_path}/absent.sock")
    runner = make_client(absent).application.test_cli_runner()
    return lambda *words: runner.invoke(args=words)


def test_a_check_without_redis_fails(without_redis):
    result = without_redis("check-config")
    assert result.exit_code == 1
    assert result.output == "Error: Redis does not answer (ConnectionError)\n"


@pytest.mark.parametrize("words", [("create", "one"), ("list",), ("revoke", "0" * 12)])
def test_a_command_without_redis_says_so_in_one_line(without_redis, words):
    result = without_redis("keys", *words)
    assert result.exit_code == 1
    assert result.output.startswith("Error: Redis does not answer")
    assert "hidden" not in result.output


@pytest.mark.parametrize(
    ("info", "code"),
    [
        ({"redis_version": "6.2.14"}, 1),
        ({"redis_version": "7.0.0"}, 0),
        ({"redis_version": "10.1.0"}, 0),
        ({"redis_version": "6.9.9", "valkey_version": "9.1.0"}, 0),
    ],
)
def test_a_redis_too_old_is_refused(run, monkeypatch, info, code):
    monkeypatch.setattr("redis.Redis.info", lambda self, section: info)
    result = run("check-config")
    assert result.exit_code == code
    assert ("too old" in result.output) == bool(code)
