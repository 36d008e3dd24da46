"""`python -m tests.faults [--short] [ROW...]`: break the service, and look.

Prints a table, one row a fault; the exit code is 1 where a promise was broken.
"""

from __future__ import annotations

import argparse
import random
import sys
import time
from collections.abc import Sequence

from tests.faults.rows import ROWS, SHORT, Row
from tests.faults.run import Result, run_rows, table

SHOWN = 10  # defects told of one row


def tell(result: Result) -> None:
    sys.stdout.write(f"{result.row.name:12} {result.verdict:7} {result.seconds:5.1f} s  ")
    if result.skipped:
        sys.stdout.write(f"{result.skipped}\n")
        return
    sys.stdout.write(f"{result.answered} of {result.calls} answered, {result.refused} errors\n")
    for note in result.notes:
        sys.stdout.write(f"    {note}\n")
    for defect in result.defects[:SHOWN]:
        sys.stdout.write(f"    {defect.kind}: {defect.what}\n")
    if result.logs:
        sys.stdout.write(f"    {len(result.defects)} defects; logs in {result.logs}\n")
    sys.stdout.flush()


def main() -> int:
    """Exit code: 0 where every promise was held, 1 where not."""
    parser = argparse.ArgumentParser(prog="python -m tests.faults", description=__doc__)
    parser.add_argument("rows", nargs="*", metavar="ROW", help="names; all where none is given")
    parser.add_argument("--short", action="store_true", help="the rows of the short form")
    parser.add_argument("--seed", type=int, default=random.randrange(1_000_000))
    parser.add_argument("--jobs", type=int, default=2, help="services at a time")
    parser.add_argument("--times", type=int, default=1, help="runs, each with a seed of its own")
    options = parser.parse_args()
    if unknown := set(options.rows) - set(ROWS):
        parser.error(f"no such row: {', '.join(sorted(unknown))}; there are {', '.join(ROWS)}")
    names = options.rows or (SHORT if options.short else ROWS)
    rows = [each for each in ROWS.values() if each.name in names]
    worst = 0
    for seed in range(options.seed, options.seed + options.times):
        worst = max(worst, run(rows, seed, options.jobs))
    return worst


def run(rows: Sequence[Row], seed: int, jobs: int) -> int:
    """Run the rows once and print what came of them; the exit code."""
    sys.stdout.write(f"seed {seed}, {len(rows)} rows\n")
    began = time.monotonic()
    results = run_rows(rows, seed, jobs, tell)
    failed = sum(bool(result.defects) for result in results)
    sys.stdout.write(f"\n{table(results)}\n\n{failed} of {len(results)} rows failed")
    sys.stdout.write(f" in {time.monotonic() - began:.0f} s\n")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
