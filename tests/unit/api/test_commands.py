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


def providers(make_client, settings):
    result = make_client(settings).application.test_cli_runner().invoke(args=["check-config"])
    assert result.exit_code == 0
    match = re.fullmatch(
        r"Redis \d+\.\d+\.\d+ answers\. Providers configured: (.*)\.\n", result.output
    )
    assert match
    return match[1].split(", ")


def test_providers_with_a_key_and_the_demo_models_where_they_are_on_are_configured(
    make_client, settings
):
    assert providers(make_client, settings) == ["openai", "anthropic", "demo"]
    off = dataclasses.replace(settings, demo_models=False)
    assert providers(make_client, off) == ["openai", "anthropic"]


def test_a_provider_without_a_key_is_configured_once_its_address_is_set(make_client, settings):
    url = "http://127.0.0.1:9/v1"
    local = dataclasses.replace(settings, demo_models=False, variables={"OLLAMA_BASE_URL": url})
    assert providers(make_client, local) == ["ollama"]
    none = dataclasses.replace(settings, demo_models=False, variables={})
    assert providers(make_client, none) == ["none"]


def test_a_provider_of_the_operator_s_file_is_configured_by_the_address_in_it(
    make_client, settings, tmp_path
):
    file = tmp_path / "models.toml"
    file.write_text(
        '[providers.house]\nwire = "openai"\nbase_url = "http://127.0.0.1:9/v1"\n'
        '[models."house/*"]\nprovider = "house"\n'
    )
    own = dataclasses.replace(settings, models_file=str(file), variables={}, demo_models=False)
    assert providers(make_client, own) == ["house"]


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


@pytest.fixture
def evicting(redis):
    redis.config_set("maxmemory-policy", "allkeys-lru")
    yield
    redis.config_set("maxmemory-policy", "noeviction")


def test_a_redis_that_deletes_keys_when_it_is_full_is_refused(run, evicting):
    result = run("check-config")
    assert result.exit_code == 1
    assert "maxmemory-policy is allkeys-lru and must be noeviction" in result.output


def test_a_redis_that_keeps_its_policy_to_itself_is_no_failure(run, monkeypatch):
    monkeypatch.setattr("redis.Redis.info", lambda self, section: {"redis_version": "7.4.0"})
    result = run("check-config")
    assert result.exit_code == 0
    assert "does not report its maxmemory-policy" in result.output


def test_a_database_that_redis_does_not_have_is_named(make_client, settings):
    missing = dataclasses.replace(settings, redis_url=f"{settings.redis_url}?db=999")
    result = make_client(missing).application.test_cli_runner().invoke(args=["check-config"])
    assert result.exit_code == 1
    assert re.match("Error: Redis .*index", result.output)
