"""Reads all metrics from Redis, for Prometheus: true for all processes, on all machines."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import gevent
from prometheus_client import CollectorRegistry
from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    Metric,
)
from prometheus_client.exposition import generate_latest
from prometheus_client.registry import Collector
from redis import Redis

from gateway import VERSION
from gateway.account import counters, key_fields, ledger
from gateway.account.key_fields import Limits
from gateway.metrics import families as f
from gateway.metrics.counts import SEPARATOR, SUM
from gateway.metrics.families import Family
from gateway.metrics.labels import ModelLabels
from gateway.metrics.now import Now, look
from gateway.queue import breakers, keys

SCOPES = 500  # whose counters are read in one round trip

Values = list[tuple[tuple[str, ...], float]]  # labels and value of each series of a gauge


Scopes = Iterable[tuple[str, Limits]]  # keys and owners, by the names of their counters


def text(redis: Redis, labels: ModelLabels, breaker_failures: int, scopes: Scopes = ()) -> bytes:
    """Return all metrics in Prometheus' text format. Raises RedisError.

    A breaker is open from `breaker_failures` failures on. The budgets are those of `scopes`.
    """
    registry = CollectorRegistry(auto_describe=False)
    registry.register(RedisCollector(redis, labels, breaker_failures, scopes))
    return generate_latest(registry)


class RedisCollector(Collector):
    """Collects the counters and gauges in Redis. It has read before it yields: raises RedisError
    at the first metric."""

    def __init__(
        self, redis: Redis, labels: ModelLabels, breaker_failures: int, scopes: Scopes = ()
    ) -> None:
        self._redis, self._labels, self._failures = redis, labels, breaker_failures
        self._scopes = scopes

    def describe(self) -> list[Metric]:
        """Return nothing, so that registering reads nothing."""
        return []

    def collect(self) -> Iterator[Metric]:
        """Yield all metrics of the table in families.py.

        Between two of them, other greenlets have their turn: to write 100 models takes 100 ms.
        """
        for metric in self._metrics():
            yield metric
            gevent.sleep(0)

    def _metrics(self) -> Iterator[Metric]:
        with self._redis.pipeline(transaction=False) as pipeline:
            pipeline.hgetall(keys.METRICS)
            pipeline.get(keys.QUEUED_BYTES)
            pipeline.get(keys.CACHED_BYTES)
            pipeline.xlen(keys.RECORDS_REFUSED)
            pipeline.zrange(keys.WEBHOOKS, 0, 0, withscores=True)
            pipeline.zcard(keys.WEBHOOKS)
            pipeline.zrange(keys.BATCHES_ACTIVE, 0, 0, withscores=True)
            pipeline.zcard(keys.BATCHES_ACTIVE)
            pipeline.info("memory")
            pipeline.info("clients")
            counts, queued, cached, refused, *rest = pipeline.execute()
        due, webhooks, oldest, batches, memory, clients = rest
        now, behind = look(self._redis), ledger.health(self._redis)
        stored = _by_family(counts)
        for family in f.COUNTED:
            yield _counted(family, stored.get(family.name, []))
        gauges: dict[Family, Values] = {
            **_of_processes(now),
            **self._budgets(now.at),
            f.LEDGER_BACKLOG: [((), behind.backlog)],
            f.LEDGER_LAG: [((), behind.lag_seconds)],
            f.LEDGER_REFUSED: [((), refused)],
            f.QUEUE_BYTES: [((), int(queued or 0))],
            f.CACHE_BYTES: [((), int(cached or 0))],
            f.WEBHOOK_KEYS: [((), webhooks)],
            f.WEBHOOK_LAG: [((), max((now.at - score / 1000 for _, score in due), default=0.0))],
            f.BATCHES: [((), batches)],
            f.BATCH_AGE: [((), max((now.at - score for _, score in oldest), default=0.0))],
            f.BREAKER_OPEN: self._breakers(),
            f.REDIS_MEMORY: [((), memory.get("used_memory", 0))],
            f.REDIS_MEMORY_MAX: [((), memory.get("maxmemory", 0))],
            f.REDIS_CLIENTS: [((), clients.get("connected_clients", 0))],
            f.BUILD: [((VERSION,), 1)],
        }
        for family, values in gauges.items():
            yield _gauge(family, values)

    def _budgets(self, now: float) -> dict[Family, Values]:
        limited = [(scope, limits) for scope, limits in self._scopes if limits.limit is not None]
        budgets: Values = []
        left: Values = []
        for start in range(0, len(limited), SCOPES):
            batch = limited[start : start + SCOPES]
            used = counters.read(self._redis, [scope for scope, _ in batch])
            for (scope, limits), each in zip(batch, used, strict=True):
                unit = limits.limit_unit
                for values, units in (
                    (budgets, limits.limit),
                    (left, counters.left(limits, each, now)),
                ):
                    values.append(((scope, unit), key_fields.amount(units, unit) or 0))
        return {f.BUDGET: budgets, f.BUDGET_LEFT: left}

    def _breakers(self) -> Values:
        """1 for each model whose breaker is open, 0 for others that failed."""
        states: dict[tuple[str, ...], float] = {}
        for route, breaker in breakers.read(self._redis, self._failures).items():
            provider, _, upstream = route.partition("/")
            model = self._labels.of_route(provider, upstream)
            states[model] = max(states.get(model, 0), int(breaker.state == breakers.OPEN))
        return list(states.items())


def _by_family(counts: Mapping[bytes, bytes]) -> dict[str, list[tuple[list[str], int]]]:
    families: dict[str, list[tuple[list[str], int]]] = {}
    for field, amount in counts.items():
        name, *labels = field.decode().split(SEPARATOR)
        families.setdefault(name, []).append((labels, int(amount)))
    return families


def _counted(family: Family, rows: list[tuple[list[str], int]]) -> Metric:
    if family.kind == "histogram":
        return _histogram(family, rows)
    if family.kind == "gauge":
        values = rows or _zero(family)
        return _gauge(family, [(tuple(labels), value / family.units) for labels, value in values])
    metric = CounterMetricFamily(family.name, family.help, labels=family.labels)
    for labels, amount in rows or _zero(family):
        if len(labels) == len(family.labels):  # else of another release
            metric.add_metric(labels, amount / family.units)
    return metric


def _zero(family: Family) -> list[tuple[list[str], int]]:
    """What exists from the start, so that a panel of it does not say "No data"."""
    if family is f.STALLS:
        return [([kind], 0) for kind in ("web", "worker")]
    return [] if family.labels else [([], 0)]


def _histogram(family: Family, rows: list[tuple[list[str], int]]) -> Metric:
    metric = HistogramMetricFamily(family.name, family.help, labels=family.labels)
    numbers: dict[tuple[str, ...], dict[str, int]] = {}
    for (*labels, bucket), amount in rows:
        if len(labels) == len(family.labels):
            numbers.setdefault(tuple(labels), {})[bucket] = amount
    bounds = [*(repr(bound) for bound in family.buckets), "+Inf"]
    for names, amounts in numbers.items():
        count, buckets = 0, []
        for number, bound in enumerate(bounds):
            count += amounts.get(str(number), 0)
            buckets.append((bound, count))
        metric.add_metric(names, buckets, amounts.get(SUM, 0) / family.units)
    return metric


def _gauge(family: Family, values: Values) -> Metric:
    metric = GaugeMetricFamily(family.name, family.help, labels=family.labels)
    for labels, value in values:
        metric.add_metric(labels, value)
    return metric


def _of_processes(now: Now) -> dict[Family, Values]:
    def by_kind(values: Mapping[str, Any]) -> Values:
        return [((kind,), value) for kind, value in values.items()]

    return {
        f.QUEUE_CALLS: by_kind(
            {
                state: getattr(now, state)
                for state in ("queued", "parked", "paused", "scheduled", "running")
            }
        ),
        f.QUEUE_OLDEST: [((), now.oldest_queued)],
        f.PROCESSES: by_kind({"web": now.webs, "worker": now.workers}),
        f.SLOTS: [((), now.slots)],
        f.IN_FLIGHT: by_kind(now.total("calls")),
        f.PROCESS_MEMORY: by_kind(now.total("memory")),
        f.INBOX_LAG: [((), max((report.lag for report in now.reports), default=0.0))],
    }
