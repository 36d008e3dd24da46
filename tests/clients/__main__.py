"""`python -m tests.clients`: every client and agent against a service of its own; see matrix.py.

The latest result of each cell is kept in .data/clients/results.json; `--table` prints them as
docs/clients.md has them.
Exits with 1 if a cell failed.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import re
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from tests.clients import agents, install, matrix
from tests.clients.recorder import Recorder

RESULTS = install.DATA / "results.json"


def run(only: str, cells: list[str]) -> list[dict[str, Any]]:
    results: list[dict[str, Any]] = []
    with contextlib.ExitStack() as ending:
        folder = Path(ending.enter_context(tempfile.TemporaryDirectory()))
        stack = ending.enter_context(matrix.ClientStack(folder / "stack"))
        recorder = ending.enter_context(Recorder(stack.port, stack.upstream.forget))
        for row in matrix.ROWS:
            if re.search(only, row.name):
                started = time.monotonic()
                rows = matrix.run(row, stack, recorder, cells)
                report(row.name, rows, time.monotonic() - started)
                results += rows
        for scenario in agents.SCENARIOS:
            if re.search(only, scenario.name):
                started = time.monotonic()
                rows = [agents.run(scenario, stack, recorder)]
                report(scenario.name, rows, time.monotonic() - started)
                results += rows
    return results


def identity(result: dict[str, Any]) -> tuple[str, ...]:
    return tuple(result[name] for name in ("client", "api", "cell", "model"))


def report(name: str, rows: list[dict[str, Any]], seconds: float) -> None:
    failed = [row for row in rows if row["result"] == "failed"]
    matrix.say(f"{name}: {len(rows) - len(failed)} of {len(rows)} right, {seconds:.0f} s")
    for row in failed:
        matrix.say(f"    {row['cell']} {row['model']}: {row['detail'][:200]}")


def main() -> int:
    options = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    options.add_argument("--table", action="store_true", help="print the last results as Markdown")
    options.add_argument("--only", default="", help="a pattern for the names of rows")
    options.add_argument("--cells", default=",".join(matrix.CELLS), help="comma-separated")
    arguments = options.parse_args()
    if arguments.table:
        results = json.loads(RESULTS.read_text())
        clients = [each for each in results if each["api"] != "agent"]
        sys.stdout.write(matrix.table(clients) + "\n" + agents.table(results))
        return 0
    results = run(arguments.only, arguments.cells.split(","))
    RESULTS.parent.mkdir(parents=True, exist_ok=True)
    earlier = json.loads(RESULTS.read_text()) if RESULTS.exists() else []
    latest = {identity(result): result for result in [*earlier, *results]}
    RESULTS.write_text(json.dumps(list(latest.values()), indent=1))
    return int(any(result["result"] == "failed" for result in results))


if __name__ == "__main__":
    sys.exit(main())
