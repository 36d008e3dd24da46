"""More than the service can take: overload, and clients that do not read."""

from __future__ import annotations

import time

from tests.load.arena import Health, LoadArena, p
from tests.load.calls import Ask, Call
from tests.load.rows import row

SLOTS, TAKES_MS = 50, 500
CAPACITY = SLOTS * 1000 // TAKES_MS  # calls a second
OVERLOAD_SECONDS, TIMES = 60, 5


@row(
    "L4",
    f"{TIMES} times as many calls as {SLOTS} slots can take, for {OVERLOAD_SECONDS} s",
    WORKER_CONCURRENCY=str(SLOTS),
    QUEUE_LIMIT=str(SLOTS),
)
def overload(arena: LoadArena) -> None:
    most = _rate(_offer(arena, 1.2, 12), 2, 12)
    before = arena.cpu()
    with Health(arena.url) as health:
        calls = _offer(arena, TIMES, OVERLOAD_SECONDS)
    spent = {name: now - before[name] for name, now in arena.cpu().items()}
    ended = max(call.began for call in calls)
    back = _recovery(arena, ended)
    arena.statuses(calls, [200, 429, 503])
    refused = [call for call in calls if call.status in (429, 503)]
    arena.at_most("refused within", _ms(max(c.ended - c.began for c in refused)), 100, " ms")
    arena.note(f"(p99 {_ms(p(0.99, (c.ended - c.began for c in refused))):.0f} ms)")
    waits = sorted({int(call.retry_after or 0) for call in refused})
    good = 1 <= waits[0] and waits[-1] <= 120
    arena.demand(good, "each with Retry-After 1 to 120 s", f"Retry-After {waits[0]} to {waits[-1]}")
    arena.at_most("/health p95", p(0.95, health.seconds), 0.5, " s")
    arena.demand(health.failed == 0, "/health always 200", f"{health.failed} failed")
    share = _rate(calls, 2, OVERLOAD_SECONDS) / most
    arena.demand(share >= 0.9, "goodput ≥ 90 % of the most", f"{share:.0%} of {most:.0f}/s")
    arena.at_most("answers as before after", back, 5, " s")
    cores = ", ".join(f"{name} {each / OVERLOAD_SECONDS:.2f}" for name, each in spent.items())
    arena.note(f"cores: {cores}")
    arena.nothing_broken(calls)


def _offer(arena: LoadArena, times: float, seconds: float) -> list[Call]:
    count = round(CAPACITY * times * seconds)
    asks = arena.asks([f"delay-{TAKES_MS}"], count, seconds, streams=0)
    return arena.load(asks, keep=True)


def _rate(calls: list[Call], begin: float, end: float) -> float:
    """Answers a second between these moments of a load."""
    first = min(call.began for call in calls)
    answered = [call for call in calls if call.answered]
    inside = sum(begin <= call.ended - first < end for call in answered)
    return inside / (end - begin)


def _recovery(arena: LoadArena, since: float) -> float:
    """Seconds after `since` at which a call was made that was answered as fast as ever."""
    while time.time() - since < 30:
        begun = time.time()
        ok = arena.ask("fake/delay-500", "n0x000000000000").status_code == 200
        if ok and time.time() - begun < 2 * TAKES_MS / 1000:
            return begun - since
        time.sleep(0.1)
    return time.time() - since


FAT = "nonce-stream-{count}-100-fat-2"  # 20 kB/s
NORMAL = "nonce-stream-100-50"
SLOW, OTHERS, RATE = 500, 200, 1024
L5_SECONDS = 25


@row("L5", f"{SLOW} clients that read 1 kB/s of streams with 20 kB/s, beside {OTHERS} others")
def slow_readers(arena: LoadArena) -> None:
    usual = _normal(_mixed(arena, 15, 0))
    idle = arena.resident_mb("web")
    calls = _mixed(arena, L5_SECONDS, RATE)
    slow = {call.nonce for call in calls if call.slow}
    log = [r for r in arena.upstream.log() if r["body"]["messages"][0]["content"] in slow]
    cut = [record for record in log if record["closed_early"]]
    arena.demand(len(cut) == SLOW, "all slow ones cut", f"{len(cut)} of {SLOW} cut")
    if cut:
        times = [record["ended"] - record["started"] for record in cut]
        arena.note(f"after {min(times):.0f} to {max(times):.0f} s")
    # After the last cut nothing would disturb them any more.
    until = max(record["ended"] for record in log)
    normal = [call for call in _normal(calls) if call.began < until]
    arena.statuses(_normal(calls), [200])
    arena.nothing_broken(_normal(calls))
    for what, values, before in (
        ("others' first token", _firsts(normal), _firsts(usual)),
        ("between arrivals", _gaps(normal), _gaps(usual)),
    ):
        bound = 1.2 * _ms(p(0.99, before))
        arena.at_most(f"{what} p99", _ms(p(0.99, values)), round(bound), " ms")
    arena.note(f"web {idle:.0f} MB before")
    arena.at_most("web", arena.peak_mb["web"], 400, " MB")


def _mixed(arena: LoadArena, seconds: float, rate: int) -> list[Call]:
    """SLOW streams that are read at this rate, beside OTHERS at any moment."""
    model = FAT.format(count=int(seconds * 10))
    asks = arena.asks([model], SLOW, 3.0, streams=1, rate=rate, deadline=seconds + 5)
    count = round(OTHERS * (seconds - 8) / 5.2)
    asks += arena.asks([NORMAL], count, seconds - 8, begin=3.0, streams=1)
    return arena.load(asks)


def _normal(calls: list[Call]) -> list[Call]:
    return [call for call in calls if call.model.endswith(NORMAL)]


def _firsts(calls: list[Call]) -> list[float]:
    return [call.first for call in calls]


def _gaps(calls: list[Call]) -> list[float]:
    return [gap for call in calls for gap in call.gaps]


BODY = 19_000_000


@row("L9", "20 calls with images of 19 MB at once, beside 20 small calls a second")
def large_bodies(arena: LoadArena) -> None:
    _beside_small(arena, arena.asks(["delay-50"], 20, 0.1, begin=1.0, streams=0, image=BODY))


LONG = "nonce-stream-30-10-fat-1000"  # 31 MB


@row("L13", "20 calls at once whose responses have 31 MB, beside 20 small calls a second")
def large_responses(arena: LoadArena) -> None:
    _beside_small(arena, arena.asks([LONG], 20, 0.1, begin=1.0, streams=0))
    arena.at_most("Redis", arena.redis_mb, 300, " MB")


def _beside_small(arena: LoadArena, large: list[Ask]) -> None:
    usual = arena.load(arena.asks(["delay-50"], 100, 5.0, streams=0))
    small = arena.asks(["delay-50"], 200, 10.0, streams=0)
    since = time.time()
    calls = arena.load([*large, *small])
    sent = {ask.nonce for ask in large}
    others = [call for call in calls if call.nonce not in sent]
    arena.statuses([*usual, *calls], [200])
    arena.nothing_broken(calls)
    times = [call.ended - call.began for call in others]
    arena.at_most("small calls p99", p(0.99, times), 1, " s")
    arena.note(f"p50 {p(0.5, times):.2f}, longest {max(times):.2f} s")
    arena.note(f"before p99 {p(0.99, (call.ended - call.began for call in usual)):.2f} s")
    for name in ("web", "worker"):
        stall, own = arena.stall(name, since)
        arena.note(f"longest stall of the {name}'s loop {stall:.0f} ms (its own work {own:.0f} ms)")
    arena.note(f"provider's clock up to {arena.load_provider.late() * 1000:.0f} ms late")
    took = max(call.ended - call.began for call in calls if call.nonce in sent)
    arena.note(f"large ones answered within {took:.1f} s")
    arena.at_most("web", arena.peak_mb["web"], 1_000, " MB")


def _ms(seconds: float | None) -> float:
    return (seconds or 0.0) * 1000
