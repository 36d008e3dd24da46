"""api/commands.py: `flask keys`, `flask owners` and `flask check-config`."""

from __future__ import annotations

import dataclasses
import json
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
    assert lines[0] == f"{first[13:25]}  active    created 1970-01-02  last used 1970-01-03  first"
    assert re.fullmatch(
        rf"{second[13:25]}  revoked   created \d{{4}}-\d\d-\d\d  last used never  second", lines[1]
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


def test_revoking_twice_is_no_error(run, store):
    key = store.create("one")
    assert run("keys", "revoke", key).output == run("keys", "revoke", key).output


def created(result):
    assert result.exit_code == 0, result.output
    return result.output.splitlines()[-1]


ALL = {
    "--owner": ("team-a", "owner", "team-a"),
    "--model": ("openai/*", "models", ("openai/*",)),
    "--priority": ("batch", "priority", "batch"),
    "--weight": ("3", "weight", 3),
    "--cache": ("1h", "cache_seconds", 3_600),
    "--retry": ("on", "retry_on_worker_loss", True),
    "--expires": ("2100-01-01T00:00:00Z", "expires", 4_102_444_800),
    "--limit": ("$25.50", "limit", 25_500_000_000),
    "--limit-unit": ("usd", "limit_unit", "usd"),
    "--limit-reset": ("monthly", "limit_reset", "monthly"),
    "--limit-extra": ("1", "limit_extra", 1_000_000_000),
    "--limit-extra-until": ("2100-01-01T00:00:00Z", "limit_extra_until", 4_102_444_800),
    "--rpm": ("60", "rpm", 60),
    "--tpm": ("1.5m", "tpm", 1_500_000),
    "--max-in-flight": ("4", "max_in_flight", 4),
    "--max-waiting": ("0", "max_waiting", 0),
    "--alert": ("0.8", "alerts", (0.8,)),
    "--metadata": ("team=search", "metadata", {"team": "search"}),
}
WORDS = [word for option, (text, _, _) in ALL.items() for word in (option, text)]


@pytest.mark.parametrize("command", ["create", "set"])
def test_every_field_of_a_key_has_an_option(run, store, command):
    assert run("owners", "create", "team-a").output == "created team-a\n"
    if command == "create":
        key = created(run("keys", "create", "one", *WORDS))
    else:
        key = store.create("one")
        assert created(run("keys", "set", key[13:25], *WORDS)) == f"changed {key[13:25]}"
    record = store.verify(key)
    for _, name, value in ALL.values():
        assert getattr(record, name) == value, name


def test_none_takes_a_limit_away(run, store):
    key = store.create("one", rpm=5, limit=5, limit_reset="daily", models=("a",), alerts=(0.5,))
    words = ("--rpm", "none", "--limit", "none", "--limit-reset", "none", "--alert", "none")
    created(run("keys", "set", key, *words, "--model", "none"))
    record = store.get(key[13:25])
    assert (record.rpm, record.limit, record.limit_reset, record.alerts) == (None, None, "", ())
    assert record.models == ()
    created(run("keys", "set", key, "--model", "all"))
    assert store.get(key[13:25]).models is None


def test_a_time_from_now_has_a_unit(run, store):
    key = created(run("keys", "create", "one", "--expires", "30d"))
    record = store.get(key[13:25])
    assert 0 <= record.expires - record.created - 30 * 86_400 < 60


def test_tokens_are_counted_in_thousands_and_millions(run, store):
    key = created(run("keys", "create", "one", "--limit", "10m", "--limit-unit", "tokens"))
    assert store.get(key[13:25]).limit == 10_000_000


def test_a_key_is_disabled_renamed_and_enabled(run, store):
    key = store.create("one")
    created(run("keys", "set", key, "--disable", "--name", "two"))
    assert re.match(r"\S+  disabled  created .*  two$", run("keys", "list").output)
    created(run("keys", "set", key, "--enable"))
    assert store.verify(key).name == "two"


def test_an_operator_key_is_shown_as_one(run, store):
    key = created(run("keys", "create", "--operator", "boss"))
    assert store.verify(key).operator
    assert run("keys", "list").output.endswith("boss (operator)\n")


def test_a_rotation_prints_the_new_key_on_the_last_line(run, store, redis, settings):
    old = store.create("one")
    result = run("keys", "rotate", old[13:25], "--grace", "2h")
    assert re.match(r"The secret before it is valid until \S+Z\.\n", result.output)
    assert store.verify(created(result)) and store.verify(old)
    new = created(run("keys", "rotate", old[13:25], "--grace", "0"))
    fresh = KeyStore(redis, settings.key_pepper)
    with pytest.raises(AuthenticationFailed):
        fresh.verify(old)
    assert fresh.verify(new)


def test_a_key_and_an_owner_are_shown_with_what_is_left(run, store):
    run("owners", "create", "team-a", "--limit", "5", "--name", "Team A")
    key = created(run("keys", "create", "one", "--owner", "team-a", "--limit", "2"))
    shown = dict(line.split(None, 1) for line in run("keys", "show", key).output.splitlines())
    assert shown.items() >= {"name": "one", "owner": "team-a", "limit_remaining": "2.0"}.items()
    assert "disabled" in shown and "expires_at" not in shown
    assert key[26:] not in str(shown)
    shown = dict(
        line.split(None, 1) for line in run("owners", "show", "team-a").output.splitlines()
    )
    assert shown.items() >= {"id": "team-a", "name": "Team A", "limit_remaining": "5.0"}.items()


def test_owners_are_changed_listed_and_deleted(run, store):
    run("owners", "create", "team-a", "--share-cache")
    created(run("owners", "set", "team-a", "--disable", "--rpm", "5", "--no-share-cache"))
    assert re.fullmatch(
        r"team-a  disabled  created [\d-]{10}  team-a\n", run("owners", "list").output
    )
    created(run("owners", "set", "team-a", "--name", "Team A"))
    assert run("owners", "list").output.endswith("  Team A\n")
    key = store.create("one", owner="team-a")
    refused = run("owners", "delete", "team-a")
    assert (refused.exit_code, "This owner has 1 API keys" in refused.output) == (1, True)
    store.revoke(key[13:25])
    assert created(run("owners", "delete", "team-a")) == "deleted team-a"
    assert run("owners", "list").output == ""


@pytest.mark.parametrize(
    "words",
    [
        ("keys", "show", "nobody"),
        ("keys", "set", "nobody", "--rpm", "1"),
        ("keys", "rotate", "nobody"),
        ("owners", "show", "nobody"),
        ("owners", "set", "nobody", "--rpm", "1"),
        ("owners", "delete", "nobody"),
    ],
)
def test_what_is_not_there_is_named(run, redis, words):
    result = run(*words)
    assert result.exit_code == 1
    assert re.match("Error: [Tt]here is no (such )?(key|owner)", result.output)
    assert redis.keys() == []


@pytest.mark.parametrize(
    ("words", "text"),
    [
        (("--rpm", "0"), "Invalid 'requests_per_minute': integer below minimum value"),
        (("--rpm", "many"), "'many' is no number"),
        (("--limit", "-1"), "'-1' is no number"),
        (("--expires", "tomorrow"), "'tomorrow' is neither a time such as 30d nor"),
        (("--expires", "99999999w"), "'99999999w' is neither a time such as 30d nor"),
        (("--cache", "60"), "'60' is no time such as 15m"),
        (("--metadata", "team"), "'team' is no pair"),
        (("--priority", "high"), "'high' is not one of"),
        (("--owner", "nobody"), "there is no such owner"),
        (("--limit", "1.5", "--limit-unit", "tokens"), "expected a whole number of tokens"),
    ],
)
def test_what_cannot_hold_is_refused_in_a_line(run, redis, words, text):
    result = run("keys", "create", "one", *words)
    assert result.exit_code in (1, 2)
    assert text in result.output
    assert redis.keys() == []


def test_there_is_one_owner_of_an_id(run):
    run("owners", "create", "team-a")
    result = run("owners", "create", "team-a")
    assert (result.exit_code, result.output) == (1, "Error: There is an owner with this id.\n")


def test_commands_are_in_the_audit_log_as_such(run, redis):
    run("owners", "create", "team-a")
    run("keys", "create", "one")
    entries = [json.loads(fields[b"entry"]) for _, fields in redis.xrange(keys.AUDIT)]
    assert [entry["action"] for entry in entries] == ["owner.created", "key.created"]
    assert {entry["actor"] for entry in entries} == {"command line"}


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


@pytest.fixture
def hooks(make_client, settings):
    hosts = dataclasses.replace(settings, webhook_hosts=("hooks.example.com",))
    runner = make_client(hosts).application.test_cli_runner()
    return lambda *words: runner.invoke(args=words)


def test_a_webhook_gets_a_secret_and_a_test_event(hooks, store, redis):
    created = hooks("keys", "create", "a", "--webhook", "https://hooks.example.com/")
    lines = created.output.splitlines()
    assert lines[1].startswith("whsec_")
    id = store.verify(lines[-1]).public_id
    assert "whsec_" not in hooks("keys", "show", id).output
    assert hooks("webhooks", "test", id).output == "queued an event of type webhook.test\n"
    assert redis.zcard(keys.webhooks(id)) == 1
    assert hooks("keys", "set", id, "--webhook", "none").output == f"changed {id}\n"
    result = hooks("webhooks", "test", id)
    assert (result.exit_code, result.output) == (1, f"Error: key {id} has no webhook\n")


def test_a_webhook_to_a_host_that_is_not_listed_is_refused(hooks):
    result = hooks("keys", "create", "a", "--webhook", "https://other.example.com/")
    assert result.exit_code == 1 and "WEBHOOK_HOSTS" in result.output
