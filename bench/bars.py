"""The bars that this service is to reach, and whether a run did."""

from __future__ import annotations

import operator
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

Record = dict[str, Any]
PROCESSES = 2


@dataclass(frozen=True)
class Bar:
    """One figure of a run and its bound."""

    title: str
    value: Callable[[Record], float]
    sign: str
    bound: float

    def look(self, record: Record) -> float | None:
        """The figure, or None where the run does not hold it."""
        try:
            return self.value(record)
        except (KeyError, IndexError, TypeError, ZeroDivisionError, StopIteration):
            return None

    def met(self, value: float) -> bool:
        return {"≤": operator.le, "≥": operator.ge}[self.sign](value, self.bound)


def _ratio(name: str) -> Callable[[Record], float]:
    return lambda record: record["targets"][name]["ratio"]["median"] + 0


def _cpu(kind: str) -> Callable[[Record], float]:
    return lambda record: record["targets"]["bare"]["cpu_ratio"][kind]["median"] + 0


def _latency(kind: str) -> Callable[[Record], float]:
    return lambda record: record["targets"]["ours"]["latency"][kind] + 0


def _stream(count: int, kind: str) -> Callable[[Record], float]:
    def value(record: Record) -> float:
        cells = record["targets"]["ours"]["streams"]
        return float(next(cell[kind] for cell in cells if cell["streams"] == count))

    return value


def _cell(record: Record, connections: int) -> Record:
    cells = record["targets"]["ours"]["frontier"]
    return next(dict(c) for c in cells if (c["delay"], c["connections"]) == (0, connections))


def _failures(record: Record) -> float:
    cells = record["targets"]["ours"]["frontier"]
    return float(sum(cell["failed"] + cell["timeouts"] for cell in cells))


def _round_trips(record: Record) -> float:
    cells = record["inside"]["redis"]
    return float(next(cell["round_trips"] for cell in cells if cell["connections"] == 64))


def _connections(record: Record) -> float:
    return float(record["inside"]["in_flight"]["redis_connections"] / PROCESSES)


def _growth(record: Record) -> float:
    memory = record["inside"]["memory"]
    return float(memory["after_mb"] - memory["idle_mb"])


BARS = (
    Bar("calls/s at 64 connections / LiteLLM's", _ratio("litellm"), "≥", 5),
    Bar("the same / Portkey's", _ratio("portkey"), "≥", 1.25),
    Bar("the same / the bare proxy's", _ratio("bare"), "≥", 0.80),
    Bar(
        "the same, with a database and all limits of the key",
        lambda record: record["full"]["ratio"]["median"] + 0,
        "≥",
        0.80,
    ),
    Bar(
        "calls/s at 256 connections / at 64",
        lambda record: float(_cell(record, 256)["rps"] / _cell(record, 64)["rps"]),
        "≥",
        1,
    ),
    Bar("failures and timeouts in the frontier", _failures, "≤", 0),
    Bar("calls/s, 500 ms, 256 connections / the upstream's", _ratio("direct"), "≥", 0.95),
    Bar("added latency, p50 (ms)", _latency("added_p50"), "≤", 2),
    Bar("added latency, p99 (ms)", _latency("added_p99"), "≤", 4),
    Bar("CPU of a call at 64 connections / the bare proxy's", _cpu("call"), "≤", 1.0),
    Bar("CPU of a streamed token, 200 streams / the same", _cpu("token"), "≤", 0.7),
    Bar("512 streams: broken", _stream(512, "broken"), "≤", 0),
    Bar("512 streams: per token, p99 (ms)", _stream(512, "token_p99"), "≤", 60),
    Bar("512 streams: largest gap (ms)", _stream(512, "gap"), "≤", 100),
    Bar("10 streams: added first token, p50 (ms)", _stream(10, "added_first_p50"), "≤", 4),
    Bar("256 streams: added first token, p99 (ms)", _stream(256, "added_first_p99"), "≤", 30),
    Bar("10 streams: added per token, p99 (ms)", _stream(10, "added_token_p99"), "≤", 2.5),
    Bar("Redis round trips a call at 64 connections", _round_trips, "≤", 4),
    Bar("Redis connections a process, 1,000 calls in flight", _connections, "≤", 8),
    Bar(
        "idle memory, web + worker (MB)",
        lambda record: float(record["targets"]["ours"]["idle_mb"]),
        "≤",
        150,
    ),
    Bar("memory growth over 30,000 calls (MB)", _growth, "≤", 40),
)


def rows(record: Record) -> list[tuple[str, float, str, bool]]:
    """Title, figure, bound and verdict of each bar that the run has a figure for."""
    found = []
    for bar in BARS:
        value = bar.look(record)
        if value is not None:
            found.append((bar.title, value, f"{bar.sign} {bar.bound:g}", bar.met(value)))
    return found
