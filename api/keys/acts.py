"""Creates and changes keys and owners: over HTTP, with commands and in the console."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from api.keys.schema import (
    KEY_CHANGE,
    NEW_KEY,
    NEW_OWNER,
    OWNER_CHANGE,
    checked_fields,
    to_record,
)
from api.services import services
from gateway import webhooks
from gateway.account.api_keys import KeyRecord, public_id
from gateway.account.owners import OwnerRecord
from gateway.account.record_store import Actor
from gateway.errors import InvalidRequest

Json = Mapping[str, Any]


class CreatedKey(NamedTuple):
    """A key with what is shown only now: itself, and the secret of its webhook if it has one."""

    key: str
    record: KeyRecord | None
    webhook_secret: str | None


def create_key(data: Any, by: Actor) -> CreatedKey:
    """Create a key. Raises InvalidRequest."""
    hosts = services().settings.webhook_hosts
    fields = checked_fields(NEW_KEY, data)
    values = to_record(fields, KeyRecord("", "", ""), time.time(), hosts)
    key = services().keys.create(by=by, **values)
    record = services().keys.get(public_id(key))
    return CreatedKey(key, record, _webhook_secret(record, ""))


def change_key(
    key_id: str, change: Callable[[KeyRecord], Json], by: Actor
) -> tuple[KeyRecord | None, str | None]:
    """Set the fields of the JSON that `change(record)` returns. Raises InvalidRequest.

    Returns the record as it is then, None if there is no such key, and the secret of its webhook if
    that is a new one.
    """
    now, hosts = time.time(), services().settings.webhook_hosts
    nonce = ""

    def edit(record: KeyRecord) -> Mapping[str, Any]:
        nonlocal nonce
        nonce = record.webhook_nonce
        return to_record(checked_fields(KEY_CHANGE, change(record)), record, now, hosts)

    record = services().keys.change(key_id, edit, by)
    return record, _webhook_secret(record, nonce)


def create_owner(data: Any, by: Actor) -> None:
    """Create an owner. Raises InvalidRequest, with 409 if there is one with its id."""
    fields = checked_fields(NEW_OWNER, data)
    values = to_record(fields, OwnerRecord(""), time.time())
    if not services().owners.create(fields["id"], values, by):
        raise InvalidRequest(
            "There is an owner with this id.", param="id", status=409, code="owner_exists"
        )


def change_owner(
    owner_id: str, change: Callable[[OwnerRecord], Json], by: Actor
) -> OwnerRecord | None:
    """Set the fields of the JSON that `change(record)` returns; None: no such owner.

    Raises InvalidRequest.
    """
    now = time.time()

    def edit(record: OwnerRecord) -> Mapping[str, Any]:
        return to_record(checked_fields(OWNER_CHANGE, change(record)), record, now)

    return services().owners.change(owner_id, edit, by)


def _webhook_secret(key: KeyRecord | None, nonce: str) -> str | None:
    """The secret of a key's webhook, if a change gave it another nonce than this one."""
    if key is None or key.webhook_nonce in ("", nonce):
        return None
    return webhooks.secret(services().settings.key_pepper, key.public_id, key.webhook_nonce)
