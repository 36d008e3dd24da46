"""Runs rows of the table, each on a service of its own, and says what came of them."""

from __future__ import annotations

import shutil
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from tests.faults import (  # noqa: F401  (they enter their rows)
    scenarios_processes,
    scenarios_redis,
    scenarios_redis_data,
    scenarios_replies,
    scenarios_upstream,
)
from tests.faults.arena import IN_FLIGHT, Arena
from tests.faults.reconciler import KINDS, Defect, reconcile
from tests.faults.rows import ROWS, Row


@dataclass(frozen=True)
class Result:
    """What came of a row."""

    row: Row
    calls: int
    answered: int
    refused: int
    defects: Sequence[Defect]
    seconds: float
    logs: Path | None = None  # kept where there are defects

    def cells(self) -> list[str]:
        """The row of the table, as text."""
        kinds = Counter(defect.kind for defect in self.defects)
        verdict = "FAILED" if self.defects else "ok"
        numbers = [self.calls, self.answered, self.refused, *(kinds[kind] for kind in KINDS)]
        return [
            self.row.name,
            self.row.what,
            *map(str, numbers),
            verdict,
            f"{self.seconds:.0f}",
        ]


HEAD = ("row", "what happens", "calls", "answered", "errors", *KINDS, "verdict", "seconds")


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
        groups.setdefault("shared" if each.shared else each.name, []).append(each)
    with ThreadPoolExecutor(jobs) as pool:
        running = [pool.submit(_run_group, group, seed, tell) for group in groups.values()]
        results = [result for each in running for result in each.result()]
    order = list(ROWS)
    return sorted(results, key=lambda result: order.index(result.row.name))


def _run_group(rows: Sequence[Row], seed: int, tell: Callable[[Result], None]) -> list[Result]:
    """Rows that may follow each other on one service; all have the settings of the first."""
    folder = Path(tempfile.mkdtemp(prefix="faults-"))
    first = rows[0]
    results: list[Result] = []
    try:
        with Arena(folder, "", workers=first.workers, env=first.env) as arena:
            for each in rows:
                results.append(_run_row(arena, each, seed))
                tell(results[-1])
    except Exception as error:
        if len(results) == len(rows):
            raise
        defect = Defect("promise", f"the service did not start: {error}")
        results += [Result(each, 0, 0, 0, [defect], 0, folder) for each in rows[len(results) :]]
        tell(results[-1])
    if not any(result.defects for result in results):
        shutil.rmtree(folder)
    return results


def _run_row(arena: Arena, row: Row, seed: int) -> Result:
    arena.rng.seed(f"{seed} {row.name}")
    arena.upstream.clear()
    arena.defects, arena.met, arena.since = [], 0, len(arena.seen)
    started = time.monotonic()
    try:
        row.run(arena)
        arena.finish()
        if not row.ends:
            arena.recovered()
        arena.check_processes()
        arena.check_quiet()
        arena.demand(arena.met >= IN_FLIGHT, f"only {arena.met} calls in flight")
    except Exception as error:
        arena.demand(False, f"the scenario broke: {type(error).__name__}: {error}"[:500])
        arena.finish()
    calls = arena.here()
    defects = [
        *arena.defects,
        *reconcile(calls, arena.upstream.log(), row.allowed, time.time()),
    ]
    return Result(
        row,
        len(calls),
        sum(each.answered for each in calls),
        sum(each.refused for each in calls),
        defects,
        time.monotonic() - started,
        arena.folder if defects else None,
    )
