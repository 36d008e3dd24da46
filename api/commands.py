"""The operator's commands: `flask keys`, `flask owners`, `flask webhooks`, `flask check-config`."""

from __future__ import annotations

import json
import secrets
import time
from datetime import UTC, datetime
from typing import Any, TypeVar

import click
from flask.cli import AppGroup, with_appcontext
from redis.exceptions import RedisError, ResponseError

from api.keys import acts
from api.keys.options import KEY, OWNER, Option, duration, options, switch
from api.keys.schema import ROTATION, checked_fields
from api.keys.shown import shown_keys, shown_owners
from api.services import services
from gateway.account import owners as account_owners
from gateway.account.api_keys import KeyRecord, KeyStore, public_id
from gateway.account.key_fields import iso_time
from gateway.account.record_store import COMMAND
from gateway.errors import GatewayError
from gateway.queue import clients, owner
from gateway.settings import ConfigurationError
from gateway.webhooks import TEST, enqueue

T = TypeVar("T")


class RedisGroup(AppGroup):
    """Commands that end with one line where Redis does not answer, or where they are refused."""

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except GatewayError as error:
            raise click.ClickException(error.message) from None
        except RedisError as error:
            raise _no_answer(error) from None


keys = RedisGroup("keys", help="Create, list, change, rotate and revoke API keys.")
owners = RedisGroup("owners", help="Create, list, change and delete the owners of API keys.")
webhooks = RedisGroup("webhooks", help="Try the webhooks of API keys.")

KEY_ID = click.argument("public_id", callback=lambda _, __, text: public_id(text))


@keys.command("create")
@click.argument("name")
@click.option("--operator", is_flag=True, help="A key that manages keys and calls no model.")
@options(*KEY)
def create(name: str, operator: bool, fields: dict[str, Any]) -> None:
    """Create a key called NAME and print it, this once, on the last line."""
    data = {"name": name, **fields, **({"operator": True} if operator else {})}
    key, _, webhook_secret = acts.create_key(data, COMMAND)
    _print_webhook_secret(webhook_secret)
    _print_once(key)


@keys.command("list")
def list_keys() -> None:
    """List every key: public id, state, when created and last used, name."""
    now = time.time()
    for record in sorted(_store().all(), key=lambda record: record.created):
        times = f"created {_day(record.created)}  last used {_day(record.last_used)}"
        kind = " (operator)" if record.operator else ""
        click.echo(f"{record.public_id}  {_state(record, now):<8}  {times}  {record.name}{kind}")


@keys.command("show")
@KEY_ID
def show(public_id: str) -> None:
    """Show the key with this PUBLIC_ID: limits, what it has used, and what is left."""
    record = _existing(_store().get(public_id), f"key {public_id}")
    _print_fields(*shown_keys([record]))


@keys.command("set")
@KEY_ID
@options(Option("--name", "name", str, "What to call it."), *KEY)
@switch("--disable/--enable", "disabled")
def set_key(public_id: str, disabled: bool | None, fields: dict[str, Any]) -> None:
    """Change the key with this PUBLIC_ID; the value `none` takes a limit away."""
    data = _switched(fields, disabled=disabled)
    record, webhook_secret = acts.change_key(public_id, lambda _: data, COMMAND)
    _existing(record, f"key {public_id}")
    click.echo(f"changed {public_id}")
    _print_webhook_secret(webhook_secret)


@keys.command("rotate")
@KEY_ID
@click.option("--grace", default="1d", help="How long the present secret stays valid. Default: 1d.")
def rotate(public_id: str, grace: str) -> None:
    """Give the key with this PUBLIC_ID a new secret, and print it, this once, on the last line."""
    data = checked_fields(ROTATION, {"grace_seconds": 0 if grace == "0" else duration(grace)})
    rotation = _existing(_store().rotate(public_id, data["grace_seconds"]), f"key {public_id}")
    until = iso_time(rotation.record.hmac_old_until)
    if until is not None:
        click.echo(f"The secret before it is valid until {until}.")
    _print_once(rotation.key)


@keys.command("revoke")
@KEY_ID
def revoke(public_id: str) -> None:
    """Revoke the key with this PUBLIC_ID (or the whole key): it is refused from now on."""
    if not _store().revoke(public_id):
        _existing(_store().get(public_id), f"key {public_id}")  # revoked before
    click.echo(f"revoked {public_id}")


@webhooks.command("test")
@KEY_ID
def test_webhook(public_id: str) -> None:
    """Send an event to the webhook of the key with this PUBLIC_ID; workers log its delivery."""
    _existing(_store().get(public_id), f"key {public_id}")
    redis = services().broker.redis
    result = enqueue(redis, public_id, TEST, public_id, occurrence=secrets.token_hex(8))
    if result != "ok":
        reason = "has no webhook" if result == "none" else "has too many events that wait"
        raise click.ClickException(f"key {public_id} {reason}")
    click.echo(f"queued an event of type {TEST}")


@owners.command("create")
@click.argument("owner_id", metavar="ID")
@options(*OWNER)
@switch("--share-cache/--no-share-cache", "share_cache")
def create_owner(owner_id: str, share_cache: bool | None, fields: dict[str, Any]) -> None:
    """Create an owner with this ID, such as a team or a customer."""
    data = _switched({"id": owner_id, **fields}, share_cache=share_cache)
    acts.create_owner(data, COMMAND)
    click.echo(f"created {owner_id}")


@owners.command("list")
def list_owners() -> None:
    """List every owner: id, state, when created, name."""
    for record in sorted(services().owners.all(), key=lambda record: record.id):
        state = "disabled" if record.disabled else "active"
        click.echo(
            f"{record.id}  {state:<8}  created {_day(record.created)}  {record.name or record.id}"
        )


@owners.command("show")
@click.argument("owner_id", metavar="ID")
def show_owner(owner_id: str) -> None:
    """Show the owner with this ID: limits, what its keys have used, and what is left."""
    record = _existing(services().owners.read(owner_id), f"owner {owner_id}")
    _print_fields(*shown_owners([record]))


@owners.command("set")
@click.argument("owner_id", metavar="ID")
@options(*OWNER)
@switch("--disable/--enable", "disabled")
@switch("--share-cache/--no-share-cache", "share_cache")
def set_owner(
    owner_id: str, disabled: bool | None, share_cache: bool | None, fields: dict[str, Any]
) -> None:
    """Change the owner with this ID; the value `none` takes a limit away."""
    data = _switched(fields, disabled=disabled, share_cache=share_cache)
    _existing(acts.change_owner(owner_id, lambda _: data, COMMAND), f"owner {owner_id}")
    click.echo(f"changed {owner_id}")


@owners.command("delete")
@click.argument("owner_id", metavar="ID")
def delete_owner(owner_id: str) -> None:
    """Delete the owner with this ID, if no key has it."""
    account_owners.delete(services().broker.redis, _store().all(), owner_id, COMMAND)
    click.echo(f"deleted {owner_id}")


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


def _existing(record: T | None, what: str) -> T:
    if record is None:
        raise click.ClickException(f"there is no {what}")
    return record


def _switched(fields: dict[str, Any], **switches: bool | None) -> dict[str, Any]:
    return {**fields, **{name: on for name, on in switches.items() if on is not None}}


def _state(record: KeyRecord, now: float) -> str:
    if record.revoked or record.disabled:
        return "revoked" if record.revoked else "disabled"
    return "active" if record.valid(now) else "expired"


def _print_once(key: str) -> None:
    click.echo("Keep it safe: it cannot be shown again.")
    click.echo(key)


def _print_webhook_secret(secret: str | None) -> None:
    if secret is not None:
        click.echo("The secret of the webhook, which cannot be shown again:")
        click.echo(secret)


def _print_fields(fields: dict[str, Any]) -> None:
    width = max(map(len, fields))
    for name, value in fields.items():
        if value not in (None, [], {}):
            text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
            click.echo(f"{name:<{width}}  {text}")


def _day(seconds: int) -> str:
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%d") if seconds else "never"
