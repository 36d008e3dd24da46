"""The guard that CI runs: exact counts of Redis work a call, and ratios; no absolute time."""

from __future__ import annotations

import json
import threading
import time
from pathlib import Path
from typing import Any

from bench import frames, inside, load, measure, numbers, run, targets
from bench.client import Load
from bench.inside import RedisCounter
from bench.peers import say
from bench.plan import Plan
from bench.targets import Ours, Running, Stage, serving
from gateway.queue import keys
from gateway.queue.election import RENEW_SECONDS

Record = dict[str, Any]
COMMITTED = Path(__file__).parent / "guard.json"
CALLS, STREAMS, WORDS = 200, 20, 16
IDLE_SECONDS = 4.0
RATIO_CONNECTIONS, RATIO_SECONDS, RATIO_PAIRS = 64, 3.0, 3
CPU_PLAN = Plan(seconds=2.0, repeats=3)
HELD_CALLS, HELD_MS = 300, 4_000
# The smallest pools there may be: a burst fills them, so that the count is the same every time,
# and any connection that is opened beside them is one more.
CONNECTIONS = "4"
LEAST_SHARE = 0.5  # of the committed ratio
MOST_CPU = 1.5  # times the committed CPU: two runs on a busy machine differ by a fifth


def check() -> int:
    """Measure and compare; 1 if anything got worse."""
    if not COMMITTED.exists():
        say(f"{COMMITTED.name} is missing: python -m bench guard --write")
        return 1
    committed = json.loads(COMMITTED.read_text())
    found = measured()
    say(_told(found, committed))
    problems = compare(found, committed)
    for problem in problems:
        say(f"guard: {problem}")
    if problems:
        say("If that is meant: python -m bench guard --write, and say why in the commit.")
    return int(bool(problems))


def renew() -> int:
    """Write what is measured now as what is committed: the highest counts of three services."""
    found = [measured() for _ in range(3)]
    record = highest(found)
    COMMITTED.write_text(json.dumps(record, indent=1) + "\n")
    say(f"written: {COMMITTED.name}\n{json.dumps(record, indent=1)}")
    return 0


def compare(found: Record, committed: Record) -> list[str]:
    """What is worse than committed, in sentences."""
    problems = []
    for kind in ("call", "stream"):
        for name, count in found[kind].items():
            bound = committed[kind].get(name, 0)
            if count > bound:
                problems.append(f"a {kind} takes {count} × {name}, and {bound} are committed")
    if found["connections"] > committed["connections"]:
        problems.append(
            f"{found['connections']} Redis connections with {HELD_CALLS} calls in flight, "
            f"and {committed['connections']} are committed"
        )
    least = committed["ratio_to_bare"] * LEAST_SHARE
    if found["ratio_to_bare"] < least:
        problems.append(
            f"{found['ratio_to_bare']:.2f} of the bare proxy's calls/s, and {least:.2f} "
            f"(half of the committed {committed['ratio_to_bare']:.2f}) is the least"
        )
    for kind, ratio in found["cpu_to_bare"].items():
        most = committed["cpu_to_bare"][kind] * MOST_CPU
        if ratio > most:
            problems.append(
                f"a {kind} takes {ratio:.2f} of the bare proxy's CPU, and {most:.2f} "
                f"({MOST_CPU} times the committed {committed['cpu_to_bare'][kind]:.2f}) is the most"
            )
    return problems


def highest(found: list[Record]) -> Record:
    """The bound that several measurements give: their highest counts and median ratios."""
    record: Record = {}
    for kind in ("call", "stream"):
        names = sorted({name for one in found for name in one[kind]})
        record[kind] = {name: max(one[kind].get(name, 0) for one in found) for name in names}
    record["connections"] = max(one["connections"] for one in found)
    record["ratio_to_bare"] = _median([one["ratio_to_bare"] for one in found])
    kinds = found[0]["cpu_to_bare"]
    record["cpu_to_bare"] = {
        kind: _median([one["cpu_to_bare"][kind] for one in found]) for kind in kinds
    }
    return record


def measured() -> Record:
    """The counts and the ratios of a fresh service."""
    with run.stage() as stage, serving(Ours(), stage) as ours:
        # What the workers' tasks do depends on time as well: nobody is elected for them here.
        for lease in (keys.LEDGER_WRITER, keys.WEBHOOK_SENDER):
            stage.redis.set(lease, "guard")
        time.sleep(RENEW_SECONDS)
        found = _counts(stage, ours)
        stage.redis.delete(keys.LEDGER_WRITER, keys.WEBHOOK_SENDER)
        with serving(targets.bare, stage) as bare:
            pairs = numbers.pairs(lambda: _rps(ours), lambda: _rps(bare), RATIO_PAIRS)
            cpu = measure.cpu_ratios(ours, bare, CPU_PLAN)
        found["ratio_to_bare"] = numbers.rounded(numbers.ratio(pairs)) or 0.0
        found["cpu_to_bare"] = {kind: ratio["median"] for kind, ratio in cpu.items()}
    # On a stage of its own: every client of its Redis is then one of the service's.
    with run.stage() as stage, serving(Ours(redis_connections=CONNECTIONS), stage) as ours:
        found["connections"] = _held(stage, ours)
    return found


def _median(values: list[float]) -> float | None:
    return numbers.rounded(numbers.percentile(values, 0.5))


def whole(counts: Record, idle: Record, seconds: float, calls: int) -> dict[str, int]:
    """Counts a call, as whole numbers: what the passing of time costs is taken off.

    A call's commands are a fixed number, so what is left of the rest is far from a half.
    """
    raw = {"round trip": counts["reads"], **counts["commands"]}
    rest = {"round trip": idle["reads"], **idle["commands"]}
    share = seconds / IDLE_SECONDS
    result = {name: round((raw[name] - rest.get(name, 0) * share) / calls) for name in raw}
    return {name: count for name, count in result.items() if count > 0}


def _counts(stage: Stage, ours: Running) -> Record:
    _ask(ours, "wait=0", 50)
    idle = _waiting(stage, ours)
    found: Record = {}
    for kind, calls in (("call", CALLS), ("stream", STREAMS)):
        prompt = "wait=0" if kind == "call" else f"words={WORDS} every=5"
        counter, begin = RedisCounter(stage.redis), time.monotonic()
        _ask(ours, prompt, calls, stream=kind == "stream")
        found[kind] = whole(counter.since(), idle, time.monotonic() - begin, calls)
    return found


def _waiting(stage: Stage, ours: Running) -> Record:
    """What is asked of Redis as time passes, while one call waits for the upstream."""
    hold = threading.Thread(target=_ask, args=(ours, f"wait={IDLE_SECONDS * 1000 + 2000:.0f}", 1))
    hold.start()
    time.sleep(1)
    counter = RedisCounter(stage.redis)
    time.sleep(IDLE_SECONDS)
    found = counter.since()
    hold.join()
    return found


def _ask(ours: Running, prompt: str, calls: int, stream: bool = False) -> None:
    """So many calls, one after the other, each of which has to be answered right."""
    request = ours.endpoint.request(prompt, stream)
    for exchange in Load(ours.endpoint, request, 1, most=calls).run():
        pieces = exchange.pieces
        wrong = frames.stream(pieces, WORDS).problem if stream else frames.problem(pieces)
        if exchange.error or wrong:
            raise targets.DidNotServe(f"{prompt}: {exchange.error or wrong}")


def _held(stage: Stage, ours: Running) -> int:
    facts = inside.in_flight(stage, ours, HELD_CALLS, HELD_MS, spread=0.0)
    if facts["failed"]:
        raise targets.DidNotServe(f"{facts['failed']} of {HELD_CALLS} calls in flight failed")
    return int(facts["redis_connections"])


def _rps(running: Running) -> float:
    return load.calls(running.endpoint, RATIO_CONNECTIONS, 0, RATIO_SECONDS).rps


def _told(found: Record, committed: Record) -> str:
    lines = ["measured (committed)"]
    for kind in ("call", "stream"):
        both = sorted({*found[kind], *committed[kind]})
        counts = [
            f"{name} {found[kind].get(name, 0)} ({committed[kind].get(name, 0)})" for name in both
        ]
        lines.append(f"a {kind}: {', '.join(counts)}")
    lines.append(f"Redis connections: {found['connections']} ({committed['connections']})")
    lines.append(f"ratio to bare: {found['ratio_to_bare']} ({committed['ratio_to_bare']})")
    for kind, ratio in found["cpu_to_bare"].items():
        lines.append(f"CPU of a {kind} to bare: {ratio} ({committed['cpu_to_bare'][kind]})")
    return "\n".join(lines)
