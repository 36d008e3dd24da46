"""`flask doctor`: checks a deployment line by line, and says what to do."""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime

import click
from flask.cli import with_appcontext
from redis import Redis
from redis.exceptions import RedisError

from api.services import Services, services
from gateway.account.ledger import LedgerUnavailable
from gateway.catalogue import deprecation
from gateway.logs import mask
from gateway.queue import clients, keys, owner
from gateway.queue.health import look
from gateway.queue.lease import live_workers
from gateway.settings import ConfigurationError
from gateway.webhooks import allowing

PINGS = 9
SLOW_MS = 5.0  # of a round trip to Redis: each call takes four
CLOCK_SECONDS = 2.0
CONNECTIONS_SHARE = 0.8
PROVIDERS_SECONDS = 120.0  # for the calls to all providers
LATE_SECONDS = 60.0  # that a webhook may be due
STORAGE_NAME = "doctor"

OK, WARN, FAIL = "ok", "warn", "FAIL"


LOGGED_CALLS = "background, asynchronous, resumable and idempotent calls"


@dataclass(frozen=True, slots=True)
class Finding:
    """One line: what was looked at, what was found, and what to do about it."""

    state: str  # OK, WARN or FAIL
    subject: str
    text: str
    remedy: str = ""


Check = Callable[[Services, Redis], Iterator[Finding]]


@click.command("doctor")
@click.option("--offline", is_flag=True, help="Do not call providers.")
@with_appcontext
def doctor(offline: bool) -> None:
    """Check this deployment line by line and say what to do; exit code 1 if something fails."""
    parts = services()
    redis = clients.commands(parts.settings, 1)
    failed = False
    for finding in findings(parts, redis, offline):
        click.echo(mask(f"{finding.state:<4}  {finding.subject:<12} {finding.text}"))
        if finding.remedy:
            click.echo(f"{'':<19}-> {finding.remedy}")
        failed |= finding.state == FAIL
    if failed:
        raise click.exceptions.Exit(1)


def findings(parts: Services, redis: Redis, offline: bool) -> Iterator[Finding]:
    """Yield what all checks find; those that need Redis are left out if it does not answer."""
    yield from _settings(parts, redis)
    try:
        redis.ping()
    except RedisError as error:
        yield Finding(
            FAIL,
            "Redis",
            f"does not answer ({type(error).__name__})",
            "Check REDIS_URL, and that Redis runs and takes connections from here.",
        )
        checks: list[Check] = []
    else:
        checks = [_redis, _memory, _connections, _latency, _clock, _names, _workers, _queue, _keys]
        checks += [_database, _webhooks]
    checks += [_files, _models]
    if not offline:
        checks.append(_providers)
    for check in checks:
        try:
            yield from check(parts, redis)
        except RedisError as error:
            subject = check.__name__.strip("_")
            yield Finding(WARN, subject, f"could not be checked: Redis refuses ({error})")


def _settings(parts: Services, redis: Redis) -> Iterator[Finding]:
    # They have been checked by the time that there is an app.
    release = parts.settings.release
    yield Finding(OK, "settings", f"are valid; release {release}")
    if parts.settings.admin_key:
        yield Finding(
            WARN,
            "settings",
            "ADMIN_KEY is set",
            "Make an operator key (flask keys create --operator NAME), then unset it.",
        )
    ready = parts.catalogue.configured()
    if ready:
        yield Finding(OK, "providers", f"configured: {', '.join(ready)}")
    else:
        yield Finding(
            FAIL, "providers", "none is configured", "Set a provider's key, such as OPENAI_API_KEY."
        )


def _redis(parts: Services, redis: Redis) -> Iterator[Finding]:
    server = redis.info("server")
    # Valkey reports the version of Redis that it is compatible with, and its own beside it.
    name = "Valkey" if "valkey_version" in server else "Redis"
    version = str(server.get("valkey_version") or server.get("redis_version", "unknown"))
    major = version.split(".")[0]
    if name == "Redis" and major.isdecimal() and int(major) < 7:
        yield Finding(FAIL, "Redis", f"{version} is too old", "Use Redis 7.0 or newer, or Valkey.")
    else:
        yield Finding(OK, "Redis", f"answers: {name} {version}")


def _memory(parts: Services, redis: Redis) -> Iterator[Finding]:
    memory = redis.info("memory")
    policy, limit = memory.get("maxmemory_policy"), int(memory.get("maxmemory", 0))
    used = int(memory.get("used_memory", 0))
    remedy = "Set maxmemory-policy noeviction: with another, Redis deletes keys and calls."
    if policy is None:
        yield Finding(WARN, "Redis", "does not report its maxmemory-policy", remedy)
    elif policy != "noeviction":
        yield Finding(FAIL, "Redis", f"has the maxmemory-policy {policy}", remedy)
    else:
        yield Finding(OK, "Redis", "deletes nothing when it is full (noeviction)")
    if not limit:
        yield Finding(
            WARN,
            "memory",
            f"{_megabytes(used)} used, without a limit",
            "Set maxmemory, so that calls are refused before the machine is out of memory.",
        )
        return
    text = f"{_megabytes(used)} of {_megabytes(limit)} used"
    reasons = look(redis).reasons(parts.settings.queue_limit)
    if "redis_memory" in reasons:
        remedy = f"Raise maxmemory: from 80 % on, all calls are refused; from 50 %, {LOGGED_CALLS}."
        yield Finding(WARN, "memory", text, remedy)
    elif "redis_memory_logs" in reasons:
        remedy = f"Raise maxmemory: from 50 % on, {LOGGED_CALLS} are refused."
        yield Finding(WARN, "memory", text, remedy)
    else:
        yield Finding(OK, "memory", text)


def _connections(parts: Services, redis: Redis) -> Iterator[Finding]:
    facts = redis.info("clients")
    used, limit = int(facts.get("connected_clients", 0)), int(facts.get("maxclients", 0))
    own = parts.settings.redis_connections
    text = f"{used} of {limit or '?'} used; a process opens at most {own}"
    if limit and used >= CONNECTIONS_SHARE * limit:
        yield Finding(
            WARN, "connections", text, "Lower REDIS_CONNECTIONS (at least 4), or use a larger plan."
        )
    else:
        yield Finding(OK, "connections", text)


def _latency(parts: Services, redis: Redis) -> Iterator[Finding]:
    times = []
    for _ in range(PINGS):
        began = time.monotonic()
        redis.ping()
        times.append((time.monotonic() - began) * 1000)
    text = f"{statistics.median(times):.1f} ms for a round trip to Redis"
    if statistics.median(times) > SLOW_MS:
        yield Finding(WARN, "latency", text, "Run Redis in the network of web and workers.")
    else:
        yield Finding(OK, "latency", text)


def _clock(parts: Services, redis: Redis) -> Iterator[Finding]:
    seconds, microseconds = redis.time()
    off = time.time() - (seconds + microseconds / 1e6)
    if abs(off) > CLOCK_SECONDS:
        yield Finding(
            WARN,
            "clock",
            f"differs from Redis' by {off:.0f} s",
            "Set the clocks (NTP): budgets, expiry of keys and times of records go by them.",
        )
    else:
        yield Finding(OK, "clock", "is that of Redis")


def _names(parts: Services, redis: Redis) -> Iterator[Finding]:
    settings = parts.settings
    try:
        owner.check(redis, settings.key_pepper, settings.key_pepper_old)
    except ConfigurationError as error:
        yield Finding(FAIL, "names", str(error))
    else:
        yield Finding(OK, "names", f"in Redis are this service's (prefix {keys.PREFIX!r})")


def _workers(parts: Services, redis: Redis) -> Iterator[Finding]:
    alive = live_workers(redis)
    if not alive:
        yield Finding(
            FAIL,
            "workers",
            "none is alive",
            "Start one (python -m workers) with this REDIS_URL and REDIS_PREFIX.",
        )
        return
    releases = {_text(redis.hget(keys.rq_worker(name), "release")) or "unknown" for name in alive}
    slots = sum(lease.slots for lease in alive.values())
    text = f"{len(alive)} alive, {slots} calls at once"
    if releases != {parts.settings.release}:
        yield Finding(
            WARN,
            "workers",
            f"{text}, of release {', '.join(sorted(releases))}",
            f"Restart those that are not of this one ({parts.settings.release}).",
        )
    else:
        yield Finding(OK, "workers", text)
    if redis.exists(keys.RQ_SUSPENDED):
        yield Finding(WARN, "workers", "take no calls", "Let them go on: rq resume.")


def _queue(parts: Services, redis: Redis) -> Iterator[Finding]:
    state = look(redis)
    text = f"{state.waiting} calls wait, the oldest for {state.oldest_seconds:.0f} s"
    if "queue_backlog" in state.reasons(parts.settings.queue_limit):
        yield Finding(WARN, "queue", text, "Add workers, or see what holds them in their log.")
    else:
        yield Finding(OK, "queue", text)


def _keys(parts: Services, redis: Redis) -> Iterator[Finding]:
    now = time.time()
    valid = [record for record in parts.keys.all() if record.valid(now)]
    callers = sum(not record.operator for record in valid)
    if callers:
        yield Finding(OK, "keys", f"{callers} of callers, {len(valid) - callers} of operators")
    else:
        yield Finding(WARN, "keys", "none that may call", "Create one: flask keys create NAME.")


def _database(parts: Services, redis: Redis) -> Iterator[Finding]:
    if not parts.settings.database_url:
        yield Finding(
            WARN,
            "database",
            "none: Redis keeps the account, the records of the last 10,000 calls among it",
            "Set DATABASE_URL if the account must outlive Redis.",
        )
    else:
        try:
            parts.ledger.check()
        except LedgerUnavailable as error:
            yield Finding(
                FAIL,
                "database",
                f"does not answer ({error})",
                "Check DATABASE_URL. Calls go on, and their records wait in Redis.",
            )
            return
        except ConfigurationError as error:
            yield Finding(FAIL, "database", str(error))
            return
        yield Finding(OK, "database", "answers, and its tables are those of this release")
    account = parts.ledger.health()
    text = f"{account.backlog} wait, the oldest for {account.lag_seconds:.0f} s"
    if account.degraded:
        yield Finding(WARN, "records", text, "See the log of the workers for lines of `ledger`.")
    else:
        yield Finding(OK, "records", text)


def _files(parts: Services, redis: Redis) -> Iterator[Finding]:
    if parts.storage is None:
        yield Finding(OK, "files", "none are kept (FILES_URL is not set)")
        return
    try:
        upload = parts.storage.create(STORAGE_NAME)
        upload.write(b"flask doctor")
        upload.commit()
        written = b"".join(parts.storage.read(STORAGE_NAME))
        parts.storage.delete([STORAGE_NAME])
    except Exception as error:
        yield Finding(
            FAIL,
            "files",
            f"cannot be written and read ({type(error).__name__}: {error})",
            "Check FILES_URL, its credentials and its permissions.",
        )
        return
    state = OK if written == b"flask doctor" else FAIL
    yield Finding(state, "files", "can be written, read and deleted")


def _webhooks(parts: Services, redis: Redis) -> Iterator[Finding]:
    hosts, now = parts.settings.webhook_hosts, time.time()
    urls = [record.webhook_url for record in parts.keys.all() if record.webhook_url]
    refused = sum(allowing(url, hosts) is None for url in urls)
    late = redis.zcount(keys.WEBHOOKS, "-inf", int((now - LATE_SECONDS) * 1000))
    if refused:
        text = f"{refused} keys have a webhook_url at a host that is not in WEBHOOK_HOSTS"
        yield Finding(WARN, "webhooks", text, "Add the host, or change the keys (flask keys set).")
    if late:
        text = f"of {late} keys have been due for more than {LATE_SECONDS:.0f} s"
        yield Finding(WARN, "webhooks", text, "A worker delivers them: see its log.")
    if not refused and not late:
        yield Finding(OK, "webhooks", f"none is late; {len(urls)} keys have one")


def _models(parts: Services, redis: Redis) -> Iterator[Finding]:
    today, ending = datetime.now(UTC).date(), 0
    for row in parts.catalogue.listed():
        text = parts.catalogue.available(row) and deprecation.notice(row.id, row, today)
        if text:
            ending += 1
            yield Finding(WARN, "models", text)
    if not ending:
        yield Finding(OK, "models", "none is shut down within 60 days")


def _providers(parts: Services, redis: Redis) -> Iterator[Finding]:
    # In a process of its own: only the worker speaks HTTP to providers.
    command = [sys.executable, "-m", "workers.provider_check"]
    try:
        ended = subprocess.run(command, capture_output=True, text=True, timeout=PROVIDERS_SECONDS)
    except subprocess.TimeoutExpired:
        text = f"did not answer in {PROVIDERS_SECONDS:.0f} s"
        yield Finding(FAIL, "providers", text, "Check the network, and UPSTREAM_PROXY.")
        return
    if ended.returncode:
        yield Finding(FAIL, "providers", ended.stderr.strip().rpartition("\n")[2])
    for line in ended.stdout.splitlines():
        result = json.loads(line)
        subject = f"{result['provider']}, key {result['key']}: {result['text']}"
        if result["ok"]:
            yield Finding(OK, "providers", subject)
        elif result["ok"] is None:
            yield Finding(WARN, "providers", subject, "Make a call to see whether it works.")
        else:
            yield Finding(
                FAIL, "providers", subject, "Check its key, its base URL and UPSTREAM_PROXY."
            )


def _text(value: object) -> str:
    return value.decode() if isinstance(value, bytes) else ""


def _megabytes(size: int) -> str:
    return f"{size / 1e6:,.0f} MB"
