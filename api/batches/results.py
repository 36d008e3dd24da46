"""The results of a batch: stored in parts while its lines run, and as files in the end."""

from __future__ import annotations

import time
import uuid
from collections import Counter
from collections.abc import Iterable, Mapping
from itertools import chain
from typing import NamedTuple

from api.batches.apis import APIS, ERROR, OUTPUT
from api.http.line import LineReply
from api.services import Services
from gateway.files import records
from gateway.files.batches import Batch, parts_of, usage
from gateway.files.records import FileRecord
from gateway.files.storage import Storage, put
from gateway.queue import event_logs

FLUSH_SECONDS = 5.0  # that results wait before they are stored
FLUSH_BYTES = 4_194_304  # of results that are stored at once


class _Result(NamedTuple):
    """How a line ended: its number, its result and the file for it, the tokens used, its call."""

    number: int
    kind: str
    text: bytes
    good: bool
    used: Mapping[str, int]
    call_id: str


class Results:
    """Collects and stores the results of one batch.

    Raises RedisError, StorageUnavailable, and Deposed if another process runs batches.
    """

    def __init__(self, services: Services, storage: Storage, batch: Batch) -> None:
        self._services, self._storage, self._batch = services, storage, batch
        self._results: list[_Result] = []
        self._flushed = 0.0

    def add(self, number: int, custom_id: str, reply: LineReply) -> None:
        """Keep the result of a line until it is stored."""
        kind, text = APIS[self._batch.api].result(custom_id, reply)
        good = reply.status == 200
        used = usage(reply.body) if good else {}
        call_id = reply.headers.get("x-generation-id", "")
        self._results.append(_Result(number, kind, text, good, used, call_id))

    def flush_due(self) -> None:
        """Store the results so far if they are many or have waited."""
        size = sum(len(result.text) for result in self._results)
        if size > FLUSH_BYTES or time.monotonic() - self._flushed > FLUSH_SECONDS:
            self.flush()

    def flush(self) -> None:
        """Store the results so far and note that their lines have ended."""
        results, self._results = self._results, []
        if not results:
            return
        self._flushed = time.monotonic()
        parts = []
        for kind in (OUTPUT, ERROR):
            texts = [result.text for result in results if result.kind == kind]
            if texts:
                name = f"{parts_of(self._batch.id)}{uuid.uuid4().hex}-{kind}"
                put(self._storage, name, texts)
                parts.append(name)
        counts: Counter[str] = Counter()
        for result in results:
            counts["lines_completed" if result.good else "lines_failed"] += 1
            counts.update(result.used)
        ended = [result.number for result in results]
        broker = self._services.broker
        self._services.batches.mark(self._batch.id, broker.web, parts, ended, counts)
        # Nobody will ask for these responses again, and Redis would keep them for a day.
        for result in results:
            if result.call_id:
                event_logs.delete_log(broker.redis, self._batch.key_id, result.call_id)

    def write(self, kind: str, file_id: str, unfinished: Iterable[bytes]) -> bool:
        """Write one of the two files; return whether there was anything to write.

        `unfinished` are its lines of requests that did not run.
        """
        parts = (name for name in self._services.batches.parts(self._batch.id))
        stored = (self._storage.read(name) for name in parts if name.endswith(f"-{kind}"))
        content = chain(chain.from_iterable(stored), unfinished)
        first = next(content, None)
        if first is None:
            return False
        size = put(self._storage, records.object_name(file_id), chain((first,), content))
        now, api = int(time.time()), APIS[self._batch.api]
        record = FileRecord(
            id=file_id,
            key_id=self._batch.key_id,
            filename=f"{self._batch.id}_{kind}.jsonl",
            bytes=size,
            purpose=api.purpose,
            created=now,
            expires=records.expiry(now, self._batch.output_seconds or None),
        )
        self._services.files.add(record, listed=api.files_listed)
        return True
