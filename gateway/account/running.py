"""The record so far of a call that the ledger does not have yet."""

from __future__ import annotations

from collections.abc import Mapping
from typing import cast

import orjson
from redis import Redis

from gateway.account.records import Record
from gateway.queue import keys

QUEUED, RUNNING, SETTLING = "queued", "running", "settling"
# Status of a job -> status of its call. Jobs with others have ended.
STATUSES: Mapping[bytes, str] = {b"queued": QUEUED, b"deferred": QUEUED, b"started": RUNNING}


def find(redis: Redis, call_id: str) -> Record | None:
    """Return what is known of a call that waits, runs or ended a moment ago; else None.

    Its status is QUEUED, RUNNING or SETTLING: it has ended, and its record is on the way to the
    ledger. `settled_ms` is 0. Raises RedisError.
    """
    fields = cast(
        "list[bytes | None]", redis.hmget(keys.job(call_id), ["status", "stub", "deadline_ms"])
    )
    status, stub, deadline_ms = fields
    if status is None or not stub:  # unknown, or submitted by the previous release
        return None
    record = {
        "created_ms": 0,
        **orjson.loads(stub),
        "status": STATUSES.get(status, SETTLING),
        "settled_ms": 0,
        "deadline_ms": int(deadline_ms or 0),
    }
    return Record.decode(orjson.dumps(record))
