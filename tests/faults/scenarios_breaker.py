"""Circuit breakers under load, shared by workers through Redis: rows K."""

from __future__ import annotations

import time

from gateway.queue import keys
from tests.faults import routes
from tests.faults.arena import Arena
from tests.faults.client import Seen
from tests.faults.reconciler import Allowed
from tests.faults.rows import row
from tests.faults.scenarios_routing import by_fallback
from tests.support.stack import until

COOLDOWN = 2.0  # seconds
FAILURES = 5
ENV = {
    "BREAKER_FAILURES": str(FAILURES),
    "BREAKER_COOLDOWN_SECONDS": f"{COOLDOWN:g}",
    "FALLBACK_FIRST_TOKEN_SECONDS": "2",
}
# The flaky model, and its fallback; before a breaker opens, its retries too.
ALLOWED = Allowed(models=2, attempts=3, retry=True)
MODEL = ["flaky/0"]
# Of the 60 that come within 0.3 s, those that are on their way before either worker has seen enough
# failures, and later one probe a cool-down.
AT_MOST = 60
OUTAGE = 6.0  # seconds


def calls_of_flaky(arena: Arena) -> list[float]:
    """When the flaky model was called, in seconds since 1970."""
    return [call["started"] for call in arena.upstream.log() if call["model"] == routes.FLAKY]


def open_routes(arena: Arena) -> int:
    """How many routes Redis holds as troubled."""
    return int(arena.redis.hlen(keys.BREAKERS))


def outage(arena: Arena, word: str = "refuse") -> list[Seen]:
    """Calls while the flaky model is down; there are enough at once when it opens."""
    arena.upstream.down(**{routes.FLAKY: word})
    calls = arena.load(MODEL, count=60, over=0.3)
    arena.meet()
    return calls + arena.load(MODEL, count=200, over=OUTAGE - 1)


def spared(arena: Arena, calls: list[Seen], most: int) -> None:
    """Demand that the fallback answered them all, and the flaky model was seldom asked."""
    arena.only([], calls)
    others = [each.nonce for each in calls if not by_fallback(each)]
    arena.demand(not others, f"{len(others)} calls were not answered by the fallback")
    bounded(arena, most)


def bounded(arena: Arena, most: int) -> None:
    """Demand that the model that is down was called so often at most."""
    count = len(calls_of_flaky(arena))
    arena.notes.append(f"{count} calls of the model that is down, for {len(arena.here())}")
    arena.demand(count <= most, f"the model that is down was called {count} times")


def back(arena: Arena) -> None:
    """The flaky model is well again; demand that all calls go to it soon."""
    arena.upstream.down()
    began = time.monotonic()

    def itself() -> bool:
        return bool(arena.ask(MODEL[0], "probe").json().get("model") == routes.FLAKY)

    until(itself, arena.within(COOLDOWN + 3.0), "an answer of the model that is back")
    arena.recovery = time.monotonic() - began
    until(lambda: not open_routes(arena), arena.within(5), "a closed breaker")

    def all_by_itself() -> bool:
        calls = arena.load(MODEL, count=40, over=0.5)
        arena.finish()
        return all(each.answerers == {routes.FLAKY} for each in calls)

    # Each worker looks once a second.
    until(all_by_itself, arena.within(5), "an end of calls that are kept from it")


@row("K1", "a model is down for 6 s, two workers: nearly all calls go straight to the fallback",
     workers=2, env=ENV, allowed=ALLOWED)  # fmt: skip
def an_outage(arena: Arena) -> None:
    calls = outage(arena)
    arena.finish()
    spared(arena, calls, AT_MOST)
    back(arena)


@row("K2", "one probe of all workers in each cool-down, until the model is back",
     workers=2, env=ENV, allowed=ALLOWED)  # fmt: skip
def probes(arena: Arena) -> None:
    calls = outage(arena)
    until(lambda: open_routes(arena), arena.within(5), "an open breaker")
    time.sleep(COOLDOWN)  # those that were on their way have failed, both workers know
    calls += arena.load(MODEL, count=200, over=3.5 * COOLDOWN)
    settled = time.time()
    arena.finish()
    arena.only([], calls)
    times = sorted(moment for moment in calls_of_flaky(arena) if moment > settled)
    arena.notes.append(f"{len(times)} probes in {3.5 * COOLDOWN:g} s")
    arena.demand(times, "nobody has tried whether the model is back")
    for one, other in zip(times, times[1:], strict=False):
        # Redis' clock gives the leave, the call comes a moment later.
        arena.demand(other - one > COOLDOWN - 0.5, f"two probes within {other - one:.2f} s")
    back(arena)


@row("K3", "the same, and Redis is emptied in the middle", workers=2, env=ENV, allowed=ALLOWED)
def redis_forgets(arena: Arena) -> None:
    calls = outage(arena)
    until(lambda: open_routes(arena), arena.within(5), "an open breaker")
    arena.soon(1.0, 3.0)
    arena.empty()
    arena.finish()
    arena.only(["job_lost"], calls)
    bounded(arena, 2 * AT_MOST)
    back(arena)


@row("K4", "the same, and Redis is restarted without its data", workers=2, env=ENV,
     allowed=ALLOWED)  # fmt: skip
def redis_is_replaced(arena: Arena) -> None:
    calls = outage(arena)
    until(lambda: open_routes(arena), arena.within(5), "an open breaker")
    arena.soon(1.0, 2.0)
    arena.restart_empty()
    arena.recovered()
    arena.finish()
    # Until the keys are back, new callers have none.
    arena.only(["job_lost", "reply_lost", "queue_unavailable", "invalid_api_key"], calls)
    bounded(arena, 2 * AT_MOST)
    back(arena)


@row("K5", "kill -9 of the worker whose probe is out: the next cool-down has one more", env=ENV,
     allowed=ALLOWED)  # fmt: skip
def the_prober_dies(arena: Arena) -> None:
    arena.steady()
    calls = outage(arena)
    until(lambda: open_routes(arena), arena.within(5), "an open breaker")
    arena.upstream.down(**{routes.FLAKY: "hang"})
    count = len(calls_of_flaky(arena))
    until(lambda: len(calls_of_flaky(arena)) > count, arena.within(COOLDOWN + 3), "a probe")
    arena.soon(0.0, 0.5)
    arena.kill(arena.workers[0])
    arena.start_worker()
    arena.finish()
    arena.only(["worker_lost"], calls)
    arena.until_ready()
    back(arena)


def rarely_failing(arena: Arena, model: str, calls: int, over: float) -> None:
    """Long streams of a model of which few fail: each is tried, and the others are not diverted."""
    seen = arena.load([model], count=calls, over=over, streams=True)
    arena.meet()
    arena.finish()
    arena.only([], seen)
    upstream = routes.OFTEN[model]
    tried = sum(call["model"] == upstream for call in arena.upstream.log())
    diverted = sum(map(by_fallback, seen))
    arena.notes.append(f"{diverted} of {calls} calls were answered by the fallback")
    arena.demand(tried == calls, f"{calls - tried} calls went to the fallback untried")


@row("K6", "one in 20 streams of 2.5 s fails: no breaker opens, only those go to the fallback",
     env=ENV, allowed=ALLOWED)  # fmt: skip
def few_fail(arena: Arena) -> None:
    rarely_failing(arena, "often/0", 400, 16.0)


@row("K7", "one in 50 streams of 6 s fails: no breaker opens, only those go to the fallback",
     env=ENV, allowed=ALLOWED)  # fmt: skip
def fewer_fail(arena: Arena) -> None:
    rarely_failing(arena, "often/1", 300, 12.0)


@row("K8", "all calls of one key fail at the provider: those of another key are not diverted",
     workers=2, env=ENV, allowed=ALLOWED)  # fmt: skip
def one_key_fails(arena: Arena) -> None:
    model = ["grudge/0"]
    calls = arena.load(model, count=300, over=6.0, word="bad", key=arena.keys.create("bad"))
    others = arena.load(model, count=150, over=6.0)
    arena.meet()
    arena.finish()
    arena.only([], [*calls, *others])
    arena.demand(all(map(by_fallback, calls)), "a failing call was not answered by the fallback")
    diverted = sum(map(by_fallback, others))
    arena.notes.append(f"{diverted} of {len(others)} calls of the other key were diverted")
    arena.demand(not diverted, f"{diverted} calls of the other key were diverted")
