"""One run: every chosen target in turn, beside our own service, into one record."""

from __future__ import annotations

import contextlib
import datetime
import json
import os
import platform
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from bench import inside, load, measure
from bench.peers import say
from bench.plan import Plan
from bench.processes import DidNotServe
from bench.registry import TARGETS, Target
from bench.targets import Running, Stage, serving

Record = dict[str, Any]
RESULTS = Path(__file__).parent / "results"


@contextlib.contextmanager
def stage() -> Iterator[Stage]:
    """A stage in a folder of its own, which is gone afterwards."""
    folder = Path(tempfile.mkdtemp(prefix="bench-", dir="/tmp"))
    try:
        with Stage(folder) as opened:
            yield opened
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def everything(names: list[str], plan: Plan, path: Path) -> Record:
    """Measure the named targets; the record is written to `path` after each of them."""
    with stage() as opened:
        record = _head(opened, plan)
        with contextlib.ExitStack() as ending:
            direct = TARGETS["direct"].start(opened)
            ours = _ours(names, opened, ending, record)
            for name in names:
                say(f"{name} ...")
                record["targets"][name] = _measured(name, opened, direct, ours, plan)
                write(record, path)
        if "ours" in names:
            _own(opened, direct, plan, record)
    _compare_streams(record)
    write(record, path)
    return record


def write(record: Record, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(record, indent=1) + "\n")


def _head(opened: Stage, plan: Plan) -> Record:
    return {
        "made": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "quick": plan.quick,
        "machine": {
            "cores": os.cpu_count(),
            "load_before": round(os.getloadavg()[0], 2),
            "python": platform.python_version(),
            "system": platform.system(),
        },
        "upstream": opened.upstream.title,
        "redis": opened.redis_title,
        "load": load.title(),
        "seconds": plan.seconds,
        "repeats": plan.repeats,
        "targets": {},
    }


def _ours(
    names: list[str], opened: Stage, ending: contextlib.ExitStack, record: Record
) -> Running | None:
    """Our own service, which stays up beside each other target."""
    if "ours" not in names:
        return None
    try:
        return ending.enter_context(serving(TARGETS["ours"].start, opened))
    except DidNotServe as error:
        say(f"ours did not serve: {error}")
        return None


def _measured(
    name: str, opened: Stage, direct: Running, ours: Running | None, plan: Plan
) -> Record:
    chosen = TARGETS[name]
    head = {"title": chosen.title, "version": chosen.version, "processes": chosen.processes}
    if not chosen.installed(name):
        return {**head, "status": "not installed"}
    found: Record = {}
    try:
        with _running(name, chosen, opened, direct, ours) as running:
            found |= measure.target(running, chosen, direct, plan)
            if ours is not None and name != "ours" and "ratios" in plan.cells:
                found["ratio"] = measure.ratios(ours, running, name == "direct", plan)
                if chosen.compare_cpu:
                    found["cpu_ratio"] = measure.cpu_ratios(ours, running, plan)
    except (DidNotServe, OSError) as error:
        return {**head, "status": "did not serve", "reason": str(error), **found}
    return {**head, "status": "served", **found}


@contextlib.contextmanager
def _running(
    name: str, chosen: Target, opened: Stage, direct: Running, ours: Running | None
) -> Iterator[Running]:
    if name == "direct":
        yield direct
    elif name == "ours" and ours is not None:
        yield ours
    else:
        with serving(chosen.start, opened) as running:
            yield running


def _own(opened: Stage, direct: Running, plan: Plan, record: Record) -> None:
    parts = {
        "full": lambda: inside.full(opened, plan),
        "inside": lambda: inside.look(opened, plan),
        "scaling": lambda: inside.scaling(opened, plan),
        "far": lambda: inside.far(opened, direct, plan),
    }
    for name, part in parts.items():
        if name in plan.cells:
            say(f"ours, {name} ...")
            try:
                record[name] = part()
            except (DidNotServe, OSError) as error:
                record[name] = {"status": "did not serve", "reason": str(error)}


def _compare_streams(record: Record) -> None:
    direct = record["targets"].get("direct", {}).get("streams", [])
    for found in record["targets"].values():
        measure.add_differences(found.get("streams", []), direct)
    if "streams" in record.get("far", {}):
        measure.add_differences(record["far"]["streams"], direct)
