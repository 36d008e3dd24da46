"""`python -m tests.load [--seed N] [--live-views N] [ROW...]`: load the service, and measure.

Prints a table, one row a load; the exit code is 1 where a bar was missed. With --live-views, so
many browsers have the console's Live view open while a row runs.
"""

from __future__ import annotations

import argparse
import os
import random
import signal
import sys

from tests.load.rows import ROWS
from tests.load.run import Result, run_rows, table


def tell(result: Result) -> None:
    verdict = "ok" if result.held else "NOT MET"
    sys.stdout.write(f"{result.row.name}  {verdict}  {result.row.what}\n")
    for bar in result.bars:
        promise = f"   [{bar.promise}]" if bar.promise else ""
        sys.stdout.write(f"    {' ' if bar.held else '!'} {bar.measured}{promise}\n")
    sys.stdout.write(f"      clients took {result.client_cpu:.0%} of a core\n")
    if result.logs:
        sys.stdout.write(f"      logs in {result.logs}\n")
    sys.stdout.flush()


def main() -> int:
    """Exit code: 0 where every bar was held, 1 where not."""
    parser = argparse.ArgumentParser(prog="python -m tests.load", description=__doc__)
    parser.add_argument("rows", nargs="*", metavar="ROW", help="names; all where none is given")
    parser.add_argument("--seed", type=int, default=random.randrange(1_000_000))
    parser.add_argument("--live-views", type=int, default=0, metavar="N", help="beside each row")
    options = parser.parse_args()
    if unknown := set(options.rows) - set(ROWS):
        parser.error(f"no such row: {', '.join(sorted(unknown))}; there are {', '.join(ROWS)}")
    rows = [each for each in ROWS.values() if not options.rows or each.name in options.rows]
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # so that nothing stays behind
    load = os.getloadavg()[0]
    sys.stdout.write(f"seed {options.seed}, {os.cpu_count()} cores, load average {load:.2f}\n")
    results = run_rows(rows, options.seed, tell, options.live_views)
    missed = sum(not result.held for result in results)
    sys.stdout.write(f"\n{table(results)}\n\n{missed} of {len(results)} loads missed a bar\n")
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main())
