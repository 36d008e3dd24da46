"""Copies of keys, owners and audit log in the database, and their way back into an emptied Redis.

Redis decides; the copies follow. What changed is in the audit log of Redis, which is written in the
same step as the change; what it does not name (when a key was last used, an HMAC with another
pepper) is found by comparing everything from time to time.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, cast

import orjson
from redis import Redis

from gateway.account.counters import window
from gateway.account.ledger import AuditEntry, Fields, Ledger, Spend, Sums
from gateway.queue import keys, scripts

log = logging.getLogger(__name__)

CHUNK = 200  # records or entries in one round trip
COMPARE_SECONDS = 300.0


@dataclass(frozen=True, slots=True)
class Kind:
    """Keys or owners: what the audit log calls them, and where they are."""

    label: str
    prefix: str  # of the names of their records in Redis

    def scope(self, name: str) -> str:
        """Return the scope whose counters belong to one of them."""
        return name if self.label == "key" else keys.owner_scope(name)


class Copies:
    """Keeps the copies of one ledger. Only the ledger writer uses it."""

    def __init__(self, redis: Redis, ledger: Ledger) -> None:
        self._redis, self._ledger = redis, ledger
        self._kinds = (Kind("owner", keys.owner_record("")), Kind("key", keys.key("")))
        self._last: str | None = None  # entry of the audit log that is copied
        self._compared = -COMPARE_SECONDS

    def update(self) -> None:
        """Copy what has changed. Raises RedisError and LedgerUnavailable."""
        if self._last is None:
            latest = self._ledger.audit_log(limit=1)
            self._last = latest[0].id if latest else "0-0"
        rows = cast(
            "list[tuple[bytes, dict[bytes, bytes]]]",
            self._redis.xrange(keys.AUDIT, f"({self._last}", count=CHUNK),
        )
        if rows:
            entries = [
                AuditEntry(stream_id.decode(), orjson.loads(fields[b"entry"]))
                for stream_id, fields in rows
            ]
            for entry in entries:
                self._follow(entry.entry)
            self._ledger.audit(entries)
            self._last = entries[-1].id
        elif time.monotonic() - self._compared > COMPARE_SECONDS:
            self._compare()
            self._compared = time.monotonic()

    def _follow(self, entry: Mapping[str, Any]) -> None:
        label, _, action = str(entry.get("action", "")).partition(".")
        name = str(entry.get("target", ""))
        for kind in self._kinds:
            if kind.label == label:
                if action == "deleted":
                    self._save(kind, name, {})
                [(_, fields)] = self._records(kind, [name])
                if fields:
                    self._save(kind, name, fields)

    def _compare(self) -> None:
        for kind in self._kinds:
            copies = dict(self._copied(kind))
            for name, fields in self._records(kind, self._names(kind)):
                if fields and _lasting(fields) != _lasting(copies.get(name, {})):
                    self._save(kind, name, fields)

    def restore(self) -> None:
        """Give an emptied Redis back its keys, owners and counters, once.

        A record that is there stays, and what was used since is added to. Several processes may do
        it together. Raises RedisError and LedgerUnavailable.
        """
        now, _ = self._redis.time()
        restored = 0
        for kind in self._kinds:
            for name, fields in self._copied(kind):
                scope = kind.scope(name)
                restored += scripts.RESTORE(
                    self._redis,
                    [kind.prefix + name, keys.spend(scope)],
                    [
                        orjson.dumps(fields),
                        orjson.dumps(spent(self._ledger.totals(scope, now), now)),
                    ],
                )
        self._redis.set(keys.LEDGER_RESTORED, now)
        self._compared = -COMPARE_SECONDS
        if restored:
            log.warning("ledger: %d keys and owners are back in Redis", restored)

    def _copied(self, kind: Kind) -> Iterable[tuple[str, dict[str, str]]]:
        return self._ledger.keys() if kind.label == "key" else self._ledger.owners()

    def _save(self, kind: Kind, name: str, fields: Fields) -> None:
        save = self._ledger.save_key if kind.label == "key" else self._ledger.save_owner
        save(name, fields)

    def _names(self, kind: Kind) -> list[str]:
        names = self._redis.scan_iter(match=f"{kind.prefix}*", count=1000)
        return [str(name, "utf-8").removeprefix(kind.prefix) for name in names]

    def _records(self, kind: Kind, names: list[str]) -> Iterator[tuple[str, dict[str, str]]]:
        for start in range(0, len(names), CHUNK):
            chunk = names[start : start + CHUNK]
            with self._redis.pipeline(transaction=False) as pipeline:
                for name in chunk:
                    pipeline.hgetall(kind.prefix + name)
                rows = pipeline.execute()
            for name, row in zip(chunk, rows, strict=True):
                yield name, {field.decode(): value.decode() for field, value in row.items()}


def spent(spend: Spend, now: int) -> dict[str, list[str]]:
    """Return counters as restore.lua takes them.

    Its numbers are texts, because Lua's are not exact above 2^53.
    """
    windows = {"daily": spend.day, "weekly": spend.week, "monthly": spend.month}
    return {"": _counts(0, spend.all_time)} | {
        name[0]: _counts(window(name, now)[0], sums) for name, sums in windows.items()
    }


def _counts(number: int, sums: Sums) -> list[str]:
    return [str(each) for each in (number, sums.cost_nano, sums.tokens, sums.requests)]


def _lasting(fields: Fields) -> dict[str, str]:
    """The fields whose change is worth a transaction."""
    return {name: value for name, value in fields.items() if name != "last_used"}
