"""What is known of each batch: a hash in Redis, which web processes and the runner change."""

from __future__ import annotations

import dataclasses
import uuid
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from typing import Any

import orjson
from redis import Redis

from gateway.errors import RateLimited
from gateway.queue import keys

ACTIVE = ("validating", "in_progress", "finalizing", "cancelling")
STOPPABLE = ("validating", "in_progress")
WINDOW_SECONDS = 86_400  # from a batch's creation to its expiry
MAX_ACTIVE = 100  # batches of a key that have not ended: each takes memory of the runner
MAX_KEPT = 10_000  # batches of a key, through one API
KEPT_SECONDS = 30 * 86_400  # since its creation
COUNTS = ("completed", "failed", "cancelled", "expired")  # of lines
USED = ("input_tokens", "cached_tokens", "output_tokens", "reasoning_tokens")
DECODED: dict[str, Callable[[bytes], Any]] = {"int": int, "str": bytes.decode}


class Deposed(Exception):
    """Raised when this process is no longer the one that runs batches."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Batch:
    """One batch of an API key. Times are seconds since 1970, 0 for never.

    `api` names the API that it was created through. A batch is `validating`, `in_progress`,
    `finalizing` or `cancelling` until it is `completed`, `failed`, `cancelled` or `expired`.
    `output_id` and `error_id` are the ids of the files that it may write, `output_file_id` and
    `error_file_id` those of files that exist. `queued_tokens` is an estimate of its prompts.
    `errors` and `metadata` are JSON.
    """

    id: str
    api: str
    key_id: str
    endpoint: str = ""
    input_file_id: str = ""
    input_object: str = ""
    status: str = "validating"
    model: str = ""
    metadata: str = ""
    errors: str = ""
    created: int = 0
    expires: int = 0
    in_progress: int = 0
    finalizing: int = 0
    completed: int = 0
    failed: int = 0
    expired: int = 0
    cancelling: int = 0
    cancelled: int = 0
    output_seconds: int = 0
    output_id: str = ""
    error_id: str = ""
    output_file_id: str = ""
    error_file_id: str = ""
    queued_tokens: int = 0
    lines: int = 0
    lines_completed: int = 0
    lines_failed: int = 0
    lines_cancelled: int = 0
    lines_expired: int = 0
    input_tokens: int = 0
    cached_tokens: int = 0
    output_tokens: int = 0
    reasoning_tokens: int = 0

    @property
    def active(self) -> bool:
        """Whether the runner has still something to do for it."""
        return self.status in ACTIVE


FIELDS = {item.name: DECODED[str(item.type)] for item in dataclasses.fields(Batch)}


def new_id(prefix: str) -> str:
    """An id for a batch."""
    return f"{prefix}{uuid.uuid4().hex}"


def parts_of(batch_id: str) -> str:
    """What begins the names of the objects that hold the results of a running batch."""
    return f"batches/{batch_id}/"


class BatchStore:
    """The batches, by id. All methods raise RedisError if Redis is away."""

    def __init__(self, redis: Redis) -> None:
        self._redis: Any = redis  # its types join the results of all clients

    def add(self, batch: Batch) -> None:
        """Keep a new batch and queue it for the runner.

        Of a key, MAX_KEPT are known through one API: the oldest of more is forgotten, if it has
        ended.
        """
        index = keys.batches(batch.api, batch.key_id)
        everybody = keys.batches(batch.api, "")
        for each in self._redis.zrange(index, 0, -MAX_KEPT):
            oldest = self.get(each.decode())
            if oldest is None:
                self._redis.zrem(index, each)
            elif not oldest.active:
                self.delete(oldest)
        with self._redis.pipeline() as pipeline:
            pipeline.hset(keys.batch(batch.id), mapping=_encoded(dataclasses.asdict(batch)))
            pipeline.expireat(keys.batch(batch.id), batch.created + KEPT_SECONDS)
            for name in (index, everybody):
                pipeline.zadd(name, {batch.id: batch.created})
                # What has expired is no longer listed.
                pipeline.zremrangebyscore(name, 0, batch.created - KEPT_SECONDS)
                pipeline.expire(name, KEPT_SECONDS)
            pipeline.zadd(keys.BATCHES_ACTIVE, {batch.id: batch.created})
            pipeline.execute()

    def get(self, batch_id: str, api: str = "", key_id: str = "") -> Batch | None:
        """A batch; None if there is none, or none of this API and key ("": of any)."""
        batch = _decoded(self._redis.hgetall(keys.batch(batch_id)))
        if batch is None or api not in ("", batch.api) or key_id not in ("", batch.key_id):
            return None
        return batch

    def page(
        self, api: str, key_id: str, limit: int, after: str = "", before: str = ""
    ) -> tuple[list[Batch], bool] | None:
        """Some batches of a key ("": of all), the latest first, and whether there are more.

        They follow the batch `after`, or precede the batch `before`. None: there is no such batch.
        """
        index = keys.batches(api, key_id)
        start, end = 0, limit
        if after or before:
            rank = self._redis.zrevrank(index, after or before)
            if rank is None:
                return None
            start, end = (rank + 1, rank + 1 + limit) if after else (rank - limit - 1, rank - 1)
        ids = self._redis.zrange(index, max(start, 0), end, desc=True) if end >= 0 else []
        more = len(ids) > limit
        ids = ids[:limit] if after or not before else ids[-limit:]
        with self._redis.pipeline(transaction=False) as pipeline:
            for each in ids:
                pipeline.hgetall(keys.batch(each.decode()))
            batches = [_decoded(fields) for fields in pipeline.execute()]
        return [batch for batch in batches if batch is not None], more

    def active(self) -> list[str]:
        """The ids of batches that the runner has something to do for, the oldest first."""
        return [each.decode() for each in self._redis.zrange(keys.BATCHES_ACTIVE, 0, -1)]

    def require_room(self, key_id: str) -> None:
        """Raise RateLimited if MAX_ACTIVE batches of a key have not ended."""
        with self._redis.pipeline(transaction=False) as pipeline:
            for each in self.active():
                pipeline.hget(keys.batch(each), "key_id")
            owners = pipeline.execute()
        if owners.count(key_id.encode()) >= MAX_ACTIVE:
            raise RateLimited(
                f"Too many batches of this API key have not ended. Limit: {MAX_ACTIVE}.",
                code="too_many_batches",
                should_retry=False,
            )

    def queued_tokens(self, key_id: str) -> int:
        """The tokens of the prompts of all batches of a key that have not ended."""
        with self._redis.pipeline(transaction=False) as pipeline:
            for each in self.active():
                pipeline.hmget(keys.batch(each), "key_id", "queued_tokens")
            rows = pipeline.execute()
        return sum(int(tokens or 0) for owner, tokens in rows if owner == key_id.encode())

    def input_until(self, file_id: str) -> int:
        """When the last batch that reads this file expires; 0: none does."""
        with self._redis.pipeline(transaction=False) as pipeline:
            for each in self.active():
                pipeline.hmget(keys.batch(each), "input_file_id", "expires")
            rows = pipeline.execute()
        ends = [int(expires) for name, expires in rows if name == file_id.encode()]
        return max(ends, default=0)

    def change(self, batch_id: str, statuses: Collection[str], **values: Any) -> Batch | None:
        """Set some values of a batch, if it has one of these statuses; return it as it is then."""
        name = keys.batch(batch_id)

        def edit(pipeline: Any) -> None:
            status = pipeline.hget(name, "status")
            pipeline.multi()
            if status is not None and status.decode() in statuses:
                pipeline.hset(name, mapping=_encoded(values))

        self._redis.transaction(edit, name)
        return self.get(batch_id)

    def begin(self, batch_id: str, holder: str, **values: Any) -> None:
        """Set some values of a batch that was validated; raises Deposed."""

        def edit(pipeline: Any) -> None:
            pipeline.hset(keys.batch(batch_id), mapping=_encoded(values))

        self._as_runner(holder, edit)

    def mark(
        self,
        batch_id: str,
        holder: str,
        parts: Collection[str],
        lines: Collection[int],
        counts: Mapping[str, int],
    ) -> None:
        """Note that these lines have ended and that these objects hold their results.

        Raises Deposed if `holder` does not run batches any more: another process may have noted
        some of these lines.
        """

        def edit(pipeline: Any) -> None:
            for line in lines:
                pipeline.setbit(keys.batch_lines(batch_id), line, 1)
            pipeline.expire(keys.batch_lines(batch_id), keys.BATCH_SECONDS)
            if parts:
                pipeline.rpush(keys.batch_parts(batch_id), *parts)
                pipeline.expire(keys.batch_parts(batch_id), keys.BATCH_SECONDS)
            for name, count in counts.items():
                if count:
                    pipeline.hincrby(keys.batch(batch_id), name, count)

        self._as_runner(holder, edit)

    def ended_lines(self, batch_id: str) -> Callable[[int], bool]:
        """A function that says whether a line has ended before now."""
        bits = self._redis.get(keys.batch_lines(batch_id)) or b""

        def ended(line: int) -> bool:
            byte, bit = divmod(line, 8)
            return byte < len(bits) and bool(bits[byte] & (128 >> bit))

        return ended

    def parts(self, batch_id: str) -> list[str]:
        """The names of the objects that hold the results of a running batch."""
        return [each.decode() for each in self._redis.lrange(keys.batch_parts(batch_id), 0, -1)]

    def end(self, batch_id: str, holder: str, **values: Any) -> None:
        """Set the last values of a batch, which is still to be forgotten; raises Deposed."""

        def edit(pipeline: Any) -> None:
            pipeline.hset(keys.batch(batch_id), mapping=_encoded(values))
            pipeline.delete(keys.batch_lines(batch_id), keys.batch_parts(batch_id))

        self._as_runner(holder, edit)

    def delete(self, batch: Batch) -> None:
        """Forget a batch that has ended."""
        with self._redis.pipeline() as pipeline:
            pipeline.delete(keys.batch(batch.id))
            for owner in (batch.key_id, ""):
                pipeline.zrem(keys.batches(batch.api, owner), batch.id)
            pipeline.execute()

    def forget(self, batch_id: str) -> None:
        """Do nothing more for a batch."""
        self._redis.zrem(keys.BATCHES_ACTIVE, batch_id)

    def _as_runner(self, holder: str, edit: Callable[[Any], None]) -> None:
        def guarded(pipeline: Any) -> None:
            if pipeline.get(keys.BATCH_RUNNER) != holder.encode():
                raise Deposed
            pipeline.multi()
            edit(pipeline)

        self._redis.transaction(guarded, keys.BATCH_RUNNER)


def usage(body: bytes) -> dict[str, int]:
    """The tokens that a response of any of our APIs says were used, as fields of Batch."""
    try:
        counts = orjson.loads(body)["usage"]
        inside = counts.get("prompt_tokens_details") or counts.get("input_tokens_details") or {}
        out = counts.get("completion_tokens_details") or counts.get("output_tokens_details") or {}
        values = (
            counts.get("prompt_tokens", counts.get("input_tokens")),
            inside.get("cached_tokens"),
            counts.get("completion_tokens", counts.get("output_tokens")),
            out.get("reasoning_tokens"),
        )
    except (orjson.JSONDecodeError, KeyError, TypeError, AttributeError):
        return {}
    return {name: value for name, value in zip(USED, values, strict=True) if isinstance(value, int)}


def _encoded(values: Mapping[str, Any]) -> dict[str, Any]:
    return {name: str(value) for name, value in values.items()}


def _decoded(fields: Mapping[bytes, bytes]) -> Batch | None:
    values = {name.decode(): value for name, value in fields.items()}
    if "id" not in values:
        return None
    values.setdefault("api", values.get("door", b""))  # its name until November 2026
    return Batch(**{name: FIELDS[name](values[name]) for name in FIELDS if name in values})
