"""Owners of API keys: teams or customers, with limits for all their keys together."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from dataclasses import KW_ONLY, dataclass

from cachetools import TTLCache
from redis import Redis

from gateway.account.api_keys import KeyRecord
from gateway.account.key_fields import Limits
from gateway.account.record_store import Actor, RecordStore
from gateway.errors import InvalidRequest, NotFound
from gateway.queue import keys

CACHE_SECONDS = 10.0
CACHE_OWNERS = 10_000


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


def delete(redis: Redis, records: Iterable[KeyRecord], id: str, by: Actor) -> None:
    """Delete an owner. `records` yields those of all keys, and is read after no key can get it.

    What it has used stays known, as in the ledger: an owner with the same id goes on from there.

    Raises NotFound, and InvalidRequest (409) if the owner has keys that are not revoked: without
    their owner, they would have its limits no more. Raises RedisError.
    """
    mark = keys.owner_deletion(id)
    redis.set(mark, 1, ex=keys.DELETION_SECONDS)
    try:
        count = sum(1 for record in records if record.owner == id and not record.revoked)
        if count:
            raise InvalidRequest(
                f"This owner has {count} API keys. Delete them or change their owner first.",
                status=409,
                code="owner_in_use",
            )
        if not owner_store(redis).delete(id, by):
            raise NotFound("There is no such owner.", code="owner_not_found")
    finally:
        redis.delete(mark)


class SharedCaches:
    """Which owners' keys get each other's responses. Remembered for CACHE_SECONDS."""

    def __init__(self, redis: Redis) -> None:
        self._records = owner_store(redis)
        self._cache: TTLCache[str, bool] = TTLCache(CACHE_OWNERS, CACHE_SECONDS)

    def shares(self, owner_id: str) -> bool:
        """Whether the owner's record says so. Raises RedisError."""
        shares = self._cache.get(owner_id)
        if shares is None:
            record = self._records.read(owner_id)
            shares = self._cache[owner_id] = record is not None and record.share_cache
        return shares
