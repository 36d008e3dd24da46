"""What is known of each file. Redis holds it until the file expires."""

from __future__ import annotations

import contextlib
import dataclasses
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import orjson
from redis import Redis
from redis.exceptions import RedisError

from gateway.errors import InvalidRequest
from gateway.files.storage import ObjectMissing, Storage
from gateway.queue import keys

LIFETIME_SECONDS = 30 * 86_400  # of a file, unless its owner wants less
PAGE = 1_000  # records that are read at once
SWEPT = 100  # expired files that are deleted at once
UPLOAD_SECONDS = 14_400  # that an upload has room for: longer than the slowest one takes


@dataclass(frozen=True, slots=True)
class FileRecord:
    """One file of an API key. `created` and `expires` are seconds since 1970."""

    id: str
    key_id: str
    filename: str
    bytes: int
    purpose: str
    created: int
    expires: int


def new_id() -> str:
    """An id for a file."""
    return f"file-{uuid.uuid4().hex}"


def object_name(file_id: str) -> str:
    """The name of the object that holds the content of a file."""
    return f"files/{file_id}"


class FileStore:
    """The records of files, by id. All methods raise RedisError if Redis is away.

    The files of a key have at most `most_bytes` together, and are at most `most_files`. What a
    batch writes counts too, but is never refused: it has been paid for.
    """

    def __init__(self, redis: Redis, most_bytes: int, most_files: int) -> None:
        self._redis: Any = redis  # its types join the results of all clients
        self._most_bytes, self._most_files = most_bytes, most_files

    @contextlib.contextmanager
    def room(self, key_id: str, file_id: str, size: int) -> Iterator[None]:
        """Hold room for a file of at most `size` bytes, which arrives inside the block.

        Add its record there. A block that fails gives the room back; that of a process that was
        killed is given back after UPLOAD_SECONDS. Raises InvalidRequest if there is no room.
        """
        sizes, owned = keys.file_sizes(key_id), f"{key_id}/{file_id}"
        until = self._redis.time()[0] + UPLOAD_SECONDS

        def edit(pipeline: Any) -> None:
            held = [int(each) for each in pipeline.hvals(sizes)]
            if len(held) >= self._most_files:
                raise _quota_exceeded(f"{self._most_files} files")
            if sum(held) + size > self._most_bytes:
                raise _quota_exceeded(f"{self._most_bytes} bytes of files")
            pipeline.multi()
            pipeline.hset(sizes, file_id, size)
            pipeline.expire(sizes, keys.FILES_SECONDS)
            pipeline.zadd(keys.FILES_EXPIRING, {owned: until})

        self._redis.transaction(edit, sizes)
        try:
            yield
        except BaseException:
            with contextlib.suppress(RedisError), self._redis.pipeline() as pipeline:
                pipeline.hdel(sizes, file_id)
                pipeline.zrem(keys.FILES_EXPIRING, owned)
                pipeline.execute()
            raise

    def add(self, record: FileRecord, listed: bool = True) -> None:
        """Keep a record until the file expires. Added again, it replaces itself."""
        owned = f"{record.key_id}/{record.id}"
        with self._redis.pipeline() as pipeline:
            pipeline.set(
                keys.file(record.id), orjson.dumps(dataclasses.asdict(record)), exat=record.expires
            )
            for index in (keys.files(record.key_id), keys.files("")) if listed else ():
                pipeline.zadd(index, {record.id: record.created})
                pipeline.expire(index, keys.FILES_SECONDS)
            pipeline.hset(keys.file_sizes(record.key_id), record.id, record.bytes)
            pipeline.expire(keys.file_sizes(record.key_id), keys.FILES_SECONDS)
            pipeline.zadd(keys.FILES_EXPIRING, {owned: record.expires})
            pipeline.execute()

    def get(self, file_id: str, key_id: str = "") -> FileRecord | None:
        """The record of a file; None if there is none, or none of this key ("": of any key)."""
        return self._decoded(self._redis.get(keys.file(file_id)), key_id)

    def page(
        self, key_id: str, *, after: str, limit: int, descending: bool, purpose: str
    ) -> tuple[list[FileRecord], bool] | None:
        """Some files of a key ("": of all), by age, and whether there are more.

        `after` is the id of the last file before them, and `purpose` that of all of them ("": any).
        None: there is no file `after`.
        """
        index = keys.files(key_id)
        start = 0
        if after:
            rank = (self._redis.zrevrank if descending else self._redis.zrank)(index, after)
            if rank is None:
                return None
            start = rank + 1
        records: list[FileRecord] = []
        for record in self._from(index, start, descending):
            if purpose in ("", record.purpose):
                if len(records) == limit:
                    return records, True
                records.append(record)
        return records, False

    def keep(self, record: FileRecord, until: int) -> None:
        """Keep the content of a file until then, even if the file expires before."""
        owned = f"{record.key_id}/{record.id}"
        self._redis.zadd(keys.FILES_EXPIRING, {owned: until}, xx=True, gt=True)

    def delete(self, record: FileRecord, until: int = 0) -> None:
        """Forget a file. Its content is deleted by the next sweep after `until`.

        Its room is free at once, unless the content is still needed.
        """
        owned = f"{record.key_id}/{record.id}"
        with self._redis.pipeline() as pipeline:
            pipeline.delete(keys.file(record.id))
            pipeline.zrem(keys.files(record.key_id), record.id)
            pipeline.zrem(keys.files(""), record.id)
            pipeline.zadd(keys.FILES_EXPIRING, {owned: until}, xx=True)
            if not until:
                pipeline.hdel(keys.file_sizes(record.key_id), record.id)
            pipeline.execute()

    def sweep(self, storage: Storage) -> int:
        """Delete the content of some expired files; return of how many.

        Raises StorageUnavailable.
        """
        now, _ = self._redis.time()
        owned = self._redis.zrangebyscore(keys.FILES_EXPIRING, 0, now, start=0, num=SWEPT)
        pairs = [each.decode().split("/") for each in owned]
        storage.delete([object_name(file_id) for _, file_id in pairs])
        with self._redis.pipeline() as pipeline:
            for (key_id, file_id), each in zip(pairs, owned, strict=True):
                pipeline.zrem(keys.files(key_id), file_id)
                pipeline.zrem(keys.files(""), file_id)
                pipeline.hdel(keys.file_sizes(key_id), file_id)
                pipeline.zrem(keys.FILES_EXPIRING, each)
            pipeline.execute()
        return len(owned)

    def _from(self, index: str, start: int, descending: bool) -> Iterator[FileRecord]:
        while ids := self._redis.zrange(index, start, start + PAGE - 1, desc=descending):
            for data in self._redis.mget([keys.file(each.decode()) for each in ids]):
                if record := self._decoded(data, ""):
                    yield record
            start += PAGE

    def _decoded(self, data: bytes | None, key_id: str) -> FileRecord | None:
        record = None if data is None else FileRecord(**orjson.loads(data))
        return record if record and key_id in ("", record.key_id) else None


def _quota_exceeded(limit: str) -> InvalidRequest:
    """OpenAI's status, type and text; OpenAI has no code for it."""
    return InvalidRequest(
        f"You have exceeded your file storage quota. API keys are limited to {limit}. Please "
        "delete old files or attempt with a smaller file size.",
        code="file_storage_quota_exceeded",
    )


def expiry(now: float, seconds: int | None) -> int:
    """When a file expires that lives so long; None: as long as files do by default."""
    return int(now) + (LIFETIME_SECONDS if seconds is None else seconds)


def content(storage: Storage, record: FileRecord) -> Iterator[bytes]:
    """The content of a file in pieces, the first of which has been read; raises ObjectMissing."""
    pieces = storage.read(object_name(record.id))
    first = next(pieces, b"")
    if len(first) < min(record.bytes, 1):
        raise ObjectMissing(record.id)

    def rest() -> Iterator[bytes]:
        yield first
        yield from pieces

    return rest()
