"""Runs batches, in one web process at a time: here, because only the APIs know their requests.

A line is a request that this process makes of the app (see api/http/line.py): a call with limits, a
record and a priority of its own. Its Idempotency-Key is the batch and the line, so that another
runner gets the response of the same call.

Results are stored in parts. A line has ended once a part with its result is stored and noted in
Redis, which is possible only for the process that holds the lease. So a process may be killed
anywhere, or be replaced while it stands still: each line has one result.
"""

from __future__ import annotations

import contextlib
import logging
import random
import time
import uuid
from collections import Counter
from collections.abc import Iterator, Mapping
from itertools import chain, islice
from typing import Any, NamedTuple

import gevent
import orjson
from flask import Flask
from gevent.event import Event
from gevent.pool import Group
from redis.exceptions import RedisError

from api.batches.doors import DOORS, ERROR, OUTPUT
from api.batches.validation import PATHS, TURN_SECONDS, Checked, check_lines
from api.http import line as line_api
from api.http.line import Line, LineReply
from api.idempotency import name_in_redis
from api.services import services
from gateway import webhooks
from gateway.broker.places import Places
from gateway.errors import ModelNotFound
from gateway.files import records
from gateway.files.batches import Batch, Deposed, parts_of, usage
from gateway.files.lines import lines
from gateway.files.records import FileRecord
from gateway.files.storage import ObjectMissing, Storage, StorageUnavailable, put
from gateway.logs import where
from gateway.queue import commands, keys
from gateway.queue.election import Election

log = logging.getLogger(__name__)

LOOK_SECONDS = 0.5  # between two looks for batches and their cancellation
AWAY_SECONDS = 2.0  # before a batch is tried again whose storage or Redis is away
FAULT_SECONDS = 10.0  # and one that failed because of a bug
FLUSH_SECONDS = 5.0  # that results wait before they are stored
FLUSH_BYTES = 4_194_304  # of results that are stored at once
PLACE_SECONDS = 0.05  # between two tries to get a place for a line
RETRY_SECONDS = 900.0  # for which a line is tried again that a provider or this service refuses
PAUSE_SECONDS = (1.0, 30.0)  # between two tries, at first and at most
STOP_SECONDS = 600.0  # that running lines of a cancelled batch get to end
MOST_LOST = 20  # names of a line: one for each runner that was killed at it
LATE_SECONDS = 5.0  # that running lines of an expired batch get: their deadline is its end
STOPPED_LINES = 500  # whose calls are looked for at once, to be stopped
SWEEP_SECONDS = 60.0  # between two sweeps of what has expired
ENVELOPE_BYTES = 65_536  # of a line besides its body
NO_INPUT = ("file_not_found", "The input file does not exist.", None, "input_file_id")
TOKEN_LIMIT = (
    "Enqueued token limit reached for this API key. Limit: {} enqueued tokens. Please try again "
    "once some in_progress batches have been completed."
)


class BatchRunner:
    """The runner of one web process: idle while another process runs batches.

    `prefix` begins the addresses of the app's APIs.
    """

    def __init__(self, app: Flask, prefix: str) -> None:
        self.app, self._prefix = app, prefix
        self.services = services(app)
        storage = self.services.storage
        assert storage is not None, "FILES_URL is not set"
        self.storage: Storage = storage
        self.name = self.services.broker.web
        self.places = Places(self.services.settings.batch_concurrency)
        self._election = Election(self.services.broker.redis, keys.BATCH_RUNNER, self.name)
        self._runs: dict[str, gevent.Greenlet] = {}
        self._swept = -SWEEP_SECONDS
        self._away = False
        self._greenlet: Any = None

    def start(self) -> None:
        """Begin to run batches, until `stop`."""
        self._greenlet = gevent.spawn(self._loop)

    def stop(self) -> None:
        """Stop, and let another process go on at once. Running calls go on without this one."""
        if self._greenlet is not None:
            self._greenlet.kill()
        self._drop()
        self._election.resign()

    def step(self) -> None:
        """Start what is due, if this process is the one that runs batches. Raises RedisError."""
        if not self._election.won():
            self._drop()
            return
        for batch_id, run in list(self._runs.items()):
            if run.ready():
                del self._runs[batch_id]
        for batch_id in self.services.batches.active():
            if batch_id not in self._runs:
                self._runs[batch_id] = gevent.spawn(BatchRun(self, batch_id).run)
        if time.monotonic() - self._swept > SWEEP_SECONDS:
            self._swept = time.monotonic()
            while self.services.files.sweep(self.storage):
                pass

    def path(self, batch: Batch, request: Mapping[str, Any]) -> str:
        """The address in this app that a line names."""
        return self._prefix + (PATHS.get(request.get("url", "")) or batch.endpoint)

    def _loop(self) -> None:
        while True:
            try:
                self.step()
                self._away = False
            except (RedisError, StorageUnavailable) as error:
                if not self._away:
                    log.warning("batches: %s: %s", type(error).__name__, error)
                self._away = True
            except Exception as error:
                log.error("batches: %s at %s", type(error).__name__, where(error))
            gevent.sleep(LOOK_SECONDS)

    def _drop(self) -> None:
        runs, self._runs = self._runs, {}
        gevent.killall(list(runs.values()))


class BatchRun:
    """One batch on its way to its end."""

    def __init__(self, runner: BatchRunner, batch_id: str) -> None:
        self._runner, self._id = runner, batch_id
        self._store, self._files = runner.services.batches, runner.services.files
        self._storage = runner.storage
        self._group = Group()
        self._results: list[_Result] = []
        self._stopping = Event()
        self._looked = self._flushed = 0.0
        self._lost = False  # whether the input has disappeared

    def run(self) -> None:
        """Bring the batch to its end, whatever part of it is done already."""
        while True:
            try:
                while not self._step():
                    pass
                return
            except Deposed:
                return
            except (RedisError, StorageUnavailable) as error:
                log.warning("batch %s waits (%s: %s)", self._id, type(error).__name__, error)
                seconds = AWAY_SECONDS
            except Exception as error:
                log.error("batch %s: %s at %s", self._id, type(error).__name__, where(error))
                seconds = FAULT_SECONDS
            finally:
                self._group.kill()
            gevent.sleep(seconds)

    def _step(self) -> bool:
        """Do the next part of the work; return whether the batch has ended."""
        batch = self._store.get(self._id)
        if batch is None:
            self._store.forget(self._id)
            return True
        if not batch.active:
            redis = self._runner.services.broker.redis
            webhooks.enqueue(redis, batch.key_id, f"batch.{batch.status}", self._id)
            self._storage.delete(self._storage.names(parts_of(self._id), time.time() + 86_400))
            self._store.forget(self._id)
            return True
        if batch.status == "validating":
            self._validate(batch)
            return False
        if batch.status != "finalizing" and batch.lines:
            self._work(batch)
        self._finish(self._store.get(self._id) or batch)
        return False

    # Validation

    def _validate(self, batch: Batch) -> None:
        try:
            checked = self._checked(batch)
        except ObjectMissing:
            checked = Checked()
            checked.refuse(*NO_INPUT)
        now = int(time.time())
        if checked.errors:
            errors = orjson.dumps(checked.errors).decode()
            self._end("failed", batch, errors=errors)
            return
        values = {"lines": checked.lines, "model": checked.model, "queued_tokens": checked.tokens}
        self._store.begin(self._id, self._runner.name, **values)
        self._store.change(self._id, ("validating",), status="in_progress", in_progress=now)

    def _checked(self, batch: Batch) -> Checked:
        if not batch.input_object:
            raise ObjectMissing(batch.input_file_id)
        if batch.lines:  # they were checked when the batch was created
            return Checked(batch.lines, batch.queued_tokens, batch.model)
        key = self._runner.services.keys.get(batch.key_id)
        catalogue = self._runner.services.catalogue

        def resolve(model: str) -> None:
            target = catalogue.resolve(model)
            if key is not None and not key.allows(target.model, model):
                raise ModelNotFound

        checked = check_lines(self._lines(batch), batch.endpoint, resolve)
        limit = None if key is None else key.batch_tokens_queued
        if limit is not None and not checked.errors:
            if self._store.queued_tokens(batch.key_id) + checked.tokens > limit:
                checked.refuse("token_limit_exceeded", TOKEN_LIMIT.format(limit))
        return checked

    # Lines

    def _lines(self, batch: Batch) -> Iterator[tuple[int, bytes | None]]:
        longest = self._runner.services.settings.max_body_bytes + ENVELOPE_BYTES
        return lines(self._storage.read(batch.input_object), longest)

    def _work(self, batch: Batch) -> None:
        """Run the lines that have not ended, until all have or the batch is to stop."""
        self._group, self._results = Group(), []
        self._stopping.clear()
        ended, places = self._store.ended_lines(self._id), self._runner.places
        try:
            for number, text in self._lines(batch):
                if text is None or ended(number):
                    continue
                while self._going_on(batch) and not places.take(batch.key_id):
                    self._stopping.wait(PLACE_SECONDS)
                if self._stopping.is_set():
                    break
                run = self._group.spawn(self._run_line, batch, number, text)
                # Not in the greenlet: it may be killed before it runs.
                run.rawlink(lambda _: places.give_back(batch.key_id))
        except ObjectMissing:
            self._lost = True
        end = None
        while len(self._group):
            if not self._going_on(batch) and end is None:
                patience = STOP_SECONDS if time.time() < batch.expires else LATE_SECONDS
                end = time.monotonic() + patience
            if end is not None and time.monotonic() > end:
                self._group.kill()
            self._group.join(timeout=PLACE_SECONDS)
        self._flush(batch)

    def _going_on(self, batch: Batch) -> bool:
        """Do what is due while lines run; return whether further ones may start."""
        now = time.monotonic()
        if now - self._looked > LOOK_SECONDS:
            self._looked = now
            current = self._store.get(self._id)
            if current is None or current.status == "cancelling" or time.time() >= batch.expires:
                self._stopping.set()
        size = sum(len(result.text) for result in self._results)
        if self._results and (size > FLUSH_BYTES or now - self._flushed > FLUSH_SECONDS):
            self._flush(batch)
        return not self._stopping.is_set()

    def _run_line(self, batch: Batch, number: int, text: bytes) -> None:
        try:
            request = orjson.loads(text)
            reply = self._reply(batch, number, request)
            if reply is not None:
                kind, result = DOORS[batch.door].result(request["custom_id"], reply)
                good = reply.status == 200
                used = usage(reply.body) if good else {}
                call_id = reply.headers.get("x-generation-id", "")
                self._results.append(_Result(number, kind, result, good, used, call_id))
        except Exception as error:  # the batch ends without a result of this line
            log.error("batch %s: %s at %s", self._id, type(error).__name__, where(error))

    def _reply(self, batch: Batch, number: int, request: Mapping[str, Any]) -> LineReply | None:
        """What the app returns for a line; None if the batch stops before."""
        path = self._runner.path(batch, request)
        body = orjson.dumps(request["body"])
        began, tries, lost = time.monotonic(), 0, 0
        while True:
            left = batch.expires - time.time()
            if left <= 0:
                return None
            headers = {
                "Idempotency-Key": self._name(number, lost),
                "X-Request-Timeout": f"{left:.3f}",
                "User-Agent": "batch",
            }
            line = Line(batch.key_id, self._id)
            reply = line_api.call(self._runner.app, line, path, body, headers)
            if reply.status == 504 and time.time() >= batch.expires:
                return None
            if never_queued(reply) and lost < MOST_LOST:
                lost += 1  # the same name would stand for that call for a day
                continue
            seconds = pause(reply, tries, time.monotonic() - began)
            if seconds is None:
                return reply
            tries += 1
            if self._stopping.wait(seconds):
                return None

    def _name(self, number: int, lost: int = 0) -> str:
        """The Idempotency-Key of a line, after so many lost names."""
        return f"{self._id}:{number}" + (f":{lost}" if lost else "")

    def _stop_calls(self, batch: Batch) -> None:
        """Stop the calls of lines without a result, also at their providers.

        They have run for long enough, or the runner that waited for them was killed.
        """
        redis, pepper = (
            self._runner.services.broker.redis,
            self._runner.services.settings.key_pepper,
        )
        ended = self._store.ended_lines(self._id)
        left = (number for number, text in self._lines(batch) if text and not ended(number))
        while numbers := list(islice(left, STOPPED_LINES)):
            for lost in range(MOST_LOST):
                names = [self._name(number, lost) for number in numbers]
                calls = commands.idempotent_calls(
                    redis, [name_in_redis(pepper, batch.key_id, name) for name in names]
                )
                if not calls:
                    break
                for call_id in calls:
                    commands.cancel(redis, call_id)
            gevent.sleep(TURN_SECONDS)

    def _flush(self, batch: Batch) -> None:
        """Store the results so far and note that their lines have ended."""
        self._flushed = time.monotonic()
        results, self._results = self._results, []
        if not results:
            return
        parts = []
        for kind in (OUTPUT, ERROR):
            texts = [result.text for result in results if result.kind == kind]
            if texts:
                name = f"{parts_of(self._id)}{uuid.uuid4().hex}-{kind}"
                put(self._storage, name, texts)
                parts.append(name)
        counts: Counter[str] = Counter()
        for result in results:
            counts["lines_completed" if result.good else "lines_failed"] += 1
            counts.update(result.used)
        ended = [result.number for result in results]
        self._store.mark(self._id, self._runner.name, parts, ended, counts)
        # Nobody will ask for these responses again, and Redis would keep them for a day.
        redis = self._runner.services.broker.redis
        for result in results:
            if result.call_id:
                commands.delete_log(redis, batch.key_id, result.call_id)

    # The end

    def _finish(self, batch: Batch) -> None:
        """Write the files of a batch whose lines have ended or will not be run."""
        cancelled = batch.status == "cancelling"
        left = batch.lines - batch.lines_completed - batch.lines_failed
        if not cancelled:
            now = int(time.time())
            self._store.change(self._id, ("in_progress",), status="finalizing", finalizing=now)
        if left:
            with contextlib.suppress(ObjectMissing):
                self._stop_calls(batch)
        reason = "cancelled" if cancelled else "expired" if left else ""
        values: dict[str, Any] = {}
        for kind, file_id in ((OUTPUT, batch.output_id), (ERROR, batch.error_id)):
            if self._write(batch, kind, file_id, reason if left else ""):
                values[f"{kind}_file_id"] = file_id
        if left:
            values[f"lines_{reason}"] = left
        status = reason or "completed"
        if self._lost and reason == "expired":
            status = "failed"
            checked = Checked()
            checked.refuse(*NO_INPUT)
            values["errors"] = orjson.dumps(checked.errors).decode()
        self._end(status, batch, **values)

    def _write(self, batch: Batch, kind: str, file_id: str, reason: str) -> bool:
        """Write one of the two files; return whether there was anything to write.

        `reason` says why some lines did not run ("": all did).
        """
        content = self._content(batch, kind, reason)
        first = next(content, None)
        if first is None:
            return False
        size = put(self._storage, records.object_name(file_id), chain((first,), content))
        now, door = int(time.time()), DOORS[batch.door]
        record = FileRecord(
            id=file_id,
            key_id=batch.key_id,
            filename=f"{batch.id}_{kind}.jsonl",
            bytes=size,
            purpose=door.purpose,
            created=now,
            expires=records.expiry(now, batch.output_seconds or None),
        )
        self._files.add(record, listed=door.files_listed)
        return True

    def _content(self, batch: Batch, kind: str, reason: str) -> Iterator[bytes]:
        for name in self._store.parts(self._id):
            if name.endswith(f"-{kind}"):
                yield from self._storage.read(name)
        door = DOORS[batch.door]
        if not reason or door.unfinished_kind != kind:
            return
        ended = self._store.ended_lines(self._id)
        with contextlib.suppress(ObjectMissing):
            for number, text in self._lines(batch):
                if text is not None and not ended(number):
                    yield door.unfinished(orjson.loads(text)["custom_id"], reason)

    def _end(self, status: str, batch: Batch, **values: Any) -> None:
        values |= {"status": status, status: int(time.time()), "queued_tokens": 0}
        self._store.end(self._id, self._runner.name, **values)


class _Result(NamedTuple):
    """How a line ended: its number, its result and the file for it, the tokens used, its call."""

    number: int
    kind: str
    text: bytes
    good: bool
    used: Mapping[str, int]
    call_id: str


def never_queued(reply: LineReply) -> bool:
    """Whether the runner before this one was killed before it had queued the call of the line.

    Then its name is noted, and Redis knows no such call (`job_lost`).
    """
    return reply.status == 503 and "idempotent-replayed" in reply.headers


def pause(reply: LineReply, tries: int, elapsed: float) -> float | None:
    """Seconds until a line is tried again that got this reply; None: it stays so.

    Only what did not reach a provider, or was not acted on, is tried again: for RETRY_SECONDS, and
    where a limit of the key refuses it as long as the batch lasts.
    """
    should_retry = reply.headers.get("x-should-retry")
    if should_retry == "false" or (should_retry is None and reply.status != 429):
        return None
    if elapsed > RETRY_SECONDS and "x-limit-name" not in reply.headers:
        return None
    first, most = PAUSE_SECONDS
    wait = float(reply.headers.get("retry-after", 0))
    own: float = min(most, first * 2 ** min(tries, 10))
    return max(wait, own * random.uniform(0.5, 1))
