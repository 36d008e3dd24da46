"""What is so now, by Redis: the queue, and the processes that live."""

from __future__ import annotations

from dataclasses import dataclass

from redis import Redis

from gateway.metrics.reporter import Report, reports
from gateway.queue import keys, steering
from gateway.queue.lease import live_workers


@dataclass(frozen=True, slots=True)
class Now:
    """How many calls wait and run, for how many seconds the oldest has waited, and the processes.

    `at` is Redis' time in seconds since 1970. `parked` calls wait for room among the calls in
    flight of their key or owner, `paused` and `scheduled` ones until somebody or a clock lets them.
    """

    at: float
    queued: int
    parked: int
    paused: int
    scheduled: int
    running: int
    oldest_queued: float
    workers: int
    slots: int
    reports: list[Report]

    @property
    def webs(self) -> int:
        """The web processes that have reported lately."""
        return sum(report.kind == "web" for report in self.reports)

    def total(self, name: str) -> dict[str, int]:
        """Return the sum of a number of the reports, for web processes and workers."""
        totals = {"web": 0, "worker": 0}
        for report in self.reports:
            totals[report.kind] = totals.get(report.kind, 0) + getattr(report, name)
        return totals


def look(redis: Redis) -> Now:
    """Return what is so now. Raises RedisError."""
    with redis.pipeline(transaction=False) as pipeline:
        pipeline.time()
        pipeline.zcard(keys.RQ_STARTED)
        pipeline.lindex(keys.RQ_QUEUE, 0)
        pipeline.hgetall(keys.METRICS_PROCESSES)
        (seconds, microseconds), running, oldest, rows = pipeline.execute()
    at = seconds + microseconds / 1e6
    queued_ms = redis.hget(keys.job(oldest.decode()), "queued_ms") if oldest else None
    waiting, leases = steering.counts(redis), live_workers(redis)
    return Now(
        at=at,
        queued=waiting[steering.IN_LINE],
        parked=waiting[steering.LIMIT],
        paused=waiting[steering.PAUSED],
        scheduled=waiting[steering.SCHEDULED],
        running=running,
        oldest_queued=max(0.0, at - int(queued_ms) / 1000) if queued_ms else 0.0,
        workers=len(leases),
        slots=sum(lease.slots for lease in leases.values()),
        reports=reports(rows, at),
    )
