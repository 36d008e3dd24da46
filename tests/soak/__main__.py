"""`python -m tests.soak [--calls N | --minutes N] [--seed N] [--trace]`: what does it all leave?

Prints a table, one row a look; the exit code is 1 where something grows or is left over.
"""

from __future__ import annotations

import argparse
import random
import sys

from tests.soak.run import MARKS, soak_calls, soak_minutes
from tests.soak.samples import HEAD, slopes, table

SHOWN = 20  # defects


def tell(line: str) -> None:
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


def main() -> int:
    """Exit code: 0 where everything is flat, 1 where not."""
    parser = argparse.ArgumentParser(prog="python -m tests.soak", description=__doc__)
    parser.add_argument("--calls", type=int, default=MARKS[-1])
    parser.add_argument("--minutes", type=float, help="so long, with a fault now and then")
    parser.add_argument("--seed", type=int, default=random.randrange(1_000_000))
    parser.add_argument("--trace", action="store_true", help="which lines hold memory (slower)")
    options = parser.parse_args()
    tell(f"seed {options.seed}")
    tell(" | ".join(HEAD))
    if options.minutes:
        soak = soak_minutes(options.minutes, options.seed, tell, trace=options.trace)
    else:
        soak = soak_calls(options.calls, options.seed, tell, trace=options.trace)
    tell(f"\n{table(soak.samples)}\n")
    web, worker = slopes(soak.samples)
    tell(f"second half: web {web:+.3f}, worker {worker:+.3f} MB per 1,000 calls")
    tell(", ".join(f"{count:,} {what}" for what, count in soak.counts.items()))
    for name, rows in soak.grown.items():
        tell(f"{name}: {', '.join(f'{count:+,} {what}' for what, count in rows)}")
    for what in soak.defects[:SHOWN]:
        tell(f"    {what}")
    tell(f"{len(soak.defects)} defects" + (f"; logs in {soak.logs}" if soak.logs else ""))
    return 1 if soak.defects else 0


if __name__ == "__main__":
    sys.exit(main())
