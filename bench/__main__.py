"""`python -m bench`: run, install, guard, table. See README.md."""

from __future__ import annotations

import argparse
import datetime
import json
import signal
import sys
from dataclasses import replace
from pathlib import Path

from bench import guard, peers, plot, run, table
from bench.peers import say
from bench.plan import CELLS, Plan
from bench.registry import TARGETS


def main(arguments: list[str]) -> int:
    """Exit code: 0; 1 when the guard found something or an installation failed."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    options = _parser().parse_args(arguments)
    try:
        return int(options.do(options))
    except KeyboardInterrupt:
        say("stopped")
        return 130


def _run(options: argparse.Namespace) -> int:
    plan = replace(Plan(), cells=_chosen(options.cells, CELLS))
    if options.quick:
        plan = plan.short()
    names = list(_chosen(options.only, tuple(TARGETS)))
    date = datetime.date.today().isoformat()
    path = options.out or run.RESULTS / f"{date}{'-quick' if plan.quick else ''}.json"
    record = run.everything(names, plan, path)
    say(table.text(record))
    say(f"written: {path}")
    picture = path.with_suffix(".png")
    say(f"written: {picture}" if plot.draw(record, picture) else plot.MISSING)
    return 0


def _install(options: argparse.Namespace) -> int:
    names = list(peers.PEERS) if options.peers == ["all"] else options.peers
    if wrong := peers.unknown(names):
        say(f"no recipe for {', '.join(wrong)}; there is {', '.join(peers.PEERS)}")
        return 1
    failed = 0
    for name in names:
        problem = peers.install(name)
        say(f"{name} {peers.PEERS[name].VERSION}: {problem or 'installed'}")
        failed |= bool(problem)
    return failed


def _table(options: argparse.Namespace) -> int:
    say(table.text(json.loads(options.results.read_text())))
    return 0


def _guard(options: argparse.Namespace) -> int:
    return guard.renew() if options.write else guard.check()


def _chosen(text: str, known: tuple[str, ...]) -> tuple[str, ...]:
    if not text:
        return known
    wanted = [word.strip() for word in text.split(",")]
    wrong = [word for word in wanted if word not in known]
    if wrong:
        sys.exit(f"unknown: {', '.join(wrong)}; there is {', '.join(known)}")
    return tuple(name for name in known if name in wanted)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__)
    parser.set_defaults(do=_run)
    _run_options(parser)
    parts = parser.add_subparsers()
    install = parts.add_parser("install", help="install peers: names, or all")
    install.add_argument("peers", nargs="+")
    install.set_defaults(do=_install)
    guarding = parts.add_parser("guard", help="compare with bench/guard.json")
    guarding.add_argument("--write", action="store_true", help="renew bench/guard.json")
    guarding.set_defaults(do=_guard)
    printing = parts.add_parser("table", help="print the table of a results file")
    printing.add_argument("results", type=Path)
    printing.set_defaults(do=_table)
    return parser


def _run_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--quick", action="store_true", help="small cells: to try it out")
    parser.add_argument("--only", default="", help=f"targets: {','.join(TARGETS)}")
    parser.add_argument("--cells", default="", help=f"parts: {','.join(CELLS)}")
    parser.add_argument("--out", type=Path, help="results file (default: bench/results/DATE.json)")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
