"""The operator's commands: `flask keys create|list|revoke` and `flask check-config`."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import click
from flask.cli import AppGroup, with_appcontext
from redis.exceptions import RedisError, ResponseError

from api.services import services
from gateway.account.api_keys import KeyStore
from gateway.queue import clients, owner
from gateway.settings import ConfigurationError


class RedisGroup(AppGroup):
    """Commands that end with one line where Redis does not answer."""

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except RedisError as error:
            raise _no_answer(error) from None


keys = RedisGroup("keys", help="Create, list and revoke API keys.")


@keys.command("create")
@click.argument("name")
def create(name: str) -> None:
    """Create a key called NAME and print it, this once, on the last line."""
    key = _store().create(name)
    click.echo("Keep it safe: it cannot be shown again.")
    click.echo(key)


@keys.command("list")
def list_keys() -> None:
    """List every key: public id, state, when created and last used, name."""
    for record in sorted(_store().all(), key=lambda record: record.created):
        state = "revoked" if record.revoked else "active"
        times = f"created {_day(record.created)}  last used {_day(record.last_used)}"
        click.echo(f"{record.public_id}  {state:<7}  {times}  {record.name}")


@keys.command("revoke")
@click.argument("public_id")
def revoke(public_id: str) -> None:
    """Revoke the key with this PUBLIC_ID (or the whole key): it is refused from now on."""
    public_id = public_id.removeprefix("mk_inference_")[:12]
    if not _store().revoke(public_id):
        raise click.ClickException(f"there is no key {public_id}")
    click.echo(f"revoked {public_id}")


@click.command("check-config")
@with_appcontext
def check_config() -> None:
    """Check settings, catalogue and Redis; exit code 1 where a deploy could not work."""
    # Settings and catalogue have been checked by the time that there is an app.
    settings, catalogue = services().settings, services().catalogue
    redis = clients.commands(settings, 1)
    try:
        server, memory = redis.info("server"), redis.info("memory")
    except RedisError as error:
        raise _no_answer(error) from None
    # Valkey reports the version of Redis that it is compatible with, and its own beside it.
    version = str(server.get("redis_version", "0"))
    if int(version.split(".")[0]) < 7 and "valkey_version" not in server:
        raise click.ClickException(f"Redis {version} is too old: 7.0 or newer is needed")
    policy = memory.get("maxmemory_policy")
    if policy not in (None, "noeviction"):
        raise click.ClickException(
            f"Redis' maxmemory-policy is {policy} and must be noeviction: otherwise Redis deletes "
            "API keys and waiting calls when its memory is full"
        )
    if policy is None:
        click.echo("Redis does not report its maxmemory-policy. Make sure that it is noeviction.")
    try:
        owner.check(redis, settings.key_pepper, settings.key_pepper_old)
    except ConfigurationError as error:
        raise click.ClickException(str(error)) from None
    ready = catalogue.configured()
    click.echo(f"Redis {version} answers. Providers configured: {', '.join(ready) or 'none'}.")


def _no_answer(error: RedisError) -> click.ClickException:
    if isinstance(error, ResponseError):  # for instance a database that it does not have
        return click.ClickException(f"Redis refuses the command: {error}")
    return click.ClickException(f"Redis does not answer ({type(error).__name__})")


def _store() -> KeyStore:
    return services().keys


def _day(seconds: int) -> str:
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%d") if seconds else "never"
