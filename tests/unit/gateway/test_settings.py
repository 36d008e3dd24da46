"""gateway/settings.py: what the environment may say, and how it is told what it may not."""

from __future__ import annotations

import dataclasses

import pytest

from gateway.settings import PEPPER_LENGTH, ConfigurationError, Settings
from gateway.timeouts import Timeouts

PEPPER = {"KEY_PEPPER": "a-pepper-of-forty-characters-or-a-few-more"}


def read(**variables):
    return Settings.from_env({**PEPPER, **variables})


def variables():
    return [
        item.metadata["variable"]
        for item in dataclasses.fields(Settings)
        if "variable" in item.metadata
    ]


def numbers():
    return [
        item.metadata["variable"]
        for item in dataclasses.fields(Settings)
        if type(item.default) in (int, float)
    ]


def test_a_pepper_is_all_that_must_be_set():
    assert read() == Settings(key_pepper=PEPPER["KEY_PEPPER"], variables=PEPPER)


@pytest.mark.parametrize("pepper", ["", "   ", "p" * (PEPPER_LENGTH - 1)])
def test_a_short_or_missing_pepper_is_refused_with_a_way_to_make_one(pepper):
    with pytest.raises(ConfigurationError, match=r"^KEY_PEPPER .*token_urlsafe") as caught:
        Settings.from_env({"KEY_PEPPER": pepper} if pepper else {})
    assert "ppp" not in str(caught.value)


def test_a_short_admin_key_is_refused():
    with pytest.raises(
        ConfigurationError, match="^ADMIN_KEY must have 32 to 200 characters"
    ) as caught:
        read(ADMIN_KEY="a" * 31)
    assert "aaa" not in str(caught.value)
    assert read(ADMIN_KEY="a" * 32).admin_key == "a" * 32


@pytest.mark.parametrize(
    ("variable", "text", "name", "value"),
    [
        ("REDIS_URL", "redis://r:1/2", "redis_url", "redis://r:1/2"),
        ("TOTAL_DEADLINE_SECONDS", "30", "total_timeout", 30.0),
        ("SYNC_HEARTBEAT_SECONDS", "0", "sync_heartbeat", 0.0),
        ("QUEUE_LIMIT", "5", "queue_limit", 5),
        ("DEMO_MODELS", "1", "demo_models", True),
        ("DEMO_MODELS", "Yes", "demo_models", True),
        ("DEMO_MODELS", "off", "demo_models", False),
        ("REDIS_VERIFY_TLS", " true ", "redis_verify_tls", True),
        ("WEBHOOK_HOSTS", "a.example, [::1]:80", "webhook_hosts", ("a.example", "[::1]:80")),
        ("CORS_ALLOW_ORIGINS", "https://a, https://b,", "cors_allow_origins", ("https://a", "https://b")),
        ("LOG_LEVEL", "DEBUG", "log_level", "DEBUG"),
        ("REDIS_PREFIX", "staging:", "redis_prefix", "staging:"),
        ("DATABASE_URL", "postgres://u:p@h:5432/d", "database_url", "postgres://u:p@h:5432/d"),
        ("DATABASE_URL", "sqlite:////d/a.db", "database_url", "sqlite:////d/a.db"),
        ("RECORD_DAYS", "7", "record_days", 7),
        ("RETIRED_MODELS", "successor", "retired_models", "successor"),
    ],
)  # fmt: skip
def test_a_variable_fills_its_setting(variable, text, name, value):
    assert getattr(read(**{variable: text}), name) == value


@pytest.mark.parametrize("variable", variables())
def test_a_blank_variable_is_an_unset_one(variable):
    blank = Settings.from_env({variable: " ", **PEPPER})
    assert dataclasses.replace(blank, variables=PEPPER) == read()


@pytest.mark.parametrize("text", ["ten", "-1", "nan", "inf", "1e999", "1,5", "0x10"])
@pytest.mark.parametrize("variable", numbers())
def test_a_bad_number_names_its_variable_and_itself(variable, text):
    with pytest.raises(ConfigurationError, match=f"^{variable} must be .*'{text}'$"):
        read(**{variable: text})


@pytest.mark.parametrize(
    ("variable", "text"),
    [
        ("DEMO_MODELS", "maybe"),
        ("REDIS_VERIFY_TLS", "2"),
        ("QUEUE_LIMIT", "1.5"),
        ("LOG_LEVEL", "loud"),
        ("RETIRED_MODELS", "yes"),
        ("REDIS_CONNECTIONS", "3"),
        ("WORKER_CONCURRENCY", "0"),
        ("BREAKER_FAILURES", "0"),
        ("TOTAL_DEADLINE_SECONDS", "0"),
        ("UPSTREAM_CONNECT_SECONDS", "0"),
        ("UPSTREAM_FIRST_BYTE_SECONDS", "0"),
        ("UPSTREAM_FIRST_TOKEN_SECONDS", "0.0"),
        ("FALLBACK_FIRST_TOKEN_SECONDS", "0"),
        ("UPSTREAM_BETWEEN_TOKENS_SECONDS", "0"),
    ],
)
def test_any_other_bad_value_names_its_variable(variable, text):
    with pytest.raises(ConfigurationError, match=f"^{variable} must be "):
        read(**{variable: text})


@pytest.mark.parametrize("url", ["http://r:1", "r:6379"])
@pytest.mark.parametrize("variable", ["REDIS_URL", "REDIS_TLS_URL"])
def test_an_address_that_is_not_redis_names_its_variable(variable, url):
    with pytest.raises(ConfigurationError, match=f"^{variable} "):
        read(**{variable: url})


@pytest.mark.parametrize(
    "url",
    ["redis://r:port", "redis://r:0", "redis://r:70000", "redis://:hidden/p@r:1", "redis://[r:1"],
)
@pytest.mark.parametrize("variable", ["REDIS_URL", "REDIS_TLS_URL"])
def test_a_redis_address_with_a_bad_port_names_its_variable_and_shows_no_password(variable, url):
    with pytest.raises(ConfigurationError, match=f"^{variable} must have a port") as caught:
        read(**{variable: url})
    assert "hidden" not in str(caught.value)


@pytest.mark.parametrize(
    "url", ["redis://r:1/zero", "redis://r/-1", "redis://r?db=x", "unix:///s?db=x"]
)
def test_a_redis_address_with_a_bad_database_names_its_variable(url):
    with pytest.raises(
        ConfigurationError, match=r"^REDIS_URL must end in the number of a database"
    ):
        read(REDIS_URL=url)


@pytest.mark.parametrize(
    "url",
    [
        "redis://r",
        "rediss://:p%2F@r:1/",
        "redis://[::1]:6379/15",
        "unix:///tmp/s?db=2",
        "redis://r?db=2",
    ],
)
def test_a_good_redis_address_is_taken_as_it_is(url):
    assert read(REDIS_URL=url).redis_url == url


@pytest.mark.parametrize(
    "url", ["proxy:hidden@h:3128", "//h", "socks5://h", "http://", "http://h:x"]
)
def test_a_proxy_that_is_no_url_is_refused_and_not_shown(url):
    with pytest.raises(ConfigurationError, match="^UPSTREAM_PROXY must be a URL") as caught:
        read(UPSTREAM_PROXY=url)
    assert "hidden" not in str(caught.value)


@pytest.mark.parametrize(
    "url", ["inference.example.com", "ftp://h", "https://h/?a=b", "https://h/#a", "https://u:p@h"]
)
def test_the_public_url_is_a_plain_url(url):
    with pytest.raises(ConfigurationError, match="^PUBLIC_URL must be a URL"):
        read(PUBLIC_URL=url)
    assert read(PUBLIC_URL="https://h:8443/sub").public_url == "https://h:8443/sub"


@pytest.mark.parametrize("origin", ["app.example.com", "https://a/", "https://a/x", "https://"])
def test_an_origin_without_a_scheme_or_with_a_path_is_named(origin):
    with pytest.raises(ConfigurationError, match=f"^CORS_ALLOW_ORIGINS .* has '{origin}'$"):
        read(CORS_ALLOW_ORIGINS=f"https://good.example:8443, {origin}")


def test_any_origin_and_those_of_apps_are_allowed():
    origins = ("*", "http://localhost:3000", "capacitor://localhost")
    assert read(CORS_ALLOW_ORIGINS=",".join(origins)).cors_allow_origins == origins


def test_the_tls_address_wins():
    urls = {"REDIS_URL": "redis://:p@r:1", "REDIS_TLS_URL": "rediss://:p@r:2"}
    assert read(**urls).redis_url == "rediss://:p@r:2"
    assert read(REDIS_TLS_URL=" ", REDIS_URL="redis://r:1").redis_url == "redis://r:1"


@pytest.mark.parametrize("url", ["mysql://u:hidden@h/d", "postgres", "sqlite://"])
def test_the_url_of_another_database_is_refused_and_not_quoted(url):
    with pytest.raises(ConfigurationError, match="^DATABASE_URL must start with") as caught:
        read(DATABASE_URL=url)
    assert "hidden" not in str(caught.value)


def test_secrets_are_not_shown():
    told = repr(
        read(
            DATABASE_URL="postgres://u:hidden@h/d",
            REDIS_URL="redis://:hidden@r:1",
            UPSTREAM_PROXY="http://u:hidden@proxy",
            OPENAI_API_KEY="sk-hidden",
            KEY_PEPPER_OLD="hidden" * 6,
            ADMIN_KEY="hidden" * 6,
        )
    )
    assert "hidden" not in told
    assert PEPPER["KEY_PEPPER"] not in told
    assert "queue_limit=10000" in told


def test_the_catalogue_s_variables_are_read_without_blanks():
    settings = read(OPENAI_API_KEY=" sk-1 \n")
    assert settings.variable("OPENAI_API_KEY") == "sk-1"
    assert settings.variable("GROQ_API_KEY") == ""


def test_settings_cannot_be_changed():
    with pytest.raises(dataclasses.FrozenInstanceError):
        read().queue_limit = 1


def test_every_setting_says_what_it_is_for():
    for item in dataclasses.fields(Settings):
        assert item.name == "variables" or item.metadata["doc"]
    assert len(set(variables())) == len(variables())


def test_a_renamed_variable_is_read_with_a_warning(caplog):
    settings = read(UPSTREAM_SILENCE_SECONDS="7")
    assert settings.between_tokens_timeout == 7
    assert "UPSTREAM_SILENCE_SECONDS is now called UPSTREAM_BETWEEN_TOKENS_SECONDS" in caplog.text
    both = read(UPSTREAM_SILENCE_SECONDS="7", UPSTREAM_BETWEEN_TOKENS_SECONDS="8")
    assert both.between_tokens_timeout == 8


def test_the_timeouts_of_a_call_are_settings():
    settings = read(UPSTREAM_CONNECT_SECONDS="3", TOTAL_DEADLINE_SECONDS="9")
    assert settings.timeouts == Timeouts(3, 300, 300, 300, 9)


def test_the_release_is_the_commit_where_the_platform_names_it():
    assert read(HEROKU_SLUG_COMMIT="3f2a91c").release == "3f2a91c"
    assert read(HEROKU_SLUG_COMMIT="3f2a91c", RELEASE="r7").release == "r7"


def test_lines_of_the_log_are_text_or_json():
    with pytest.raises(ConfigurationError, match="LOG_FORMAT must be text or json"):
        read(LOG_FORMAT="xml")


@pytest.mark.parametrize("host", ["https://a.example", "a.example/x", "a b", "a:0", "*.a.example"])
def test_webhook_hosts_are_hosts(host):
    with pytest.raises(ConfigurationError, match="^WEBHOOK_HOSTS must list hosts"):
        read(WEBHOOK_HOSTS=f"good.example:8443, {host}")
