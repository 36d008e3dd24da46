"""Reads and changes the records of keys and owners in Redis, and logs who changed what.

One script makes a change: it compares the version of the record that the change was made from, and
adds the entry of the audit log. So no change is lost, and none is without an entry.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any, Generic, TypeVar, cast

import orjson
from redis import Redis

from gateway.account import key_fields
from gateway.account.key_fields import Limits
from gateway.errors import InvalidRequest
from gateway.queue import keys, scripts

COMMAND_LINE = "command line"
ADMIN = "ADMIN_KEY"
READ_BATCH = 500  # records in one round trip
# Not in the audit log: secrets, and what changes by itself.
UNLOGGED = key_fields.SECRET | {"version", "updated", "last_used"}


@dataclass(frozen=True, slots=True)
class Actor:
    """Who makes a change, and from where.

    `id` is the public id of an operator key, ADMIN, or COMMAND_LINE. `address` is that of the
    connection; `forwarded_for` is what proxies, and maybe the client itself, say of the client's.
    """

    id: str = COMMAND_LINE
    address: str = ""
    forwarded_for: str = ""


COMMAND = Actor()

R = TypeVar("R", bound=Limits)
# The values to set; None: change nothing, as if there was no record.
Edit = Callable[[R], Mapping[str, Any] | None]


def audit_entry(
    action: str, target: str, by: Actor, time: int, changes: Mapping[str, Any] | None = None
) -> dict[str, Any]:
    """Return an entry of the audit log. `changes` has the values of fields before and after."""
    return {
        "time": time,
        "action": action,
        "target": target,
        "actor": by.id,
        "address": by.address or None,
        "forwarded_for": by.forwarded_for or None,
        "changes": changes or {},
    }


class RecordStore(Generic[R]):
    """The records of one kind. All methods raise RedisError if Redis is away.

    `make(id)` returns a record without values, and `name(id)` the name of a record in Redis. What
    has no field `needed` is no record. `label` is what the audit log calls the kind.
    """

    def __init__(
        self,
        redis: Redis,
        make: Callable[[str], R],
        name: Callable[[str], str],
        needed: bytes,
        label: str,
        clock: Callable[[], float],
    ) -> None:
        self._redis, self._make, self._name = redis, make, name
        self._blank = make("")
        self._needed, self._label, self._clock = needed, label, clock

    def read(self, id: str) -> R | None:
        """Return the record that Redis has now, or None."""
        return self._decode(id, cast("dict[bytes, bytes]", self._redis.hgetall(self._name(id))))

    def all(self) -> Iterator[R]:
        """Yield every record, in no order. It scans Redis: not for each call."""
        names = self._redis.scan_iter(match=self._name("*"), count=1000)
        ids = [str(name, "utf-8").removeprefix(self._name("")) for name in names]
        for start in range(0, len(ids), READ_BATCH):
            batch = ids[start : start + READ_BATCH]
            with self._redis.pipeline(transaction=False) as pipeline:
                for id in batch:
                    pipeline.hgetall(self._name(id))
                rows = pipeline.execute()
            records = map(self._decode, batch, rows)
            yield from (record for record in records if record is not None)

    def create(self, id: str, values: Mapping[str, Any], by: Actor) -> bool:
        """Create a record; return False if there is one with this id. Raises InvalidRequest for an
        owner that does not exist."""
        now = int(self._clock())
        after = self._changed(self._blank, {**values, "created": now, "updated": now})
        return self._write(id, None, after, self._entry("created", id, by, self._blank, after))

    def change(self, id: str, edit: Edit[R], by: Actor | None, action: str = "updated") -> R | None:
        """Set the values that `edit(record)` returns; None stands for no value.

        Returns the record as it is then, or None if there is none. `edit` is called again if
        another process has changed the record meanwhile. `by` is None for what nobody has ordered:
        it is not logged. Raises InvalidRequest for an owner that does not exist, and what `edit`
        raises.
        """
        while True:
            before = self.read(id)
            if before is None:
                return None
            changes = edit(before)
            if changes is None:
                return None
            after = self._changed(before, changes)
            if after == before:
                return before
            entry = None
            if by is not None:
                after = replace(after, updated=int(self._clock()))
                entry = self._entry(action, id, by, before, after)
            if self._write(id, before, after, entry):
                return replace(after, version=before.version + 1)

    def delete(self, id: str, by: Actor) -> bool:
        """Delete a record; return False if there is none."""
        while True:
            before = self.read(id)
            if before is None:
                return False
            entry = self._entry("deleted", id, by, before, self._blank)
            names = [self._name(id), keys.AUDIT, "", ""]
            if self._run(names, before, entry, -1, []):
                return True

    def _changed(self, record: R, values: Mapping[str, Any]) -> R:
        empty = {name: getattr(self._blank, name) for name, v in values.items() if v is None}
        return replace(record, **{**values, **empty})

    def _decode(self, id: str, stored: Mapping[bytes, bytes]) -> R | None:
        if self._needed not in stored:
            return None
        values = key_fields.decode(type(self._blank), stored)
        return replace(self._make(id), **values)

    def _write(self, id: str, before: R | None, after: R, entry: Mapping[str, Any] | None) -> bool:
        old = before or self._blank
        changes = {
            name: getattr(after, name)
            for name in key_fields.names(after)
            if getattr(after, name) != getattr(old, name)
        }
        values, absent = key_fields.encode(changes)
        owner = changes.get("owner", "")
        names = [self._name(id), keys.AUDIT, "", ""]
        if owner:
            names[2:] = keys.owner_record(owner), keys.owner_deletion(owner)
        pairs = [part for pair in values.items() for part in pair]
        return self._run(names, before, entry, len(values), [*pairs, *absent])

    def _run(
        self,
        names: list[str],
        before: R | None,
        entry: Mapping[str, Any] | None,
        count: int,
        parts: list[Any],
    ) -> bool:
        version = "" if before is None else before.version
        logged = b"" if entry is None else orjson.dumps(entry)
        args = [version, logged, keys.AUDIT_ENTRIES, count, *parts]
        reply = scripts.RECORD(self._redis, names, args)
        if reply == b"owner":
            raise InvalidRequest(
                "Invalid 'owner': there is no such owner.", param="owner", code="invalid_value"
            )
        return bool(reply == b"ok")

    def _entry(self, action: str, id: str, by: Actor, before: R, after: R) -> dict[str, Any]:
        """Return the entry of the audit log: every changed value, as JSON shows it."""
        changes = {
            key_fields.NAMES_IN_JSON.get(name, name): [
                key_fields.to_json(name, getattr(record, name), record.limit_unit)
                for record in (before, after)
            ]
            for name in key_fields.names(after)
            if name not in UNLOGGED and getattr(before, name) != getattr(after, name)
        }
        return audit_entry(f"{self._label}.{action}", id, by, int(self._clock()), changes)
