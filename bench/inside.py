"""What only our own service is asked: Redis, connections, memory over many calls, scaling."""

from __future__ import annotations

import threading
import time
from typing import Any

from redis import Redis

from bench import load, measure, numbers
from bench.client import Load
from bench.delay_proxy import proxied
from bench.plan import Plan
from bench.targets import Ours, Running, Stage, bare, serving

Record = dict[str, Any]
PLATEAU_SHARE = 10  # the plateau is looked at after a tenth of the calls
HOLD_MS = 6_000  # longer than a slow machine takes to start so many calls
IN_FLIGHT_SPREAD = 1.5  # seconds over which they start
FAR_ROUND_TRIP_MS = 1.0
PINGS = 500


class RedisCounter:
    """Redis' own counts of what it has done, between two looks.

    A read is one arrival of bytes from a client that the server took up: clients send a batch of
    commands at once, so reads are round trips (bodies above 16 kB take more than one).
    """

    def __init__(self, redis: Redis) -> None:
        self._redis = redis
        self._before = self._look()

    def since(self) -> Record:
        """Reads and commands since the start; commands inside scripts are among them."""
        now = self._look()
        commands = {
            name: count - self._before["commands"].get(name, 0)
            for name, count in now["commands"].items()
        }
        for ours in ("info", "client|list"):
            commands.pop(ours, None)
        return {
            # Our own second look costs reads of its own: that of commandstats, that of stats.
            "reads": now["reads"] - self._before["reads"] - 2,
            "commands": {name: count for name, count in sorted(commands.items()) if count > 0},
        }

    def _look(self) -> Record:
        stats = self._redis.info("commandstats")
        commands = {name.removeprefix("cmdstat_"): facts["calls"] for name, facts in stats.items()}
        reads = self._redis.info("stats").get("total_reads_processed", 0)
        return {"reads": reads, "commands": commands}


def connections(redis: Redis) -> int:
    """How many clients Redis has, apart from this one."""
    return len(redis.client_list()) - 1


def per_call(counts: Record, calls: int) -> Record:
    """The same counts for one call."""
    return {
        "round_trips": numbers.rounded(numbers.per(counts["reads"], calls)),
        "commands": numbers.rounded(numbers.per(sum(counts["commands"].values()), calls)),
        "by_name": {
            name: numbers.rounded(numbers.per(count, calls))
            for name, count in counts["commands"].items()
        },
    }


def full(stage: Stage, plan: Plan) -> Record:
    """Calls/s with a database and all limits of a key in use, over the bare proxy's, in pairs.

    The processes are fresh for every few pairs: they differ by a tenth with their addresses.
    """
    pairs: list[list[float]] = []
    for _ in range(plan.repeats):
        with serving(Ours(full=True), stage) as running, serving(bare, stage) as other:
            pairs += measure.ratios(running, other, False, plan)["pairs"]
    return {"ratio": {"pairs": pairs, "median": numbers.rounded(numbers.ratio(pairs))}}


def look(stage: Stage, plan: Plan) -> Record:
    """All of it about one fresh service."""
    with serving(Ours(), stage) as running:
        found: Record = {"idle_mb": running.idle_mb, "redis": _redis_cells(stage, running, plan)}
        found["cpu_ms"] = _cpu(stage, running, plan)
        found["in_flight"] = in_flight(stage, running, plan.in_flight, HOLD_MS)
    with serving(Ours(), stage) as running:
        found["memory"] = _many_calls(running, plan)
    return found


def _redis_cells(stage: Stage, running: Running, plan: Plan) -> list[Record]:
    found = []
    for count in plan.connections:
        counter = RedisCounter(stage.redis)
        cell = load.calls(running.endpoint, count, 0, plan.seconds)
        found.append({"connections": count, **per_call(counter.since(), cell.calls)})
    return found


def _cpu(stage: Stage, running: Running, plan: Plan) -> Record:
    """Processor milliseconds a call at 64 connections."""
    pids = {role: running.pids(role) for role in running.children}
    pids |= {"redis": [stage.redis_pid], "upstream": [stage.upstream.child.pid]}
    spent = measure.Spent(pids)
    return spent.per_call(
        load.calls(running.endpoint, measure.RATIO_CONNECTIONS, 0, plan.seconds).calls
    )


def in_flight(
    stage: Stage, running: Running, count: int, hold_ms: int, spread: float = IN_FLIGHT_SPREAD
) -> Record:
    """Redis connections while so many calls wait for a slow upstream."""
    request = running.endpoint.request(f"wait={hold_ms}")
    calls = Load(running.endpoint, request, count, most=1, spread=spread, keep=False)
    thread = threading.Thread(target=calls.run)
    thread.start()
    time.sleep(hold_ms / 1000 - 0.5)
    found = connections(stage.redis)
    thread.join()
    failed = sum(bool(exchange.error) for exchange in calls.exchanges)
    return {"calls": count, "failed": failed, "redis_connections": found}


def _many_calls(running: Running, plan: Plan) -> Record:
    found: Record = {"idle_mb": running.idle_mb}
    made = 0
    for share, name in ((1 / PLATEAU_SHARE, "plateau_mb"), (1, "after_mb")):
        idle_turns = 0
        while made < plan.memory_calls * share and idle_turns < 3:
            calls = load.calls(running.endpoint, measure.RATIO_CONNECTIONS, 0, 2).calls
            idle_turns = 0 if calls else idle_turns + 1
            made += calls
        time.sleep(1)
        found[name] = running.memory()
    return {**found, "calls": made}


def scaling(stage: Stage, plan: Plan) -> list[Record]:
    """Our service with more web and worker processes."""
    found = []
    for webs in plan.webs:
        for workers in plan.workers:
            with serving(Ours(webs, workers), stage) as running:
                cells = [
                    measure.cell(running, 64, 0, plan),
                    measure.cell(running, 256, 0, plan),
                    measure.cell(running, 256, 500, plan),
                ]
                streams = load.streams(running.endpoint, 256, plan.stream_seconds).record()
                mb = running.memory()
            found.append(
                {"webs": webs, "workers": workers, "cells": cells, "streams": streams, "mb": mb}
            )
    return found


def far(stage: Stage, direct: Running, plan: Plan) -> Record:
    """Our service with a millisecond added to each round trip to Redis."""
    with (
        proxied(stage, FAR_ROUND_TRIP_MS) as url,
        serving(Ours(redis_url=url), stage) as running,
    ):
        return {
            "round_trip_ms": FAR_ROUND_TRIP_MS,
            "measured_ms": numbers.rounded(_ping_ms(Redis.from_url(url)) - _ping_ms(stage.redis)),
            "latency": measure.latency(running, direct, plan),
            "cells": [measure.cell(running, count, 0, plan) for count in plan.connections],
            "streams": measure.stream_cells(running, plan),
        }


def _ping_ms(redis: Redis) -> float:
    """The median round trip to a Redis."""
    times = []
    for _ in range(PINGS):
        begin = time.perf_counter()
        redis.ping()
        times.append((time.perf_counter() - begin) * 1000)
    return numbers.percentile(times, 0.5) or 0.0
