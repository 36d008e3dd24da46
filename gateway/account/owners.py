"""Owners of API keys: teams or customers, with limits for all their keys together."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import KW_ONLY, dataclass

from redis import Redis

from gateway.account.key_fields import Limits
from gateway.account.record_store import RecordStore
from gateway.queue import keys


@dataclass(frozen=True, slots=True)
class OwnerRecord(Limits):
    """One owner; see Limits for its limits. `share_cache`: its keys get each other's responses."""

    id: str
    name: str = ""
    created: int = 0
    _: KW_ONLY
    share_cache: bool = False


def owner_store(redis: Redis, clock: Callable[[], float] = time.time) -> RecordStore[OwnerRecord]:
    """Return the store of all owners."""
    return RecordStore(redis, OwnerRecord, keys.owner_record, b"created", "owner", clock)


def counters(owner_id: str) -> list[str]:
    """Return the names of what Redis counts for an owner: to delete with it."""
    scope = keys.owner_scope(owner_id)
    return [name(scope) for name in (keys.spend, keys.held, keys.flight, keys.parked, keys.rate)]
