"""Compares the account's books with one another, and corrects them.

There are three: the counters in Redis that limits are enforced with, the sums in the ledger, and
the records that the sums are of.
"""

from __future__ import annotations

import time
import uuid
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import cast

import orjson
from redis import Redis

from gateway.account import counters
from gateway.account.api_keys import KeyRecord
from gateway.account.counters import WINDOWS, window
from gateway.account.ledger import Ledger, Spend, Sums, received
from gateway.account.pricing import usd
from gateway.account.record_store import COMMAND, audit_entry
from gateway.account.records import Record
from gateway.queue import keys, scripts

ALL_TIME = "all time"
LOOKS = 4  # at what differs: calls end while it is read
PAUSE_SECONDS = 1.0
CHUNK = 1_000


@dataclass(frozen=True, slots=True)
class Difference:
    """What a book (`counters` or `records`) and the sums of the ledger say of one scope.

    `window` is one of WINDOWS, ALL_TIME or a date. Records that wait count as if they were written.
    """

    scope: str
    window: str
    book: str
    counted: counters.Spend  # by the book
    summed: counters.Spend  # by the ledger


def differences(
    redis: Redis,
    ledger: Ledger,
    scopes: Iterable[str],
    pause: Callable[[float], object] = time.sleep,
) -> list[Difference]:
    """Return what differs for these scopes, at several looks in the same way.

    Raises RedisError and LedgerUnavailable.
    """
    lasting: list[Difference] | None = None
    named = list(scopes)
    for look in range(LOOKS):
        if look:
            pause(PAUSE_SECONDS)
        current = _differences(redis, ledger, named)
        amounts = {_amount(each) for each in lasting or ()}
        lasting = [each for each in current if lasting is None or _amount(each) in amounts]
        named = list(dict.fromkeys(each.scope for each in lasting))
        if not lasting:
            break
    return lasting or []


def _amount(each: Difference) -> tuple[str, str, str, int, int, int]:
    usd, tokens = each.counted.usd - each.summed.usd, each.counted.tokens - each.summed.tokens
    requests = each.counted.requests - each.summed.requests
    return each.scope, each.window, each.book, usd, tokens, requests


def _differences(redis: Redis, ledger: Ledger, scopes: list[str]) -> list[Difference]:
    differing = []
    # First what moves on: a record that is written in between is counted twice, and the next look
    # shows another difference.
    waiting = _waiting(redis)
    for start in range(0, len(scopes), CHUNK):
        chunk = scopes[start : start + CHUNK]
        now, _ = redis.time()
        for scope, read in zip(chunk, counters.read(redis, chunk), strict=True):
            kept = _plus(ledger.totals(scope, now), waiting.get(scope, []), now)
            for name, sums in kept.items():
                counted = read.spent["" if name == ALL_TIME else name]
                if counted != _spent(sums):
                    differing.append(Difference(scope, name, "counters", counted, _spent(sums)))
    for scope, day, recorded, sums in ledger.unlike_records():
        if not scopes or scope in scopes:
            differing.append(Difference(scope, day, "records", _spent(recorded), _spent(sums)))
    return differing


def _plus(spend: Spend, waiting: list[Record], now: int) -> dict[str, Sums]:
    """The sums of a ledger by window, with records that it does not have yet."""
    kept = {ALL_TIME: spend.all_time}
    kept |= dict(zip(WINDOWS, (spend.day, spend.week, spend.month), strict=True))
    for record in waiting:
        for name in kept:
            seconds = record.settled_ms // 1000
            if name == ALL_TIME or window(name, seconds)[0] == window(name, now)[0]:
                kept[name] += Sums.of(record)
    return kept


def _waiting(redis: Redis) -> dict[str, list[Record]]:
    """The records that wait for the ledger, by scope."""
    by_scope: dict[str, list[Record]] = {}
    first = "-"
    while entries := cast(
        "list[tuple[bytes, dict[bytes, bytes]]]",
        redis.xrange(keys.RECORDS, first, "+", count=CHUNK),
    ):
        for _, fields in entries:
            try:
                record = received(fields)
            except ValueError:
                continue
            by_scope.setdefault(record.key_id, []).append(record)
            if record.owner:
                by_scope.setdefault(keys.owner_scope(record.owner), []).append(record)
        first = "(" + entries[-1][0].decode()
    return by_scope


def _spent(sums: Sums) -> counters.Spend:
    return counters.Spend(sums.cost_nano, sums.tokens, sums.requests)


def correct(redis: Redis, key: KeyRecord, nano: int, why: str) -> Record:
    """Add an amount of 1e-9 USD, which may be negative, to what a key and its owner have spent.

    Returns the record of the correction; nothing that was recorded is changed. Raises RedisError.
    """
    seconds, microseconds = redis.time()
    now_ms = seconds * 1000 + microseconds // 1000
    record = Record(
        id=f"correction-{uuid.uuid4().hex}",
        key_id=key.public_id,
        owner=key.owner,
        created_ms=now_ms,
        settled_ms=now_ms,
        kind="correction",
        cost_nano=nano,
        correction=True,
        note=why,
    )
    changes = {"usd": [None, usd(nano)], "note": [None, why]}
    entry = audit_entry("key.corrected", key.public_id, COMMAND, seconds, changes)
    scopes = [key.public_id, *([keys.owner_scope(key.owner)] if key.owner else [])]
    scripts.CORRECT(
        redis,
        [keys.RECORDS, keys.AUDIT, *map(keys.spend, scopes)],
        [
            record.encode(),
            orjson.dumps({"settled_ms": now_ms}),
            orjson.dumps(entry),
            keys.AUDIT_ENTRIES,
            nano,
            orjson.dumps({name[0]: window(name, seconds)[0] for name in WINDOWS}),
        ],
    )
    return record
