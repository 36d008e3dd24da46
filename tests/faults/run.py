"""Runs rows of the table, each on a service of its own, and says what came of them."""

from __future__ import annotations

import shutil
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from tests.faults import (  # noqa: F401  (they enter their rows)
    scenarios_account,
    scenarios_batches,
    scenarios_breaker,
    scenarios_logged,
    scenarios_processes,
    scenarios_queue,
    scenarios_redis,
    scenarios_redis_data,
    scenarios_replies,
    scenarios_routing,
    scenarios_starved,
    scenarios_upstream,
    scenarios_upstream_odd,
    scenarios_webhooks,
)
from tests.faults.arena import IN_FLIGHT, Arena
from tests.faults.client import Seen
from tests.faults.footprint import Footprint
from tests.faults.reconciler import KINDS, Defect, reconcile
from tests.faults.rows import ROWS, Row
from tests.support.stack import Process

MEGABYTE = 1 << 20
DESCRIPTORS = 24  # that a process may have more of: connections to Redis that were not needed yet


@dataclass(frozen=True)
class Result:
    """What came of a row."""

    row: Row
    calls: int
    answered: int
    refused: int
    defects: Sequence[Defect]
    seconds: float
    waits: Sequence[float] = ()  # for errors: seconds from the fault or the call, the later one
    recovery: float | None = None  # seconds after the fault until a call was answered
    memory: int = 0  # bytes that a process holds more of than before: the most of all processes
    skipped: str = ""  # why it did not run
    notes: Sequence[str] = ()
    logs: Path | None = None  # kept where there are defects

    @property
    def verdict(self) -> str:
        return "FAILED" if self.defects else "skipped" if self.skipped else "ok"

    def cells(self) -> list[str]:
        """The row of the table, as text."""
        kinds = Counter(defect.kind for defect in self.defects)
        numbers = [self.calls, self.answered, self.refused, *(kinds[kind] for kind in KINDS)]
        return [
            self.row.name,
            self.row.what,
            *map(str, numbers),
            self.verdict,
            _spread(self.waits),
            "" if self.recovery is None else f"{self.recovery:.1f}",
            f"{self.memory / MEGABYTE:.0f}",
            f"{self.seconds:.0f}",
        ]


HEAD = ("row", "what happens", "calls", "answered", "errors", *KINDS, "verdict",
        "errors after", "recovery", "memory", "seconds")  # fmt: skip


def _spread(waits: Sequence[float]) -> str:
    """Median, 99th percentile and most of some seconds."""
    if not waits:
        return ""
    ordered = sorted(waits)
    places = (len(ordered) // 2, len(ordered) * 99 // 100, len(ordered) - 1)
    return " / ".join(f"{ordered[place]:.1f}" for place in places)


def table(results: Iterable[Result]) -> str:
    """The results as a table in Markdown."""
    rows = [HEAD, ("---",) * len(HEAD), *(result.cells() for result in results)]
    return "\n".join("| " + " | ".join(cells) + " |" for cells in rows)


def run_rows(
    rows: Sequence[Row], seed: int, jobs: int, tell: Callable[[Result], None]
) -> list[Result]:
    """Run the rows, `jobs` services at a time; `tell` hears of each as it ends."""
    groups: dict[str, list[Row]] = {}
    for each in rows:
        groups.setdefault(each.group, []).append(each)
    # The longest first: what is left at the end is short.
    ordered = sorted(groups.values(), key=len, reverse=True)
    with ThreadPoolExecutor(jobs) as pool:
        running = [pool.submit(run_group, group, seed, tell) for group in ordered]
        results = [result for each in running for result in each.result()]
    order = list(ROWS)
    return sorted(results, key=lambda result: order.index(result.row.name))


def run_group(
    rows: Sequence[Row],
    seed: int,
    tell: Callable[[Result], None] = lambda result: None,
    patience: float = 1.0,
) -> list[Result]:
    """Run rows of one group on one service, which has the settings of the first.

    The limits of time that rows set are multiplied by `patience`: see Arena.
    """
    skipped = [Result(each, 0, 0, 0, [], 0, skipped=each.missing()) for each in rows]
    results = [each for each in skipped if each.skipped]
    for result in results:
        tell(result)
    rows = [each for each in rows if not each.missing()]
    return results + (_run_on_one_service(rows, seed, tell, patience) if rows else [])


def _run_on_one_service(
    rows: Sequence[Row], seed: int, tell: Callable[[Result], None], patience: float
) -> list[Result]:
    folder = Path(tempfile.mkdtemp(prefix="faults-"))
    first = rows[0]
    results: list[Result] = []
    try:
        with Arena(
            folder,
            workers=first.workers,
            env=first.env,
            clocks=first.clocks,
            slow_names=first.slow_names,
            database=first.database,
            patience=patience,
        ) as arena:
            arena.answers()  # a first call, for what is made when it is needed
            for each in rows:
                results.append(_run_row(arena, each, seed))
                tell(results[-1])
    except Exception as error:
        if len(results) == len(rows):
            raise
        defect = Defect("promise", f"the service did not start: {error}")
        results += [
            Result(each, 0, 0, 0, [defect], 0, logs=folder) for each in rows[len(results) :]
        ]
        tell(results[-1])
    if not any(result.defects for result in results):
        shutil.rmtree(folder)
    return results


def _run_row(arena: Arena, row: Row, seed: int) -> Result:
    arena.begin(f"{seed} {row.name}")
    arena.upstream.clear()
    before = arena.footprints()
    started = time.monotonic()
    try:
        row.run(arena)
        arena.finish()
        if not row.ends:
            arena.answers()
        arena.check_processes()
        arena.check_quiet()
        arena.demand(arena.met >= IN_FLIGHT, f"only {arena.met} calls in flight")
    except Exception as error:
        arena.demand(False, f"the scenario broke: {type(error).__name__}: {error}"[:500])
        arena.finish()
    memory = _leaks(arena, row, before)
    calls = arena.here()
    defects = [
        *arena.defects,
        *reconcile(calls, arena.upstream.log(), row.allowed.times(arena.patience), time.time()),
    ]
    return Result(
        row,
        len(calls),
        sum(each.answered for each in calls),
        sum(each.refused for each in calls),
        defects,
        time.monotonic() - started,
        [wait for each in calls if (wait := _wait(each, arena.fault_at)) > 0],
        arena.recovery,
        memory,
        notes=arena.notes,
        logs=arena.folder if defects else None,
    )


def _wait(seen: Seen, fault_at: float) -> float:
    """How long a call waited for its error, in seconds; 0 where it got none after the fault."""
    return seen.ended - max(seen.began, fault_at) if seen.code else 0.0


def _leaks(arena: Arena, row: Row, before: Mapping[Process, Footprint]) -> int:
    """Note what processes hold more of than before; how many bytes of memory, at most."""
    most = 0
    for process, now in arena.footprints().items():
        if process not in before:
            continue
        grown = now.memory - before[process].memory
        opened = now.descriptors - before[process].descriptors
        most = max(most, grown)
        name = process.log.stem
        arena.demand(grown < row.memory * MEGABYTE, f"{name} holds {grown / MEGABYTE:.0f} MB more")
        arena.demand(opened <= DESCRIPTORS, f"{name} has {opened} more descriptors open")
    return most
