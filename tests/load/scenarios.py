"""Many calls at once: waiting, streaming, leaving, in bursts."""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

import requests

from bench.numbers import percentile
from tests.load.arena import LoadArena, p
from tests.load.calls import Call
from tests.load.rows import row
from tests.load.views import LiveViews
from tests.support.stack import busy, reserved_port, until

CONNECTIONS = 8  # to Redis, that a process may have


@row("L1", "1,000 unstreamed calls at once, whose provider takes 10 s")
def many_wait(arena: LoadArena) -> None:
    calls = arena.load(arena.asks(["delay-10000"], 1_000, 2.0, streams=0))
    arena.statuses(calls, [200])
    arena.at_most("p99", p(0.99, (call.ended - call.began for call in calls)), 11, " s")
    arena.at_most("connections to Redis", arena.redis_connections, 2 * CONNECTIONS, "")
    arena.at_most("web", arena.peak_mb["web"], 250, " MB")
    arena.note(f"worker {arena.peak_mb['worker']:.0f} MB")
    arena.nothing_broken(calls)


@row("L2", "1,000 streams at once, 20 tokens/s each for 30 s")
def many_streams(arena: LoadArena) -> None:
    before = arena.cpu()
    calls = arena.load(arena.asks(["nonce-stream-600-50"], 1_000, 5.0, streams=1))
    spent = {name: now - before[name] for name, now in arena.cpu().items()}
    begun = min(call.began for call in calls)
    wall = max(call.ended for call in calls) - begun
    arena.statuses(calls, [200])
    gaps = [gap for call in calls for gap in call.gaps]
    arena.at_most("between arrivals p99", _ms(percentile(gaps, 0.99)), 500, " ms")
    arena.note(f"median {_ms(percentile(gaps, 0.5)):.0f}, longest {_ms(max(gaps)):.0f} ms")
    arena.at_most("first token p99", p(0.99, (call.first for call in calls)), 1, " s")
    arena.note(f"{601 * len(calls) / len(gaps):.1f} tokens an arrival")
    arena.note(f"{wall:.1f} s for what takes 35")
    arena.note(f"provider's clock up to {_ms(arena.load_provider.late()):.0f} ms late")
    cores = ", ".join(f"{name} {seconds / wall:.2f}" for name, seconds in spent.items())
    arena.note(f"cores: {cores}")
    arena.nothing_broken(calls)


@row("L10", "450 streams at 50 tokens/s by four workers; the web process is stopped for 2 s")
def a_slow_web_process(arena: LoadArena) -> None:
    for _ in range(3):
        arena.start_worker()
    arena.until_ready()
    asks = arena.asks(["nonce-stream-400-20"], 450, 1.0, streams=1, deadline=120.0)
    stopping = threading.Thread(target=_stop_web, args=(arena, 4.0, 2.0))
    stopping.start()
    calls = arena.load(asks)
    stopping.join()
    arena.statuses(calls, [200])
    wall = max(call.ended for call in calls) - min(call.began for call in calls)
    arena.note(f"{wall:.1f} s for what takes 9")
    arena.at_most("web", arena.peak_mb["web"], 300, " MB")
    arena.note(f"worker {arena.peak_mb['worker']:.0f} MB")
    arena.nothing_broken(calls)


def _stop_web(arena: LoadArena, after: float, seconds: float) -> None:
    time.sleep(after)
    arena.web.signal(signal.SIGSTOP)
    time.sleep(seconds)
    arena.web.signal(signal.SIGCONT)


@row("L11", "256 and 1,000 calls at once after a start, beside 0, 2 and 4 busy loops a core")
def cold_bursts(arena: LoadArena) -> None:
    for count in (256, 1_000):
        for loops in (0, 2, 4):
            port = arena.ending.enter_context(reserved_port())
            arena.web = arena.start_web(port)
            arena.port, arena.url = port, f"http://127.0.0.1:{port}/inference/v1"
            until(lambda: _answers(f"{arena.url}/health"), what="a web process")
            models = ["nonce-stream-20-50", "delay-1000"]
            with busy(loops):
                calls = arena.load(arena.asks(models, count, 0.05, deadline=120.0))
            took = max(call.ended for call in calls) - min(call.began for call in calls)
            arena.note(f"{count} beside {loops}: {took:.1f} s")
            arena.statuses(calls, [200])
            arena.nothing_broken(calls)
            arena.web.kill()


def _answers(url: str) -> bool:
    try:
        return requests.get(url, timeout=5).ok
    except requests.RequestException:
        return False


@row("L6", "1,000 clients that come in 10 s and leave at random moments, half of them streams")
def many_leave(arena: LoadArena) -> None:
    models = ["nonce-stream-60-100", "delay-5000"]
    calls = arena.load(arena.asks(models, 1_000, 10.0, leave=(0.01, 4.0)))
    time.sleep(3.5)
    arena.nothing_broken(calls)
    left = {call.nonce: call.left for call in calls if call.left}
    seen = [record for record in arena.upstream.log() if _nonce(record) in left]
    after = [(record["ended"] or time.time()) - left[_nonce(record)] for record in seen]
    arena.note(f"{len(left)} left, {len(seen)} of them had come to the provider")
    arena.at_most("provider's connection closed p99", percentile(after, 0.99), 2, " s")
    arena.note(f"longest {max(after):.2f} s")


@row("L7", "a burst: 1,000 calls in one second after none, half of them streams")
def a_burst(arena: LoadArena) -> None:
    models = ["nonce-stream-20-50", "delay-1000"]
    calls = arena.load(arena.asks(models, 1_000, 1.0))
    refused = sum(call.refused_tcp for call in calls)
    arena.demand(refused == 0, "no connection refused", f"{refused} refused")
    arena.statuses(calls, [200])
    arena.nothing_broken(calls)
    times = [call.first for call in calls]
    arena.note(f"first byte p50 {p(0.5, times):.2f}, p99 {p(0.99, times):.2f} s")


VIEWS, VIEWED_SECONDS = 10, 8.0


@row("L12", f"50 calls/s, half of them streams, beside 0 and {VIEWS} open Live views, in turn")
def live_views(arena: LoadArena) -> None:
    arena.load(arena.asks(["nonce-stream-20-20", "delay-100"], 100, 2.0))  # warm
    calls: dict[int, list[Call]] = {0: [], VIEWS: []}
    costs: dict[tuple[str, int], list[tuple[float, float]]] = {}
    for count in (0, VIEWS, 0, VIEWS):
        with LiveViews(arena, count) as views:
            with _cost(arena, costs.setdefault(("idle", count), [])):
                time.sleep(VIEWED_SECONDS)
            with _cost(arena, costs.setdefault(("loaded", count), [])):
                asks = arena.asks(["nonce-stream-20-20", "delay-100"], 400, VIEWED_SECONDS)
                calls[count] += arena.load(asks)
            if count:
                shown = views.per_second()
                arena.demand(shown > 0.5, "each view shows figures", f"{shown:.2f} a second")
    for when in ("idle", "loaded"):
        (cpu, commands), (more_cpu, more_commands) = (
            [sum(values) / len(values) for values in zip(*costs[when, count], strict=True)]
            for count in (0, VIEWS)
        )
        arena.at_most(f"{when}: {VIEWS} views take", (more_cpu - cpu) * 100, 5, " % of a core")
        arena.note(f"web {cpu:.1%} and {more_cpu:.1%}")
        if when == "idle":  # under load, 1 % of them is more
            arena.at_most("commands to Redis", more_commands - commands, 60, " a second more")
        arena.note(f"{commands:.0f} and {more_commands:.0f} commands a second")
    for count, answered in calls.items():
        arena.statuses(answered, [200])
        arena.nothing_broken(answered)
        gaps = [gap for call in answered for gap in call.gaps]
        first = _ms(p(0.99, (call.first for call in answered)))
        arena.note(f"{count} views: first p99 {first:.0f}, gap p99 {_ms(p(0.99, gaps)):.0f} ms")


@contextmanager
def _cost(arena: LoadArena, costs: list[tuple[float, float]]) -> Iterator[None]:
    """Add the cores of the web process and the commands a second to Redis of what runs inside."""
    began, cpu, commands = time.monotonic(), arena.cpu()["web"], arena.redis_commands()
    yield
    seconds = time.monotonic() - began
    used = arena.cpu()["web"] - cpu
    costs.append((used / seconds, (arena.redis_commands() - commands) / seconds))


@row("L8", "200 calls with images of 4 MB in 20 s")
def big_bodies(arena: LoadArena) -> None:
    warm = arena.load(arena.asks(["delay-100"], 5, 1.0, image=4_000_000))
    time.sleep(2)
    before = {name: arena.resident_mb(name) for name in ("web", "worker")}
    since = time.time()
    calls = arena.load(arena.asks(["delay-500"], 200, 20.0, image=4_000_000))
    arena.statuses([*warm, *calls], [200])
    arena.nothing_broken(calls)
    for name in ("web", "worker"):
        stall, own = arena.stall(name, since)
        arena.at_most(f"longest stall of the {name}'s loop", stall, 100, " ms")
        arena.note(f"(its own work {own:.0f} ms)")
    time.sleep(5)
    for name, mb in before.items():
        arena.at_most(f"{name} after it", arena.resident_mb(name), mb + 50, " MB")
        arena.note(f"(before {mb:.0f}, at most {arena.peak_mb[name]:.0f})")
    times = [call.ended - call.began for call in calls]
    arena.note(f"answered after p50 {p(0.5, times):.2f}, p99 {p(0.99, times):.2f} s")


def _nonce(record: dict) -> str:
    return record["body"]["messages"][0]["content"]


def _ms(seconds: float | None) -> float:
    return (seconds or 0.0) * 1000
