"""The parts of a run that every target gets: latency, frontier, streams, ratios, memory, CPU."""

from __future__ import annotations

from typing import Any

from bench import load, numbers
from bench.plan import Plan
from bench.processes import MEASURABLE, DidNotServe, cpu_seconds
from bench.registry import Target
from bench.targets import Running

Record = dict[str, Any]
RATIO_CONNECTIONS = 64
RATIO_STREAMS = 200
SLOW_MS, SLOW_CONNECTIONS, SLOW_FACTOR = 500, 256, 2


class Spent:
    """Processor time of groups of processes since now."""

    def __init__(self, groups: dict[str, list[int]]) -> None:
        self._groups = groups
        self._before = self._look()

    def total(self) -> float | None:
        """Seconds of all groups since the beginning."""
        spent = [numbers.minus(now, self._before[role]) for role, now in self._look().items()]
        return None if None in spent else sum(filter(None, spent))

    def per_call(self, calls: int) -> Record:
        """Milliseconds a call, by group."""
        now = self._look()
        return {
            role: numbers.rounded(numbers.per(numbers.minus(now[role], before), calls / 1000))
            for role, before in self._before.items()
        }

    def _look(self) -> dict[str, float | None]:
        return {role: cpu_seconds(pids) for role, pids in self._groups.items()}


def target(running: Running, chosen: Target, direct: Running, plan: Plan) -> Record:
    """Everything about one running target, apart from ratios."""
    found: Record = {"idle_mb": running.idle_mb}
    if "latency" in plan.cells and running is not direct:
        found["latency"] = latency(running, direct, plan)
    if "frontier" in plan.cells:
        found["frontier"] = frontier(running, chosen, plan)
        found["loaded_mb"] = running.memory()
    if "streams" in plan.cells and chosen.streams:
        found["streams"] = stream_cells(running, plan)
        found["streamed_mb"] = running.memory()
    return found


def latency(running: Running, direct: Running, plan: Plan) -> Record:
    """What the gateway adds to one call at a time: medians of paired differences, milliseconds."""
    pairs = [(cell(running, 1, 0, plan), cell(direct, 1, 0, plan)) for _ in range(plan.repeats)]
    return {
        f"added_{kind}": numbers.rounded(
            numbers.percentile(
                [
                    difference
                    for ours, theirs in pairs
                    if (difference := numbers.minus(ours[kind], theirs[kind])) is not None
                ],
                0.5,
            )
        )
        for kind in ("p50", "p99")
    }


def frontier(running: Running, chosen: Target, plan: Plan) -> list[Record]:
    """Calls/s over connections and delays of the upstream, and the CPU that each call took."""
    return [
        cell(running, connections, delay, plan)
        for delay in plan.delays
        for connections in plan.connections
        if connections <= chosen.most_connections
    ]


def cell(running: Running, connections: int, delay: int, plan: Plan) -> Record:
    """One cell of unstreamed calls, after which the gateway is left to come to rest."""
    spent = Spent({role: running.pids(role) for role in running.children})
    # Connections go round in step: with few rounds in a cell, the one that is cut off decides.
    seconds = plan.seconds * (SLOW_FACTOR if delay >= SLOW_MS else 1)
    found = load.calls(running.endpoint, connections, delay, seconds).record()
    found["cpu_ms"] = spent.per_call(found["calls"])
    problem = load.check(running.endpoint, patience=60)
    if problem:
        raise DidNotServe(f"after {connections} connections at {delay} ms: {problem}")
    return found


def stream_cells(running: Running, plan: Plan) -> list[Record]:
    """Every number of streams; the cells after one that broke altogether are left out."""
    found: list[Record] = []
    for count in plan.streams:
        found.append(load.streams(running.endpoint, count, plan.stream_seconds).record())
        if not found[-1]["whole"]:
            break
    return found


def add_differences(streams: list[Record], direct: list[Record]) -> None:
    """Put what was added to the upstream's own first token and delays into each cell."""
    plain = {record["streams"]: record for record in direct}
    for record in streams:
        base = plain.get(record["streams"], {})
        for kind in ("first_p50", "first_p99", "token_p50", "token_p99"):
            difference = numbers.minus(record[kind], base.get(kind))
            record[f"added_{kind}"] = numbers.rounded(difference)


def ratios(ours: Running, other: Running, direct: bool, plan: Plan) -> Record:
    """Our calls/s over the other's, in pairs: at 64 connections, or with a slow upstream."""
    connections, delay = (SLOW_CONNECTIONS, SLOW_MS) if direct else (RATIO_CONNECTIONS, 0)

    def rps(running: Running) -> float:
        return float(cell(running, connections, delay, plan)["rps"])

    pairs = numbers.pairs(lambda: rps(ours), lambda: rps(other), plan.repeats)
    median = numbers.rounded(numbers.ratio(pairs))
    return {"connections": connections, "delay": delay, "pairs": pairs, "median": median}


def cpu_ratios(ours: Running, other: Running, plan: Plan) -> Record:
    """Our CPU over the other's, in pairs: for a call at 64 connections and for a streamed token.

    Ours is that of web process, worker and Redis. Empty where CPU cannot be measured.
    """
    if not MEASURABLE:
        return {}
    found = {}
    for kind, spent in (("call", cpu_of_call), ("token", cpu_of_token)):
        pairs = numbers.pairs(
            lambda spent=spent: spent(ours, plan.seconds),  # type: ignore[misc]
            lambda spent=spent: spent(other, plan.seconds),  # type: ignore[misc]
            plan.repeats,
        )
        found[kind] = {"pairs": pairs, "median": numbers.rounded(numbers.ratio(pairs))}
    return found


def cpu_of_call(running: Running, seconds: float) -> float:
    """Milliseconds of CPU of all processes for a call, at 64 connections."""
    spent = Spent({"all": running.serving_pids()})
    calls = load.calls(running.endpoint, RATIO_CONNECTIONS, 0, seconds).calls
    return 1000 * (spent.total() or 0.0) / max(calls, 1)


def cpu_of_token(running: Running, seconds: float) -> float:
    """Microseconds of CPU of all processes for a token, at 200 streams of 50 tokens/s."""
    looks: list[float] = []
    spent = Spent({"all": running.serving_pids()})
    count = load.tokens(
        running.endpoint, RATIO_STREAMS, seconds, lambda: looks.append(spent.total() or 0.0)
    )
    return 1e6 * (looks[1] - looks[0]) / max(count, 1)
