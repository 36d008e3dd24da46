"""The service's configuration: the only reader of the environment."""

from __future__ import annotations

import dataclasses
import logging
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import parse_qs, urlsplit

from gateway import VERSION
from gateway.timeouts import Timeouts

log = logging.getLogger(__name__)

PEPPER_LENGTH = 32  # characters
ADMIN_KEY_LENGTH = 200  # characters at most: it goes into a header
# Old name of a variable -> its name. Old names are read for one release.
RENAMED = {"UPSTREAM_SILENCE_SECONDS": "UPSTREAM_BETWEEN_TOKENS_SECONDS"}
# A name, an IPv4 address or an IPv6 address in brackets; and maybe a port.
HOST = re.compile(r"(\[[0-9a-f:.]+\]|[a-z0-9_-]+(\.[a-z0-9_-]+)*)(:[1-9][0-9]{0,4})?")
# Values of OTEL_INSTRUMENTATION_GENAI_CAPTURE_MESSAGE_CONTENT that put content into spans.
CAPTURING = ("1", "true", "span_only", "span_and_event")
REDIS_PREFIX = re.compile(r"[\w.:-]{0,40}", re.ASCII)


class ConfigurationError(Exception):
    """Raised when the environment cannot be a working configuration; it says what to do."""


def setting(variable: str, default: Any, doc: str, *, secret: bool = False) -> Any:
    """A field of `Settings` and the environment variable that fills it."""
    metadata = {"variable": variable, "doc": doc}
    return field(default=default, repr=not secret, metadata=metadata)


@dataclass(frozen=True, slots=True)
class Settings:
    """Everything that can be configured; built once a process and passed on by argument.

    Times are in seconds, sizes in bytes.
    """

    key_pepper: str = setting(
        "KEY_PEPPER",
        "",
        "Required. Secret of at least 32 characters; API keys are hashed with it.",
        secret=True,
    )
    key_pepper_old: str = setting(
        "KEY_PEPPER_OLD",
        "",
        "The value that `KEY_PEPPER` had before. API keys that are hashed with it stay valid, and "
        "are hashed anew when they are used.",
        secret=True,
    )
    admin_key: str = setting(
        "ADMIN_KEY",
        "",
        "Secret of at least 32 characters that is an operator key, to create the first one. Unset "
        "it when there is another. It calls no model.",
        secret=True,
    )
    redis_url: str = setting(
        "REDIS_URL",
        "redis://127.0.0.1:6379/0",
        "Address of Redis. `REDIS_TLS_URL` takes precedence.",
        secret=True,
    )
    redis_prefix: str = setting(
        "REDIS_PREFIX",
        "",
        "Beginning of the names of all Redis keys and of RQ's queue. Services that share a Redis "
        "need different ones, for instance `staging:`.",
    )
    redis_connections: int = setting(
        "REDIS_CONNECTIONS", 8, "Maximum number of Redis connections of a process. At least 4."
    )
    redis_verify_tls: bool = setting(
        "REDIS_VERIFY_TLS",
        False,
        "Verify the certificate of a `rediss://` server. Heroku's certificates are self-signed.",
    )
    database_url: str = setting(
        "DATABASE_URL",
        "",
        "Database of the account: `postgres://...`, or `sqlite:////FILE`. Without it, Redis keeps "
        "the account: the last 10,000 records of calls, and sums for 400 days.",
        secret=True,
    )
    record_days: int = setting(
        "RECORD_DAYS",
        62,
        "Number of days that the record of a call is kept. Sums by the hour and by the day stay in "
        "the database.",
    )
    files_url: str = setting(
        "FILES_URL",
        "",
        "Where files and batches are stored: `file:///FOLDER`, which all processes share, or "
        "`s3://BUCKET/PREFIX`. Without it, their endpoints answer 503.",
    )
    files_bytes_per_key: int = setting(
        "FILES_BYTES_PER_KEY",
        10_000_000_000,
        "Maximum size of all files of an API key together. Further uploads are refused. Results of "
        "its batches count, and are never refused.",
    )
    files_per_key: int = setting(
        "FILES_PER_KEY", 10_000, "Maximum number of files of an API key, counted in the same way."
    )
    batch_concurrency: int = setting(
        "BATCH_CONCURRENCY",
        100,
        "Maximum number of lines of batches that run at once. One batch gets seven eighths of "
        "them, and less while others have lines.",
    )
    models_file: str = setting(
        "MODELS_FILE", "", "TOML file that extends or replaces the catalogue."
    )
    retired_models: str = setting(
        "RETIRED_MODELS",
        "refuse",
        "Calls for a model that its provider has shut down: `refuse` them with 404, or "
        "let the `successor` answer.",
    )
    demo_models: bool = setting(
        "DEMO_MODELS", False, "Serve the `demo/*` models, which need no provider."
    )
    public_url: str = setting(
        "PUBLIC_URL",
        "",
        "Address at which callers reach the service, such as `https://inference.example.com`. "
        "Links in responses (`Location`, `results_url` of message batches) begin with it. Without "
        "it, they are paths.",
    )
    cors_allow_origins: tuple[str, ...] = setting(
        "CORS_ALLOW_ORIGINS",
        (),
        "Origins whose pages may call the service, separated by commas. `*` allows all.",
    )
    webhook_hosts: tuple[str, ...] = setting(
        "WEBHOOK_HOSTS",
        (),
        "Hosts that may receive webhooks, separated by commas. `hooks.example.com` allows "
        "`https://hooks.example.com/...` at public addresses. With a port, as in `10.0.0.7:8080`, "
        "`http` and private addresses are allowed too. Without any, there are no webhooks.",
    )
    total_timeout: float = setting("TOTAL_DEADLINE_SECONDS", 600.0, "Maximum duration of a call.")
    queue_limit: int = setting(
        "QUEUE_LIMIT",
        10_000,
        "Maximum number of waiting calls, with those that wait for their key's calls in flight.",
    )
    queue_bytes: int = setting(
        "QUEUE_BYTES", 256_000_000, "Maximum size of all waiting request bodies together."
    )
    records_backlog: int = setting(
        "RECORDS_BACKLOG",
        100_000,
        "Maximum number of records of ended calls that wait to be written to the ledger. Further "
        "calls are refused with 503, so that no record is lost.",
    )
    cache_bytes: int = setting(
        "CACHE_BYTES",
        64_000_000,
        "Maximum size of all responses that Redis keeps for callers who want that (`X-Cache: on`). "
        "`0` keeps none.",
    )
    max_in_flight: int = setting(
        "WEB_MAX_IN_FLIGHT",
        1_500,
        "Maximum number of calls that one web process holds. One API key gets seven eighths of "
        "them, and less while others have calls. Keep it below gunicorn's 4,000 connections.",
    )
    max_body_bytes: int = setting("MAX_BODY_BYTES", 20_000_000, "Maximum size of a request body.")
    web_body_bytes: int = setting(
        "WEB_BODY_BYTES",
        256_000_000,
        "Maximum size of all request bodies over 64 kB that one web process holds. One API key "
        "gets half of it.",
    )
    body_timeout: float = setting(
        "BODY_TIMEOUT_SECONDS",
        20.0,
        "Maximum time for a request body to arrive, and a second more for each 20 kB of it.",
    )
    stream_replay_seconds: int = setting(
        "STREAM_REPLAY_SECONDS",
        600,
        "Time after its end for which a stream with `X-Resumable: true` can be read again.",
    )
    result_hours: int = setting(
        "RESULT_HOURS",
        24,
        "Number of hours that Redis keeps the response of a call whose client did not wait for it.",
    )
    sync_heartbeat: float = setting(
        "SYNC_HEARTBEAT_SECONDS",
        20.0,
        "Silence after which an unstreamed response starts with blanks, so that proxies "
        "keep the connection. `0` disables it.",
    )
    no_workers_after: float = setting(
        "NO_WORKERS_SECONDS",
        30.0,
        "Time after which a queued call fails if no worker is alive.",
    )
    worker_concurrency: int = setting(
        "WORKER_CONCURRENCY", 1_000, "Number of calls that one worker process runs at once."
    )
    connect_timeout: float = setting(
        "UPSTREAM_CONNECT_SECONDS", 5.0, "Timeout for a connection to a provider."
    )
    first_byte_timeout: float = setting(
        "UPSTREAM_FIRST_BYTE_SECONDS", 300.0, "Timeout for the first byte of a provider's response."
    )
    first_token_timeout: float = setting(
        "UPSTREAM_FIRST_TOKEN_SECONDS", 300.0, "Timeout for the first token of a stream."
    )
    fallback_first_token_timeout: float = setting(
        "FALLBACK_FIRST_TOKEN_SECONDS",
        10.0,
        "Timeout for the first token of a stream, retries included, if a fallback can answer.",
    )
    between_tokens_timeout: float = setting(
        "UPSTREAM_BETWEEN_TOKENS_SECONDS",
        300.0,
        "Timeout between two pieces of a provider's response.",
    )
    upstream_retries: int = setting(
        "UPSTREAM_RETRIES",
        2,
        "Number of retries after a failure that the provider cannot have acted on.",
    )
    breaker_failures: int = setting(
        "BREAKER_FAILURES",
        5,
        "Number of consecutive failures after which calls go to a fallback at once.",
    )
    breaker_cooldown: float = setting(
        "BREAKER_COOLDOWN_SECONDS", 10.0, "Time until one call tries a failed model again."
    )
    upstream_proxy: str = setting(
        "UPSTREAM_PROXY", "", "HTTP proxy for provider calls.", secret=True
    )
    upstream_ca_bundle: str = setting(
        "UPSTREAM_CA_BUNDLE", "", "CA file that replaces the bundled one."
    )
    response_bytes: int = setting(
        "RESPONSE_BYTES",
        0,
        "Maximum size of all unstreamed responses over 64 kB that one worker has read and that are "
        "not delivered yet. Redis needs up to four times as much for a moment, of calls with a "
        "log six times. Further ones wait unread. `0`: a tenth of Redis' `maxmemory`, from 1 to "
        "256 MB; 36 MB without one.",
    )
    drain_seconds: float = setting(
        "DRAIN_SECONDS", 25.0, "Time that running calls get to end after SIGTERM."
    )
    metrics_token: str = setting(
        "METRICS_TOKEN",
        "",
        "Secret of at least 32 characters with which Prometheus reads `/metrics` "
        "(`Authorization: Bearer ...`). Operator keys can read it as well.",
        secret=True,
    )
    metrics_by_key: bool = setting(
        "METRICS_BY_KEY",
        False,
        "Show calls, tokens and costs by API key in `/metrics` as well, and budgets of keys and "
        "owners. Each key makes a dozen series, which stay after it was revoked.",
    )
    otlp_endpoint: str = setting(
        "OTEL_EXPORTER_OTLP_ENDPOINT",
        "",
        "OpenTelemetry collector that traces are sent to over HTTP, such as "
        "`http://127.0.0.1:4318`. Needs `requirements-otel.txt`. OpenTelemetry's other variables "
        "for exporters, samplers and resources hold too.",
    )
    capture_content: str = setting(
        "OTEL_INSTRUMENTATION_GENAI_CAPTURE_MESSAGE_CONTENT",
        "",
        "`true` puts prompts and responses into traces.",
    )
    log_level: str = setting("LOG_LEVEL", "INFO", "`DEBUG`, `INFO`, `WARNING` or `ERROR`.")
    log_format: str = setting(
        "LOG_FORMAT", "text", "Lines of the log: `text`, or `json` for one object a line."
    )
    release: str = setting(
        "RELEASE",
        VERSION,
        "Name of what is deployed, such as a commit, for `flask doctor` and Sentry. "
        "`HEROKU_SLUG_COMMIT` stands in for it.",
    )
    sentry_dsn: str = setting(
        "SENTRY_DSN",
        "",
        "Project of Sentry that errors are reported to, without prompts, answers, keys and "
        "values of variables. Needs `requirements-sentry.txt`.",
        secret=True,
    )
    variables: Mapping[str, str] = field(default_factory=dict, repr=False)

    @classmethod
    def from_env(cls, environ: Mapping[str, str] = os.environ) -> Settings:
        """Read and check the environment.

        Raises ConfigurationError, naming the variable, for a value that cannot be used and for a
        missing or short KEY_PEPPER.
        """
        environ = _with_new_names(environ)
        values: dict[str, Any] = {"variables": dict(environ)}
        for item in dataclasses.fields(cls):
            text = environ.get(item.metadata.get("variable", ""), "").strip()
            if text:
                values[item.name] = _parse(item.metadata["variable"], text, item.default)
        tls_url = environ.get("REDIS_TLS_URL", "").strip()
        if tls_url:
            values["redis_url"] = tls_url
        if commit := environ.get("HEROKU_SLUG_COMMIT", "").strip():
            values.setdefault("release", commit)
        settings = cls(**values)
        _check_database_url(settings.database_url)
        _check_redis_url("REDIS_TLS_URL" if tls_url else "REDIS_URL", settings.redis_url)
        settings._check()
        return settings

    @property
    def captures_content(self) -> bool:
        """Whether traces have prompts and responses."""
        return self.capture_content.lower() in CAPTURING

    @property
    def timeouts(self) -> Timeouts:
        """The timeouts of calls whose model has none of its own."""
        return Timeouts(
            connect=self.connect_timeout,
            first_byte=self.first_byte_timeout,
            first_token=self.first_token_timeout,
            between_tokens=self.between_tokens_timeout,
            total=self.total_timeout,
        )

    def variable(self, name: str) -> str:
        """An environment variable that the catalogue names (a key or base URL), or ""."""
        return self.variables.get(name, "").strip()

    def _check(self) -> None:
        if len(self.key_pepper) < PEPPER_LENGTH:
            raise ConfigurationError(
                f"KEY_PEPPER must be set to {PEPPER_LENGTH} characters or more, for instance by "
                "python -c 'import secrets; print(secrets.token_urlsafe(48))'"
            )
        if self.admin_key and not PEPPER_LENGTH <= len(self.admin_key) <= ADMIN_KEY_LENGTH:
            raise ConfigurationError(
                f"ADMIN_KEY must have {PEPPER_LENGTH} to {ADMIN_KEY_LENGTH} characters"
            )
        if self.metrics_token and not PEPPER_LENGTH <= len(self.metrics_token) <= ADMIN_KEY_LENGTH:
            raise ConfigurationError(
                f"METRICS_TOKEN must have {PEPPER_LENGTH} to {ADMIN_KEY_LENGTH} characters"
            )
        if self.log_level not in ("DEBUG", "INFO", "WARNING", "ERROR"):
            raise ConfigurationError("LOG_LEVEL must be DEBUG, INFO, WARNING or ERROR")
        if self.log_format not in ("text", "json"):
            raise ConfigurationError("LOG_FORMAT must be text or json")
        if self.retired_models not in ("refuse", "successor"):
            raise ConfigurationError("RETIRED_MODELS must be refuse or successor")
        if self.upstream_proxy and not is_http_url(self.upstream_proxy):
            # Not quoted: it may hold a password.
            raise ConfigurationError("UPSTREAM_PROXY must be a URL such as http://HOST:PORT")
        if self.files_url and not _is_storage_url(self.files_url):
            raise ConfigurationError("FILES_URL must be file:///FOLDER or s3://BUCKET/PREFIX")
        if self.public_url and not _is_public_url(self.public_url):
            raise ConfigurationError(
                "PUBLIC_URL must be a URL such as https://HOST, without a ? or #"
            )
        for origin in self.cors_allow_origins:
            if origin != "*" and not _is_origin(origin):
                raise ConfigurationError(
                    "CORS_ALLOW_ORIGINS must list origins such as https://app.example.com, with a "
                    f"scheme and without a path, and has {origin!r}"
                )
        for host in self.webhook_hosts:
            if not HOST.fullmatch(host.lower()):
                raise ConfigurationError(
                    "WEBHOOK_HOSTS must list hosts such as hooks.example.com or 10.0.0.7:8080, "
                    f"without a scheme or a path, and has {host!r}"
                )
        if self.otlp_endpoint and not is_http_url(self.otlp_endpoint):
            raise ConfigurationError(
                "OTEL_EXPORTER_OTLP_ENDPOINT must be a URL such as http://127.0.0.1:4318"
            )
        if not REDIS_PREFIX.fullmatch(self.redis_prefix):
            raise ConfigurationError(
                "REDIS_PREFIX must have at most 40 of the characters A-Z, a-z, 0-9, _, -, . and :"
            )
        if self.redis_connections < 4:
            raise ConfigurationError("REDIS_CONNECTIONS must be 4 or more")
        for variable, count in {
            "WORKER_CONCURRENCY": self.worker_concurrency,
            "BREAKER_FAILURES": self.breaker_failures,
            "RECORD_DAYS": self.record_days,
            "BATCH_CONCURRENCY": self.batch_concurrency,
            "FILES_BYTES_PER_KEY": self.files_bytes_per_key,
            "FILES_PER_KEY": self.files_per_key,
            "RESULT_HOURS": self.result_hours,
            "STREAM_REPLAY_SECONDS": self.stream_replay_seconds,
        }.items():
            if count < 1:
                raise ConfigurationError(f"{variable} must be 1 or more")
        for variable, seconds in self._waits().items():
            if not seconds:
                raise ConfigurationError(f"{variable} must be more than 0")

    def _waits(self) -> dict[str, float]:
        """The timeouts that bound a call; none may be left out."""
        return {
            "TOTAL_DEADLINE_SECONDS": self.total_timeout,
            "UPSTREAM_CONNECT_SECONDS": self.connect_timeout,
            "UPSTREAM_FIRST_BYTE_SECONDS": self.first_byte_timeout,
            "UPSTREAM_FIRST_TOKEN_SECONDS": self.first_token_timeout,
            "FALLBACK_FIRST_TOKEN_SECONDS": self.fallback_first_token_timeout,
            "UPSTREAM_BETWEEN_TOKENS_SECONDS": self.between_tokens_timeout,
        }


def is_http_url(text: str) -> bool:
    """Whether `text` is an http or https URL with a host and, where it names one, a valid port."""
    try:
        url = urlsplit(text)
        return url.scheme in ("http", "https") and bool(url.hostname) and url.port != 0
    except ValueError:
        return False


def _is_public_url(text: str) -> bool:
    plain = re.fullmatch(r"[!-~]+", text) and not set("?#@\\").intersection(text)
    return bool(plain) and is_http_url(text)


def _is_origin(text: str) -> bool:
    scheme, separator, host = text.partition("://")
    return bool(scheme and separator and host) and not set("/?#@ ").intersection(host)


def _is_storage_url(text: str) -> bool:
    try:
        url = urlsplit(text)
    except ValueError:
        return False
    if url.query or url.fragment:
        return False
    in_folder = url.scheme == "file" and not url.netloc and len(url.path) > 1
    return in_folder or url.scheme == "s3" and bool(url.netloc)


def _check_redis_url(variable: str, text: str) -> None:
    # No message quotes the URL: it holds a password.
    if not text.startswith(("redis://", "rediss://", "unix://")):
        raise ConfigurationError(f"{variable} must start with redis://, rediss:// or unix://")
    try:
        url = urlsplit(text)
        port = url.port
    except ValueError:
        port = 0
    if port == 0:
        raise ConfigurationError(
            f"{variable} must have a port from 1 to 65535, and special characters of its password "
            "percent-encoded (/ as %2F): redis://:PASSWORD@HOST:6379/0"
        )
    databases = parse_qs(url.query).get("db", [])
    if url.scheme != "unix" and url.path.strip("/"):
        databases.append(url.path.strip("/"))
    if not all(database.isdecimal() for database in databases):
        raise ConfigurationError(
            f"{variable} must end in the number of a database, or in none: redis://HOST:6379/0"
        )


def _check_database_url(text: str) -> None:
    # Not quoted: it holds a password.
    if text and not text.startswith(("postgres://", "postgresql://", "sqlite:///")):
        raise ConfigurationError(
            "DATABASE_URL must start with postgres://, postgresql:// or sqlite:///"
        )


def _with_new_names(environ: Mapping[str, str]) -> Mapping[str, str]:
    """The environment with renamed variables under their new names; logs a warning for each."""
    renamed = {}
    for old, new in RENAMED.items():
        if environ.get(old, "").strip():
            log.warning("%s is now called %s: the next release ignores the old name", old, new)
            renamed[new] = environ.get(new, "").strip() or environ[old]
    return {**environ, **renamed}


TRUE, FALSE = ("1", "true", "yes", "on"), ("0", "false", "no", "off")


def _parse(variable: str, text: str, default: Any) -> Any:
    if isinstance(default, bool):
        if text.lower() in TRUE + FALSE:
            return text.lower() in TRUE
        raise ConfigurationError(f"{variable} must be 1 or 0, and is {text!r}")
    if isinstance(default, tuple):
        return tuple(part.strip() for part in text.split(",") if part.strip())
    if isinstance(default, str):
        return text
    try:
        number = type(default)(text)
    except ValueError:
        kind = "a whole number" if isinstance(default, int) else "a number"
        raise ConfigurationError(f"{variable} must be {kind}, and is {text!r}") from None
    if not 0 <= number < float("inf"):
        raise ConfigurationError(f"{variable} must be 0 or more, and is {text!r}")
    return number
