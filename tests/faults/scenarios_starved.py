"""Starved and paused processes: rows S. Slower is allowed, an error or a second run is not."""

from __future__ import annotations

import signal
import time
from collections.abc import Callable

import requests

from tests.faults.arena import LONG, SHORT, Arena
from tests.faults.rows import row
from tests.support.stack import busy, reserved_port, until

PAUSES = (1.7, 2.8, 5.0, 8.0)  # seconds
DEADLINE_SECONDS = 120.0  # of a call: a starved machine takes its time


def all_answered(arena: Arena) -> None:
    """Demand that no call of the row had any error."""
    arena.only([])
    lost = sum(not each.answered for each in arena.here())
    arena.demand(not lost, f"{lost} calls were not answered")


def cold_burst(count: int, loops: int) -> Callable[[Arena], None]:
    """So many connections at once, at a web process that has just started."""

    def run(arena: Arena) -> None:
        port = arena.ending.enter_context(reserved_port())
        arena.start_web(port)
        url = f"http://127.0.0.1:{port}/inference/v1"
        until(lambda: _answers(f"{url}/health"), what="a web process")
        arena.port, arena.url = port, url
        with busy(loops):
            # Long enough for slow clients: all are in flight together.
            models = ["fake/nonce-stream-60-50", "fake/delay-3000"]
            arena.load(models, count=count, over=0.05, deadline=DEADLINE_SECONDS)
            arena.meet()
            arena.finish()
        all_answered(arena)

    return run


for _count in (256, 1_000):
    for _loops in (0, 2, 4):
        row(
            f"S1-{_count}-{_loops}",
            f"{_count:,} connections at once after a start, {_loops} busy loops a core",
        )(cold_burst(_count, _loops))


def stopped(who: str, seconds: float) -> Callable[[Arena], None]:
    """SIGSTOP for so long: once idle with calls that come meanwhile, then three times at work."""

    def run(arena: Arena) -> None:
        arena.steady()
        groups = {"web": [arena.web], "worker": arena.workers}
        mine = groups.get(who) or [arena.web, *arena.workers]

        def tell(number: int) -> None:
            for process in mine:
                process.signal(number)
            if who == "all":
                assert arena.server.process is not None
                arena.server.process.send_signal(number)
                arena.upstream.process.send_signal(number)

        for working in (False, True, True, True):
            if working:
                arena.load(LONG, count=64, over=0.2, deadline=DEADLINE_SECONDS)
                arena.soon(0.5, 1.5)
            tell(signal.SIGSTOP)
            arena.load(SHORT, count=30, over=seconds, deadline=DEADLINE_SECONDS)
            time.sleep(seconds)
            tell(signal.SIGCONT)
            time.sleep(arena.rng.uniform(0.5, 1.5))
        arena.finish()
        all_answered(arena)

    return run


for _who, _what in (
    ("web", "the web process"),
    ("worker", "the worker"),
    ("both", "web and worker"),
    ("all", "web, worker, Redis and the provider"),
):
    for _seconds in PAUSES:
        row(
            f"S2-{_who}-{_seconds:g}",
            f"SIGSTOP of {_what} for {_seconds:g} s, four times in a row",
        )(stopped(_who, _seconds))


@row("S3", "512 streams beside two busy loops a core")
def many_streams(arena: Arena) -> None:
    with busy(2):
        streams = ["fake/nonce-stream-50-200"]
        arena.load(streams, count=512, over=2.0, deadline=DEADLINE_SECONDS, streams=True)
        arena.meet()
        arena.finish()
    all_answered(arena)


@row("S4", "the key of running calls is revoked: they are stopped, streams too")
def a_key_is_revoked(arena: Arena) -> None:
    calls = arena.load(["fake/nonce-stream-200-100", "fake/delay-20000"], deadline=40)
    arena.until_running()
    arena.soon(0.0, 1.0)
    public_id = arena.key.split("_")[2]
    arena.keys.revoke(public_id)
    revoked = time.time()
    arena.finish()
    arena.only(["invalid_api_key"])
    for each in calls:
        took = each.ended - revoked
        arena.demand(each.code, f"{each.nonce}: was not ended")
        arena.demand(took < arena.within(5), f"{each.nonce}: ended after {took:.1f} s")
    arena.key = arena.keys.create("tests")


def _answers(url: str) -> bool:
    try:
        return requests.get(url, timeout=5).ok
    except requests.RequestException:
        return False
