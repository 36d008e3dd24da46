"""Adds what a process counts to the counters in Redis, every few seconds and when it ends."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields
from typing import Any

import gevent
import orjson
from redis import Redis
from redis.exceptions import RedisError

from gateway.logs import where
from gateway.memory import resident
from gateway.metrics import families as f
from gateway.metrics.counts import Counts, Recent, count_command
from gateway.queue import keys, scripts
from gateway.queue.clients import Command
from gateway.stalls import Stalls

log = logging.getLogger(__name__)

FLUSH_SECONDS = 3.0
SILENT_SECONDS = 15.0  # without a report: the process has ended


@dataclass(frozen=True, slots=True)
class Report:
    """How a process is: `calls` that it holds, resident `memory` in bytes, the `lag` of its inbox
    in seconds, all at a moment (`at`, seconds since 1970 by Redis' clock)."""

    kind: str
    at: float
    calls: int = 0
    memory: int = 0
    lag: float = 0.0

    def encode(self) -> bytes:
        """Return the report as JSON."""
        return orjson.dumps(self)


FIELDS = tuple(item.name for item in fields(Report))


def reports(rows: Mapping[bytes, bytes], now: float) -> list[Report]:
    """Return what living processes have reported; `now` is Redis' time in seconds since 1970."""
    living = []
    for row in rows.values():
        report = orjson.loads(row)
        report = Report(**{name: report[name] for name in FIELDS if name in report})
        if now - report.at < SILENT_SECONDS:
            living.append(report)
    return living


class Reporter:
    """Counts of one process, `counts` and `recent`, and its way to Redis.

    `kind` is "web" or "worker", `calls()` how many calls the process holds. With `inbox()`, the
    last entry of its inbox that it has read, it reports how long the next one has waited.

    A flush that fails is kept and repeated, and counts once although its reply was lost. What was
    counted since the last flush is lost with the process.
    """

    def __init__(
        self,
        redis: Redis,
        process: str,
        kind: str,
        stalls: Stalls,
        calls: Callable[[], int],
        inbox: Callable[[], bytes] | None = None,
    ) -> None:
        self.counts, self.recent = Counts(), Recent()
        self._redis, self._process, self._kind = redis, process, kind
        self._stalls, self._calls, self._inbox = stalls, calls, inbox
        self._stalled_ms = 0  # that are counted
        self._number = 0  # of the flush that was begun last
        self._unsent: Command | None = None
        self._greenlet: Any = None

    def start(self) -> None:
        """Begin to flush, until `close`. Calling it again changes nothing."""
        if self._greenlet is None:
            self._greenlet = gevent.spawn(self._run)

    def close(self) -> None:
        """Flush once more, and stop; do nothing unless started."""
        if self._greenlet is None:
            return
        self._greenlet.kill()
        try:
            self.flush()
            self._redis.hdel(keys.METRICS_PROCESSES, self._process)
        except RedisError:
            pass  # what was not counted is lost

    def _run(self) -> None:
        while True:
            try:
                self.flush()
            except RedisError as error:
                log.debug("metrics: Redis is away (%s)", type(error).__name__)
            except Exception as error:
                log.error("metrics: %s at %s", type(error).__name__, where(error))
            gevent.sleep(FLUSH_SECONDS)

    def flush(self) -> None:
        """Add what was counted, and report how this process is. Raises RedisError."""
        if self._unsent is not None:
            scripts.run(self._redis, self._unsent)
            self._unsent = None
        began = time.monotonic()
        now, lag = self._look()
        microseconds = int((time.monotonic() - began) * 1e6)
        self.counts.observe(f.REDIS_ROUND_TRIP, (self._kind,), microseconds)
        stalled_ms = int(self._stalls.seconds() * 1000)
        if stalled_ms > self._stalled_ms:
            self.counts.add(f.STALLS, (self._kind,), stalled_ms - self._stalled_ms)
            self._stalled_ms = stalled_ms
        self._number += 1
        self._unsent = count_command(
            keys.flush(self._process),
            keys.FLUSH_SECONDS,
            str(self._number),
            None,
            self.counts.take(),
            self.recent.take(),
        )
        scripts.run(self._redis, self._unsent)
        self._unsent = None
        report = Report(self._kind, now, self._calls(), resident(), lag)
        with self._redis.pipeline(transaction=False) as pipeline:
            pipeline.hset(keys.METRICS_PROCESSES, self._process, report.encode())
            pipeline.expire(keys.METRICS_PROCESSES, keys.REPORT_SECONDS)
            pipeline.execute()

    def _look(self) -> tuple[float, float]:
        """Redis' time, and for how many seconds the next entry of the inbox has waited."""
        with self._redis.pipeline(transaction=False) as pipeline:
            pipeline.time()
            if self._inbox is not None:
                last = b"(" + self._inbox()
                pipeline.xrange(keys.inbox(self._process), min=last, count=1)
            (seconds, microseconds), *entries = pipeline.execute()
        now = seconds + microseconds / 1e6
        if not entries or not entries[0]:
            return now, 0.0
        return now, max(0.0, now - int(entries[0][0][0].partition(b"-")[0]) / 1000)
