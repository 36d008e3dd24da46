"""Runs rows of the table, each on a service of its own, one after the other."""

from __future__ import annotations

import shutil
import tempfile
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from tests.load import scenarios, scenarios_limits  # noqa: F401  (they enter their rows)
from tests.load.arena import Bar, LoadArena
from tests.load.rows import Row
from tests.load.views import LiveViews

HEAD = ("load", "what comes", "promised", "measured", "clients' core", "verdict", "seconds")


@dataclass(frozen=True)
class Result:
    """What came of a row."""

    row: Row
    bars: Sequence[Bar]
    client_cpu: float
    seconds: float
    logs: Path | None = None  # kept where a bar was missed

    @property
    def held(self) -> bool:
        return all(bar.held for bar in self.bars)

    def cells(self) -> list[str]:
        """The row of the table, as text."""
        promised = "; ".join(bar.promise for bar in self.bars if bar.promise)
        measured = "; ".join(
            bar.measured if bar.held else f"**{bar.measured}**" for bar in self.bars
        )
        verdict = "ok" if self.held else "NOT MET"
        row = self.row
        cpu = f"{self.client_cpu:.0%}"
        return [row.name, row.what, promised, measured, cpu, verdict, f"{self.seconds:.0f}"]


def table(results: Iterable[Result]) -> str:
    """The results as a table in Markdown."""
    rows = [HEAD, ("---",) * len(HEAD), *(result.cells() for result in results)]
    return "\n".join("| " + " | ".join(cells) + " |" for cells in rows)


def run_rows(
    rows: Sequence[Row], seed: int, tell: Callable[[Result], None], views: int = 0
) -> list[Result]:
    """Run the rows, beside so many open Live views; `tell` hears of each as it ends."""
    results = []
    for each in sorted(rows, key=lambda row: row.name):
        results.append(run_row(each, seed, views))
        tell(results[-1])
    return results


def run_row(row: Row, seed: int, views: int = 0) -> Result:
    """Run one row on a fresh service, beside so many open Live views."""
    folder = Path(tempfile.mkdtemp(prefix="load-"))
    begun = time.monotonic()
    with LoadArena(folder, f"{seed} {row.name}", row.env) as arena:
        try:
            with LiveViews(arena, views):
                row.run(arena)
        except Exception as error:
            arena.demand(False, "", f"the scenario broke: {type(error).__name__}: {error}"[:300])
        logs = arena.logs()
        for trouble in ("Traceback", "WORKER TIMEOUT"):
            if trouble in logs:
                arena.demand(False, "", f"the logs have {trouble}")
    result = Result(row, arena.bars, arena.client_cpu, time.monotonic() - begun)
    if result.held:
        shutil.rmtree(folder)
        return result
    return Result(row, arena.bars, arena.client_cpu, result.seconds, folder)
