"""Faults of what Redis holds, lets in and how fast it is: rows R9 to R15."""

from __future__ import annotations

import contextlib
import signal
import time

from gateway.queue import keys
from tests.faults.arena import LONGER, SHORT, Arena
from tests.faults.rows import row
from tests.faults.scenarios_redis import AWAY, BACK_SECONDS, refused_in_time
from tests.support.stack import until


@row("R9", "SCRIPT FLUSH, twenty times")
def scripts_are_forgotten(arena: Arena) -> None:
    calls = arena.load()
    calls += arena.load(SHORT, count=60, over=3.0)
    arena.soon(0.6, 0.8)
    for _ in range(20):
        arena.redis.script_flush()
        time.sleep(arena.rng.uniform(0.02, 0.2))
    arena.finish()
    arena.demand(all(each.answered for each in calls), "a call was lost")


@row("R10", "FLUSHALL under running calls; new ones keep coming")
def redis_is_emptied(arena: Arena) -> None:
    running = arena.load(LONGER, deadline=arena.within(20))
    arena.until_running(55)
    arena.until_known()
    late = arena.load(SHORT, count=40, over=2.0)
    arena.soon(0.0, 1.0)
    arena.empty()
    arena.recovered(BACK_SECONDS)
    arena.finish()
    arena.only(["job_lost", "reply_lost", *AWAY], late)
    arena.demand(all(each.answered for each in running), "a running call was lost")
    until(
        lambda: arena.redis.scard(keys.RQ_WORKERS) == 1,
        arena.within(10),
        "a worker that registers again",
    )


@row("R11", "maxclients: every connection ended, no new one let in for 3 s")
def redis_lets_nobody_in(arena: Arena) -> None:
    arena.load()
    arena.until_running(55)
    arena.soon(0.1, 0.6)
    arena.redis.connection_pool.disconnect()
    with contextlib.closing(arena.admin()) as admin:
        admin.config_set("maxclients", 1)
        admin.execute_command("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes")
        late = arena.load(SHORT, count=30, over=2.0)
        time.sleep(3.0)
        admin.config_set("maxclients", 10_000)
    arena.recovered()
    arena.finish()
    refused_in_time(arena, late)


@row("R12", "garbage in the queue, the jobs, the bodies and the inbox")
def garbage(arena: Arena) -> None:
    calls = arena.load()
    calls += arena.load(SHORT, count=40, over=2.0)
    arena.soon(0.6, 0.8)
    redis, pickled = arena.redis, b"\x80\x04\x8c\x05posix\x8c\x06system\x93\x8c\x02id\x85R."
    for number in range(20):
        call_id = f"garbage-{number}"
        if number % 4 == 0:
            redis.set(keys.job(call_id), "not a hash", ex=60)
        elif number % 4 == 1:
            redis.hset(keys.job(call_id), mapping={"status": "queued"})
            redis.expire(keys.job(call_id), 60)
        elif number % 4 == 2:
            fields = {"status": "queued", "web": "nobody", "deadline_ms": "x", "bytes": "1"}
            redis.hset(keys.job(call_id), mapping=fields)
            redis.expire(keys.job(call_id), 60)
        redis.set(keys.call(call_id), pickled, ex=60)
        redis.rpush(keys.RQ_QUEUE, call_id)
        redis.rpush(keys.BELL, 1)
        for inbox in redis.scan_iter(keys.inbox("*")):
            redis.xadd(inbox, {"e": pickled})
    arena.finish()
    arena.demand(all(each.answered for each in calls), "a call was lost")


@row("R13", "SIGSTOP of the web process for 6 s while 60 fast streams run")
def the_reader_is_behind(arena: Arena) -> None:
    arena.steady()
    arena.load(["fake/nonce-stream-600-15"], over=0.2, deadline=25)
    arena.until_running()
    arena.soon(0.5, 1.5)
    arena.web.signal(signal.SIGSTOP)
    time.sleep(6.0)
    arena.web.signal(signal.SIGCONT)
    arena.finish()
    arena.only(["client_closed_request", "reply_lost", "job_lost"])


def waiting(arena: Arena) -> int:
    """How many parts of answers, a line each, wait in the inboxes."""
    count = 0
    for inbox in arena.redis.scan_iter(keys.inbox("*")):
        for _, fields in arena.redis.xrange(inbox):
            count += fields[b"e"].count(b'"delta"')
    return count


@row("R13-20k", "20,000 tokens wait for a web process that stands still: none is lost")
def many_events_wait(arena: Arena) -> None:
    arena.steady()
    calls = arena.load(["fake/delay-2000-nonce-stream-400-0"], over=0.3, streams=True, deadline=25)
    arena.until_running()
    arena.soon(0.4, 1.0)
    arena.web.signal(signal.SIGSTOP)
    try:
        # In less than the 4 s after which a web process is taken for dead.
        until(lambda: waiting(arena) >= 20_000, 3.5, "20,000 waiting tokens")
    finally:
        arena.web.signal(signal.SIGCONT)
    arena.finish()
    arena.demand(all(each.answered for each in calls), "a call was lost")


@row("R14", "50 ms more for each round trip to Redis")
def redis_is_slow(arena: Arena) -> None:
    for proxy in (arena.web_redis, arena.worker_redis):
        proxy.delay(0.025)
    calls = arena.load()
    calls += arena.load(SHORT, count=60, over=3.0)
    arena.soon()
    arena.finish()
    arena.demand(all(each.answered for each in calls), "a call was lost")


@row(
    "R15",
    "a failover to a replica that never saw the claims: every call is handed out again",
)
def calls_are_handed_out_twice(arena: Arena) -> None:
    # Its claim waits in Redis for the bell, and takes the first few calls; the others stay queued.
    arena.workers[0].signal(signal.SIGSTOP)
    calls = arena.load(over=0.2)
    until(lambda: arena.redis.llen(keys.RQ_QUEUE) >= 50, arena.within(10))
    saved = {name: arena.redis.dump(name) for name in _of_calls(arena)}
    arena.workers[0].signal(signal.SIGCONT)
    arena.until_running(55)
    arena.soon(0.2, 1.0)
    with arena.redis.pipeline(transaction=True) as pipeline:
        pipeline.delete(keys.RQ_STARTED)
        for name, value in saved.items():
            pipeline.restore(name, 60_000, value, replace=True)
        pipeline.execute()
    arena.finish()
    arena.only(["reply_lost"], calls)


def _of_calls(arena: Arena) -> list[bytes]:
    patterns = ("rq:job:*", "gw:call:*", keys.RQ_QUEUE, keys.BELL, keys.QUEUED_BYTES)
    return [name for pattern in patterns for name in arena.redis.scan_iter(pattern)]
