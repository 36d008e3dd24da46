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
import time
from collections.abc import Iterator, Mapping
from typing import Any

import gevent
import orjson
from flask import Flask
from gevent.event import Event
from gevent.pool import Group
from redis.exceptions import RedisError

from api.batches import line_calls
from api.batches.apis import APIS, ERROR, OUTPUT
from api.batches.results import Results
from api.batches.validation import ENVELOPE_BYTES, PATHS, TOKEN_LIMIT, Checked, check_lines
from api.services import services
from gateway import webhooks
from gateway.broker.places import Places
from gateway.errors import ModelNotFound
from gateway.files.batches import Batch, Deposed, parts_of
from gateway.files.lines import lines
from gateway.files.storage import ObjectMissing, Storage, StorageUnavailable
from gateway.logs import where
from gateway.queue import keys
from gateway.queue.election import Election

log = logging.getLogger(__name__)

LOOK_SECONDS = 0.5  # between two looks for batches and their cancellation
AWAY_SECONDS = 2.0  # before a batch is tried again whose storage or Redis is away
FAULT_SECONDS = 10.0  # and one that failed because of a bug
PLACE_SECONDS = 0.05  # between two tries to get a place for a line
STOP_SECONDS = 600.0  # that running lines of a cancelled batch get to end
LATE_SECONDS = 5.0  # that running lines of an expired batch get: their deadline is its end
SWEEP_SECONDS = 60.0  # between two sweeps of what has expired
NO_INPUT = ("file_not_found", "The input file does not exist.", None, "input_file_id")


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

    _results: Results  # of the lines that run

    def __init__(self, runner: BatchRunner, batch_id: str) -> None:
        self._runner, self._id = runner, batch_id
        self._store, self._files = runner.services.batches, runner.services.files
        self._storage = runner.storage
        self._group = Group()
        self._stopping = Event()
        self._looked = 0.0
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

    def _new_results(self, batch: Batch) -> Results:
        return Results(self._runner.services, self._storage, batch)

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
        self._group, self._results = Group(), self._new_results(batch)
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
        self._results.flush()

    def _going_on(self, batch: Batch) -> bool:
        """Do what is due while lines run; return whether further ones may start."""
        now = time.monotonic()
        if now - self._looked > LOOK_SECONDS:
            self._looked = now
            current = self._store.get(self._id)
            if current is None or current.status == "cancelling" or time.time() >= batch.expires:
                self._stopping.set()
        self._results.flush_due()
        return not self._stopping.is_set()

    def _run_line(self, batch: Batch, number: int, text: bytes) -> None:
        try:
            request = orjson.loads(text)
            path = self._runner.path(batch, request)
            app, stopping = self._runner.app, self._stopping
            reply = line_calls.call(app, batch, number, path, request, stopping)
            if reply is not None:
                self._results.add(number, request["custom_id"], reply)
        except Exception as error:  # the batch ends without a result of this line
            log.error("batch %s: %s at %s", self._id, type(error).__name__, where(error))

    # The end

    def _finish(self, batch: Batch) -> None:
        """Write the files of a batch whose lines have ended or will not be run."""
        cancelled = batch.status == "cancelling"
        left = batch.lines - batch.lines_completed - batch.lines_failed
        if not cancelled:
            now = int(time.time())
            self._store.change(self._id, ("in_progress",), status="finalizing", finalizing=now)
        if left:
            numbers = (number for number, _ in self._without_result(batch))
            line_calls.stop(self._runner.services, batch, numbers)
        reason = "cancelled" if cancelled else "expired" if left else ""
        values: dict[str, Any] = {}
        results = self._new_results(batch)
        for kind, file_id in ((OUTPUT, batch.output_id), (ERROR, batch.error_id)):
            has_unfinished = left and APIS[batch.api].unfinished_kind == kind
            unfinished = self._unfinished(batch, reason) if has_unfinished else ()
            if results.write(kind, file_id, unfinished):
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

    def _unfinished(self, batch: Batch, reason: str) -> Iterator[bytes]:
        """The results of the lines that did not run."""
        for _, text in self._without_result(batch):
            yield APIS[batch.api].unfinished(orjson.loads(text)["custom_id"], reason)

    def _without_result(self, batch: Batch) -> Iterator[tuple[int, bytes]]:
        """The lines that have not ended; none if the input has disappeared."""
        ended = self._store.ended_lines(self._id)
        with contextlib.suppress(ObjectMissing):
            for number, text in self._lines(batch):
                if text is not None and not ended(number):
                    yield number, text

    def _end(self, status: str, batch: Batch, **values: Any) -> None:
        values |= {"status": status, status: int(time.time()), "queued_tokens": 0}
        self._store.end(self._id, self._runner.name, **values)
