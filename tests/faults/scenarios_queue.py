"""The queue that operators steer, under load: rows Q."""

from __future__ import annotations

import time

from gateway.queue import steering
from tests.faults.arena import LONG, SHORT, Arena
from tests.faults.reconciler import nonce_of
from tests.faults.rows import row
from tests.support.stack import until

ENTRY = {"time": 0, "action": "queue.test", "target": "", "actor": "tests", "changes": {}}
PAUSED = "fake/delay-200"


@row("Q1", "a model is paused under load; a worker is killed meanwhile; the pause ends", workers=2)
def a_model_is_paused(arena: Arena) -> None:
    arena.steady()
    name = f"model:{PAUSED}"
    steering.pause(arena.redis, name, int(time.time()), "tests", ENTRY)
    others = arena.load()
    waiting = arena.load([PAUSED], count=40)
    arena.until_running()
    arena.soon(0.0, 0.8)
    arena.kill(arena.workers[0])
    until(lambda: steering.counts(arena.redis)[steering.PAUSED] == 40, arena.within(10))
    asked = {nonce_of(call) for call in arena.upstream.log()}
    arena.demand(not asked & {each.nonce for each in waiting}, "a paused call was sent")
    steering.resume(arena.redis, name, ENTRY)
    arena.finish()
    arena.only(["worker_lost"], others)
    arena.demand(all(each.answered for each in waiting), "a paused call was not answered")


@row("Q2", "a busy worker is drained under load, and stopped", workers=2)
def a_worker_is_drained(arena: Arena) -> None:
    calls = arena.load(LONG)
    arena.until_running()
    arena.soon(0.0, 0.8)
    process = arena.workers[0]

    def worker() -> steering.Worker:
        found = (each for each in steering.workers(arena.redis) if each.pid == process.pid)
        return next(found)

    arena.demand(steering.drain(arena.redis, worker().name, "tests", ENTRY), "no such worker")
    calls += arena.load([*SHORT, *LONG], over=3.0)
    until(lambda: worker().drains and not worker().running, arena.within(15), "a drained worker")
    arena.ended_well(process, arena.terminate(process))
    arena.finish()
    arena.demand(all(each.answered for each in calls), "a call was lost")
