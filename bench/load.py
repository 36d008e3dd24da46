"""One cell of load: many unstreamed calls (wrk, or our own client) or many streams at once."""

from __future__ import annotations

import json
import math
import shutil
import subprocess
import tempfile
import threading
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

from bench import frames
from bench.client import Endpoint, Exchange, Load
from bench.numbers import percentile, rounded
from bench.processes import DidNotServe

WRK = shutil.which("wrk")
SCRIPT = Path(__file__).parent / "wrk.lua"
TIMEOUT_SECONDS = 2.0  # wrk's own, above the upstream's delay
WORDS, EVERY_MS = 64, 20
STREAM_SECONDS = WORDS * EVERY_MS / 1000
OPENING_SECONDS = 1.0  # over which streams start that are measured while all are open


@dataclass
class Cell:
    """What one cell of unstreamed calls gave; times in milliseconds."""

    delay: int
    connections: int
    calls: int
    rps: float
    p50: float | None
    p99: float | None
    failed: int
    timeouts: int

    def record(self) -> dict[str, float | int | None]:
        return asdict(self)


@dataclass
class StreamCell:
    """What one cell of streams gave; times in milliseconds."""

    streams: int
    whole: int
    broken: int
    problems: list[str]
    first_p50: float | None
    first_p99: float | None
    token_p50: float | None
    token_p99: float | None
    gap: float | None

    def record(self) -> dict[str, object]:
        return asdict(self)


def title() -> str:
    """Who makes the load of unstreamed calls."""
    return "wrk, one thread" if WRK else "bench/client.py (wrk is missing)"


def check(endpoint: Endpoint, prompt: str = "wait=0", patience: float = 15.0) -> str:
    """What is wrong with one call's answer, or ""."""
    request = endpoint.request(prompt)
    [exchange] = Load(endpoint, request, 1, most=1, patience=patience).run()
    return exchange.error or frames.problem(exchange.pieces)


def calls(endpoint: Endpoint, connections: int, delay: int, seconds: float) -> Cell:
    """Ask for `seconds` over so many connections, each one call at a time."""
    prompt = f"wait={delay}"
    if WRK:
        return _with_wrk(endpoint, prompt, connections, delay, seconds)
    patience = TIMEOUT_SECONDS + delay / 1000
    request = endpoint.request(prompt)
    load = Load(
        endpoint, request, connections, seconds=seconds, patience=patience, keep=False
    ).run()
    return _cell(load, connections, delay)


def tokens(endpoint: Endpoint, count: int, seconds: float, look: Callable[[], None]) -> int:
    """Open `count` streams; return the tokens that came in `seconds` while all were open.

    `look` is called at the beginning and at the end of these seconds. Raises DidNotServe unless
    each stream arrives whole.
    """
    words = math.ceil((seconds + 2 * OPENING_SECONDS + 1.0) * 1000 / EVERY_MS)
    request = endpoint.request(f"words={words} every={EVERY_MS}", stream=True)
    load = Load(endpoint, request, count, most=1, spread=OPENING_SECONDS)
    thread = threading.Thread(target=load.run)
    thread.start()
    time.sleep(2 * OPENING_SECONDS)
    begin = time.monotonic()
    look()
    time.sleep(seconds)
    look()
    end = time.monotonic()
    thread.join()
    found = [frames.stream(exchange.pieces, words) for exchange in load.exchanges]
    problems = [exchange.error for exchange in load.exchanges] + [one.problem for one in found]
    if any(problems):
        raise DidNotServe(f"{count} streams: {next(filter(None, problems))}")
    return sum(begin <= arrival < end for one in found for arrival in one.arrivals)


def streams(endpoint: Endpoint, count: int, seconds: float) -> StreamCell:
    """Keep `count` streams open; each connection's first one is checked but not timed."""
    request = endpoint.request(f"words={WORDS} every={EVERY_MS}", stream=True)
    load = Load(
        endpoint,
        request,
        count,
        seconds=STREAM_SECONDS + seconds,
        spread=STREAM_SECONDS,
        least=2,
        patience=STREAM_SECONDS + 15,
    ).run()
    return stream_cell(load, count)


def stream_cell(load: list[Exchange], count: int) -> StreamCell:
    """The figures of a cell of streams."""
    met: set[int] = set()
    problems: list[str] = []
    firsts: list[float] = []
    delays: list[float] = []
    gap = 0.0
    for exchange in load:
        found = frames.stream(exchange.pieces, WORDS)
        problem = exchange.error or found.problem
        if problem:
            problems.append(problem)
            continue
        gap = max(gap, found.gap)
        if exchange.slot in met:
            firsts.append(found.arrivals[0] - exchange.started)
            delays += found.delays[1:]
        met.add(exchange.slot)
    return StreamCell(
        count,
        len(load) - len(problems),
        len(problems),
        sorted(set(problems))[:5],
        *(_ms(percentile(firsts, share)) for share in (0.5, 0.99)),
        *(_ms(percentile(delays, share)) for share in (0.5, 0.99)),
        _ms(gap or None),
    )


def _ms(seconds: float | None) -> float | None:
    return None if seconds is None else rounded(seconds * 1000)


def _cell(load: list[Exchange], connections: int, delay: int) -> Cell:
    good = [exchange for exchange in load if not exchange.error]
    times = [exchange.ended - exchange.started for exchange in good]
    begin = min((exchange.started for exchange in load), default=0.0)
    end = max((exchange.ended for exchange in load), default=0.0)
    timeouts = sum(exchange.error == "timeout" for exchange in load)
    rps = len(good) / (end - begin) if end > begin else 0.0
    p50, p99 = _ms(percentile(times, 0.5)), _ms(percentile(times, 0.99))
    failed = len(load) - len(good) - timeouts
    return Cell(delay, connections, len(good), round(rps, 1), p50, p99, failed, timeouts)


def _with_wrk(
    endpoint: Endpoint, prompt: str, connections: int, delay: int, seconds: float
) -> Cell:
    with tempfile.NamedTemporaryFile("w", suffix=".lua") as script:
        script.write(_wrk_script(endpoint, prompt))
        script.flush()
        timeout = TIMEOUT_SECONDS + delay / 1000
        command = ["wrk", "-t1", f"-c{connections}", f"-d{max(1, round(seconds))}s"]
        told = subprocess.run(
            [*command, f"--timeout={timeout:.0f}s", "-s", script.name, endpoint.url],
            capture_output=True,
            text=True,
            timeout=seconds + 60,
        ).stdout
    found = json.loads(told.partition("RESULT ")[2] or "null")
    if found is None:
        return Cell(delay, connections, 0, 0.0, None, None, connections, 0)
    failed = sum(found[kind] for kind in ("connect", "read", "write", "status"))
    good = max(0, found["requests"] - found["status"])
    return Cell(
        delay,
        connections,
        good,
        round(good / (found["duration"] / 1e6), 1),
        rounded(found["p50"] / 1000) if good else None,
        rounded(found["p99"] / 1000) if good else None,
        failed,
        found["timeout"],
    )


def _wrk_script(endpoint: Endpoint, prompt: str) -> str:
    """The request in Lua's words, and wrk.lua's report; JSON's strings are Lua's too here."""
    lines = ['wrk.method = "POST"', f"wrk.body = {_quoted(endpoint.body(prompt).decode())}"]
    for name, value in endpoint.all_headers().items():
        lines.append(f"wrk.headers[ {_quoted(name)} ] = {_quoted(value)}")
    return "\n".join([*lines, SCRIPT.read_text()])


def _quoted(text: str) -> str:
    return f"[==[{text}]==]"
