"""Moves the records of calls from Redis into the ledger, in one worker at a time.

An entry is deleted from the stream after the ledger has committed it, and the ledger counts a
record once however often it is written. So nothing is lost or doubled if this process is killed
anywhere, or if two processes write for a moment. While the database is away, records wait in Redis.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping
from typing import Any

import gevent
import orjson
from redis import Redis
from redis.exceptions import RedisError

from gateway import webhooks
from gateway.account.api_keys import webhook_keys
from gateway.account.copies import Copies
from gateway.account.key_fields import NANO
from gateway.account.ledger import Ledger, LedgerUnavailable, RecordRefused, received
from gateway.logs import where
from gateway.metrics.records import RecordCounter
from gateway.queue import keys
from gateway.queue.election import Election
from gateway.settings import ConfigurationError

log = logging.getLogger(__name__)

BATCH = 250  # records in one transaction
IDLE_SECONDS = 0.25  # between two looks at an empty stream
RETRY_SECONDS = (0.5, 10.0)  # at first and at most, while a store is away
TRIM_SECONDS = 10.0  # between two slices of what is too old


class LedgerWriter:
    """The ledger writer of one worker: idle while another worker's writes.

    `redis` is a client for short commands; `name` is the worker's. `counter` counts each record
    for the metrics, before it is moved.
    """

    def __init__(
        self, redis: Redis, ledger: Ledger, name: str, counter: RecordCounter | None = None
    ) -> None:
        self._redis, self._ledger, self._counter = redis, ledger, counter
        self._election = Election(redis, keys.LEDGER_WRITER, name)
        self._copies = Copies(redis, ledger) if ledger.copies else None
        self._trimmed = -TRIM_SECONDS
        self._checked = False  # whether the tables are ours
        self._away = 0  # failures in a row
        self._greenlet: Any = None

    def start(self) -> None:
        """Begin to move records, until `stop`."""
        self._greenlet = gevent.spawn(self._run)

    def stop(self) -> None:
        """Stop, and let another worker write at once."""
        if self._greenlet is not None:
            self._greenlet.kill()
        self._election.resign()

    def _run(self) -> None:
        while True:
            gevent.sleep(self.step())

    def step(self) -> float:
        """Move one batch if this worker is the writer; return after how many seconds to go on.

        Failures are logged, once until it works again.
        """
        try:
            busy = self._elected() and self._work()
        except (RedisError, LedgerUnavailable, ConfigurationError) as error:
            return self._retry(error, f"{type(error).__name__}: {error}")
        except Exception as error:
            return self._retry(error, f"{type(error).__name__} at {where(error)}")
        if self._away:
            log.info("ledger: records are written again")
        self._away = 0
        return 0.0 if busy else IDLE_SECONDS

    def _retry(self, error: Exception, reason: str) -> float:
        if not self._away:
            log.warning("ledger: records wait in Redis (%s)", reason)
        first, most = RETRY_SECONDS
        seconds = min(most, first * 2 ** min(self._away, 10))
        self._away += 1
        self._checked = False
        if not isinstance(error, RedisError):
            self._count_all()
            self._election.resign()  # another worker may reach the database
        return float(seconds)

    def _count_all(self) -> None:
        """Count the records that wait, since the metrics need no database."""
        try:
            if self._counter is not None:
                self._counter.catch_up()
        except RedisError:
            pass

    def _elected(self) -> bool:
        """Whether this worker is the one that writes."""
        if self._election.won():
            return True
        self._checked = False
        return False

    def _work(self) -> bool:
        """Do what is due; return whether records wait."""
        if not self._checked:
            self._ledger.check()
            self._checked = True
        with self._redis.pipeline() as pipeline:
            # Both at one moment: what is written after Redis was emptied must not be in the sums
            # that it gets back.
            pipeline.exists(keys.LEDGER_RESTORED)
            pipeline.xrange(keys.RECORDS, count=BATCH)
            restored, entries = pipeline.execute()
        if self._copies and not restored:
            self._copies.restore()
            return True
        if entries:
            self._move(entries)
        if self._copies:
            self._copies.update()
        now = time.monotonic()
        if len(entries) < BATCH and now - self._trimmed > TRIM_SECONDS:
            seconds, _ = self._redis.time()
            if not self._ledger.trim(seconds * 1000):
                self._trimmed = now
        return len(entries) == BATCH

    def _move(self, entries: list[tuple[bytes, dict[bytes, bytes]]]) -> None:
        records, refused = {}, []
        for stream_id, fields in entries:
            try:
                records[stream_id] = received(fields)
            except ValueError:
                refused.append(stream_id)
        if self._counter is not None:
            self._counter.count(records)
        try:
            self._ledger.write(list(records.values()))
        except RecordRefused:
            for stream_id, record in records.items():
                try:
                    self._ledger.write([record])
                except RecordRefused:
                    refused.append(stream_id)
        alerts = [
            (stream_id.decode(), records[stream_id].key_id, alert)
            for stream_id, fields in entries
            if b"a" in fields and stream_id in records
            for alert in orjson.loads(fields[b"a"])
        ]
        for entry, key_id, alert in alerts:
            self._announce(key_id, alert, f"{entry} {alert['share']}")
        for record in records.values():
            if record.response_id:
                event = webhooks.of_response(record.status, record.finish_reason)
                webhooks.enqueue(self._redis, record.key_id, event, record.response_id)
        with self._redis.pipeline() as pipeline:
            for stream_id, fields in entries:
                if stream_id in refused:
                    log.error("ledger: record %s is not one: see gw:records:refused", stream_id)
                    pipeline.xadd(keys.RECORDS_REFUSED, fields)  # type: ignore[arg-type]
            pipeline.xdel(keys.RECORDS, *(stream_id for stream_id, _ in entries))
            pipeline.execute()
        for _, _, alert in alerts:
            log.warning("limit used up", extra={"fields": spent(alert)})

    def _announce(self, key_id: str, alert: Mapping[str, Any], occurrence: str) -> None:
        """Queue the events of an alert: for the key, or for all keys of the owner."""
        scope: str = alert["scope"]
        if scope == key_id:
            webhooks.enqueue(self._redis, key_id, webhooks.BUDGET, key_id, occurrence)
            return
        owner = scope.removeprefix(keys.owner_scope(""))
        for each in webhook_keys(self._redis, owner):
            webhooks.enqueue(self._redis, each, webhooks.OWNER_BUDGET, owner, occurrence)


def spent(alert: Mapping[str, Any]) -> dict[str, Any]:
    """Return the fields of the log for an alert of lua/account.lua; money is in USD."""
    money = alert["unit"] == "usd"
    scope = alert["scope"]
    owner = scope.removeprefix(keys.owner_scope(""))
    return {
        "owner" if owner != scope else "key_id": owner,
        "share": alert["share"],
        **{name: alert[name] / NANO if money else int(alert[name]) for name in ("spent", "limit")},
        "unit": alert["unit"],
        "window": alert["window"],
    }
