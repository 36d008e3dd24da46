"""What is looked at during a soak, and what it may be: numbers, limits, and the table."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from redis import Redis

from gateway.queue import keys
from tests.faults.reconciler import leaked_keys
from tests.soak import sampler

GROWTH_MB = 40.0  # of a process since the warm-up, after however many calls (LiteLLM's limit)
REDIS_GROWTH_MB = 2.0  # from the start to the end, when no call has left anything behind
OBJECTS_MORE = 5_000  # in caches: 256 rows of models
FDS_MORE = 8  # connections to Redis that a process has not yet needed
CONNECTIONS = 8  # to Redis, that a process may have
MEGABYTE = 1e6
# Keys that the first call makes, for as long as there is a web process or anything. Of metrics:
# counters, cursor, processes, a flush of each, and the slots of 90 seconds.
LASTING = {"gw:inbox": 1, "rq:queues": 1, "gw:records": 1, "gw:spend": 1, "gw:metrics": 24}

HEAD = (
    *("when", "calls", "minutes", "web MB", "worker MB", "fds", "greenlets", "gc objects"),
    *("Redis MB", "Redis keys", "connections", "waiting"),
)


@dataclass(frozen=True)
class Inside:
    """One process at rest."""

    rss_mb: float
    fds: int
    greenlets: int
    objects: int


@dataclass(frozen=True)
class Sample:
    """The service at rest after so many calls. `waiting` counts calls queued or running."""

    when: str
    calls: int
    minutes: float
    web: Inside
    worker: Inside
    redis_mb: float
    connections: int
    waiting: int
    keys: dict[str, int]
    leaks: tuple[str, ...] = ()

    def cells(self) -> list[str]:
        """The row of the table, as text."""
        pairs = (
            [f"{self.web.rss_mb:.1f}", f"{self.worker.rss_mb:.1f}"],
            [f"{self.web.fds} + {self.worker.fds}"],
            [f"{self.web.greenlets} + {self.worker.greenlets}"],
            [f"{self.web.objects:,} + {self.worker.objects:,}"],
            [f"{self.redis_mb:.2f}", f"{sum(self.keys.values()):,}"],
            [str(self.connections), str(self.waiting)],
        )
        cells = [cell for pair in pairs for cell in pair]
        return [self.when, f"{self.calls:,}", f"{self.minutes:.1f}", *cells]


def inside(socket: Path) -> Inside:
    """What the process behind a sampler's socket holds now."""
    counts = sampler.ask(socket)
    process = Path("/proc") / str(counts["pid"])
    pages = int((process / "statm").read_text().split()[1])
    return Inside(
        pages * os.sysconf("SC_PAGE_SIZE") / MEGABYTE,
        len(os.listdir(process / "fd")),
        counts["greenlets"],
        counts["objects"],
    )


def look(when: str, calls: int, minutes: float, web: Path, worker: Path, redis: Redis) -> Sample:
    """A sample of now; the paths are those of the samplers."""
    names = [name.decode() for name in redis.scan_iter(count=1000)]
    return Sample(
        when,
        calls,
        minutes,
        inside(web),
        inside(worker),
        redis.info("memory")["used_memory"] / MEGABYTE,
        len(redis.client_list()) - 1,  # ours
        redis.llen(keys.RQ_QUEUE) + redis.zcard(keys.RQ_STARTED),
        prefixes(names),
        tuple(leaked_keys(redis)),
    )


def prefixes(names: Iterable[str]) -> dict[str, int]:
    """How many names begin alike, in the first two of their parts."""
    return dict(Counter(":".join(name.split(":")[:2]) for name in sorted(names)))


def defects(base: Sample, sample: Sample, processes: int) -> list[str]:
    """Where a sample is more than `base` allows, the one after the warm-up."""
    found: list[str] = []
    for name in ("web", "worker"):
        before, now = getattr(base, name), getattr(sample, name)
        limits = {
            "MB": (now.rss_mb, before.rss_mb + GROWTH_MB),
            "file descriptors": (now.fds, before.fds + FDS_MORE),
            "greenlets": (now.greenlets, before.greenlets),
            "objects": (now.objects, before.objects + OBJECTS_MORE),
        }
        found += [
            f"{name}: {value:.6g} {what}, at most {most:.6g}"
            for what, (value, most) in limits.items()
            if value > most
        ]
    if sample.connections > processes * CONNECTIONS:
        found.append(f"{sample.connections} connections to Redis of {processes} processes")
    return [f"{sample.when}: {what}" for what in found]


def left_over(start: Sample, end: Sample) -> list[str]:
    """What Redis holds at the end and held not at the start."""
    more = Counter(end.keys) - (Counter(start.keys) | Counter(LASTING))
    found = [
        *end.leaks,
        *(f"{count} keys {name}:* too many" for name, count in sorted(more.items())),
    ]
    if end.redis_mb > start.redis_mb + REDIS_GROWTH_MB:
        found.append(f"{end.redis_mb:.1f} MB, {start.redis_mb:.1f} at the start")
    return [f"Redis at the end: {what}" for what in found]


def slope(points: Sequence[tuple[float, float]]) -> float:
    """Of the straight line that fits the points best (least squares); 0 for fewer than two."""
    if len({x for x, _ in points}) < 2:
        return 0.0
    middle = sum(x for x, _ in points) / len(points)
    height = sum(y for _, y in points) / len(points)
    spread = sum((x - middle) ** 2 for x, _ in points)
    return sum((x - middle) * (y - height) for x, y in points) / spread


def slopes(samples: Sequence[Sample]) -> tuple[float, float]:
    """MB per 1,000 calls of web process and worker, over the second half of the calls."""
    half = samples[-1].calls / 2 if samples else 0
    late = [sample for sample in samples if sample.calls >= half]
    web = slope([(sample.calls / 1000, sample.web.rss_mb) for sample in late])
    return web, slope([(sample.calls / 1000, sample.worker.rss_mb) for sample in late])


def table(samples: Iterable[Sample]) -> str:
    """The samples as a table in Markdown."""
    rows = [HEAD, ("---",) * len(HEAD), *(sample.cells() for sample in samples)]
    return "\n".join("| " + " | ".join(cells) + " |" for cells in rows)
