"""Replies that are lost or late, events that are big or not wanted, clients that leave."""

from __future__ import annotations

import time

from gateway.queue import scripts
from tests.faults.arena import SHORT, Arena
from tests.faults.proxy import FaultProxy
from tests.faults.reconciler import nonce_of
from tests.faults.rows import row
from tests.support.stack import until

DROPS = 20


def dropping(arena: Arena, proxy: FaultProxy, script: scripts.Script) -> None:
    """Lose replies of one script at random moments; the connection is reset instead."""
    arena.load()
    arena.load(SHORT, count=60, over=3.5)
    arena.soon(0.6, 0.8)
    for _ in range(DROPS):
        proxy.drop_replies(script.sha.encode())
        time.sleep(arena.rng.uniform(0.05, 0.25))
    arena.finish()
    proxy.heal()
    arena.demand(proxy.dropped >= 3, f"only {proxy.dropped} replies were lost")
    arena.only(["queue_unavailable"])


@row("R7-submit", "lost replies to submits, up to 20")
def replies_to_submits(arena: Arena) -> None:
    dropping(arena, arena.web_redis, scripts.SUBMIT)


@row("R7-claim", "lost replies to claims, up to 20")
def replies_to_claims(arena: Arena) -> None:
    dropping(arena, arena.worker_redis, scripts.CLAIM)


@row("R7-emit", "lost replies to batches of events, up to 20")
def replies_to_events(arena: Arena) -> None:
    dropping(arena, arena.worker_redis, scripts.EMIT)


@row("R7-finish", "lost replies to outcomes, up to 20")
def replies_to_outcomes(arena: Arena) -> None:
    dropping(arena, arena.worker_redis, scripts.FINISH)


@row("R7-read", "lost replies to reads of the inbox, up to 20")
def replies_to_reads(arena: Arena) -> None:
    arena.load()
    arena.load(SHORT, count=60, over=3.5)
    arena.soon(0.6, 0.8)
    for _ in range(DROPS):
        arena.web_redis.drop_replies(b"XREAD")
        time.sleep(arena.rng.uniform(0.05, 0.25))
    arena.finish()
    arena.web_redis.heal()
    arena.only(["queue_unavailable"])


@row("R7-cancel", "lost replies to cancels, up to 20: the calls are stopped all the same")
def replies_to_cancels(arena: Arena) -> None:
    staying = arena.load(count=40)
    arena.load(leave=(0.8, 3.0))
    arena.soon(0.6, 0.8)
    for _ in range(DROPS):
        arena.web_redis.drop_replies(scripts.CANCEL.sha.encode())
        time.sleep(arena.rng.uniform(0.05, 0.15))
    arena.finish()
    arena.web_redis.heal()
    arena.demand(arena.web_redis.dropped >= 3, f"only {arena.web_redis.dropped} replies were lost")
    arena.demand(all(each.answered for each in staying), "a call of another was lost")


@row("R7-birth", "lost replies to the registration of three starting workers")
def replies_to_registrations(arena: Arena) -> None:
    arena.kill(arena.workers[0])
    calls = arena.load()
    arena.soon()
    for number in range(3):
        arena.worker_redis.drop_replies(b"birth")
        arena.start_worker()
        until(
            lambda count=number: arena.worker_redis.dropped > count,
            arena.within(20),
            "a lost registration",
        )
    arena.finish()
    arena.demand(all(each.answered for each in calls), "a call was lost")


@row("C1", "clients leave before the worker has read what it claimed (replies 0.4 s late)")
def cancelled_before_the_claim_is_read(arena: Arena) -> None:
    arena.worker_redis.delay(0.2)
    arena.load(leave=(0.1, 1.2))
    arena.load(count=40)
    arena.soon(0.5, 0.6)
    arena.finish()
    arena.worker_redis.heal()


@row("U23", "60 clients leave at random moments, whole and streamed")
def clients_leave(arena: Arena) -> None:
    arena.load(leave=(0.2, 3.0))
    staying = arena.load(count=20)
    arena.soon(0.5, 0.7)
    arena.finish()
    arena.demand(all(each.answered for each in staying), "a call of another was lost")


# Memory that both give back to the allocator, which keeps some of it.
HELD = 128  # megabytes


@row("B1", "big events: answers of 0.5 MB in pieces of 24 kB, and of 2 MB in pieces of 500 kB",
     memory=HELD)  # fmt: skip
def big_events(arena: Arena) -> None:
    calls = arena.load(["fake/nonce-stream-20-150-fat-24"], count=60, deadline=30)
    calls += arena.load(["fake/nonce-stream-4-500-fat-500"], count=6, deadline=30)
    arena.soon(0.6, 1.0)
    arena.finish()
    arena.demand(all(each.answered for each in calls), "an answer was lost")


@row("B2", "ten clients that take nothing of streams of 12 MB, beside 60 others", memory=HELD)
def replies_nobody_reads(arena: Arena) -> None:
    idle = arena.load(
        ["fake/nonce-stream-400-5-fat-32"],
        count=10,
        deadline=40,
        leave=(9.0, 10.0),
        reads=False,
        streams=True,
    )
    calls = arena.load()
    arena.soon(0.8, 1.2)
    arena.finish()
    arena.demand(all(each.answered for each in calls), "a call of another was lost")
    streams = {each.nonce: each.left for each in idle}
    for call in arena.upstream.log():
        left = streams.get(nonce_of(call))
        if left:
            arena.demand(call["ended"] and call["ended"] < left, "a reader was waited for")
