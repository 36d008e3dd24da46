"""Faults of Redis itself, and of what it holds: rows R."""

from __future__ import annotations

import contextlib
import signal
import time

from tests.faults.arena import LONGER, SHORT, Arena
from tests.faults.client import Seen
from tests.faults.rows import row

REFUSAL_SECONDS = 2.0 + 1.5  # 2 s are promised, where Redis refuses; a silent one costs a read more
BACK_SECONDS = 3.0
AWAY = ("queue_unavailable",)


def refused_in_time(arena: Arena, calls: list[Seen], codes: tuple[str, ...] = AWAY) -> None:
    """Demand that calls made while Redis was away were answered, or refused at once."""
    arena.only(codes, calls)
    for each in calls:
        if each.code:
            took = each.ended - each.began
            arena.demand(
                took < arena.within(REFUSAL_SECONDS), f"{each.nonce}: refused after {took:.1f} s"
            )
            arena.demand(each.status == 503, f"{each.nonce}: status {each.status}")
            # A call that may have been made names no time: clients would repeat it then.
            arena.demand(
                each.retry_after or each.should_retry == "false", f"{each.nonce}: no Retry-After"
            )


def away(arena: Arena, seconds: float) -> None:
    """Redis ends, and comes back with its data; what ran is answered."""
    running = arena.load()
    arena.until_running(55)
    arena.soon(0.2, 1.0)
    arena.server.stop()
    late = arena.load(SHORT, count=30, over=seconds)
    time.sleep(seconds)
    arena.server.start()
    arena.recovered(BACK_SECONDS)
    arena.finish()
    refused_in_time(arena, late)
    arena.only(AWAY, running)
    arena.demand(sum(each.answered for each in running) >= 50, "a running call was lost")


@row("R1-1s", "Redis restarted with its data, away for 1 s")
def redis_is_away_for_a_second(arena: Arena) -> None:
    away(arena, 1.0)


@row("R1-5s", "the same, away for 5 s")
def redis_is_away_for_five_seconds(arena: Arena) -> None:
    away(arena, 5.0)


@row("R1-20s", "the same, away for 20 s, past every deadline of 15 s")
def redis_is_away_for_long(arena: Arena) -> None:
    running = arena.load()
    arena.until_running(55)
    arena.soon(0.0, 1.0)
    arena.server.stop()
    time.sleep(20.0)
    arena.server.start()
    arena.recovered(BACK_SECONDS)
    arena.finish()
    arena.only([*AWAY, "deadline_exceeded"], running)


@row("R1-60s", "the same, away for 60 s; calls live for 90 s, and wait for their answers")
def redis_is_away_for_a_minute(arena: Arena) -> None:
    running = arena.load(deadline=90)
    arena.until_running(55)
    arena.soon(0.0, 1.0)
    arena.server.stop()
    late = arena.load(SHORT, count=30, over=50.0)
    time.sleep(60.0)
    arena.server.start()
    arena.recovered(BACK_SECONDS)
    arena.finish()
    refused_in_time(arena, late)
    arena.only(AWAY, running)
    arena.demand(sum(each.answered for each in running) >= 50, "a running call was lost")


@row("R1-kill", "kill -9 of Redis; up to a second of its last writes is gone")
def redis_is_killed(arena: Arena) -> None:
    arena.load()
    arena.load(SHORT, count=40, over=2.0)
    arena.soon()
    assert arena.server.process is not None
    arena.server.process.kill()
    arena.server.process.wait()
    arena.server.stop()
    arena.server.start()
    arena.recovered(BACK_SECONDS)
    arena.finish()
    arena.only([*AWAY, "job_lost", "reply_lost"])


@row("R2", "Redis restarted empty: what runs is delivered, what waited is lost and told")
def redis_comes_back_empty(arena: Arena) -> None:
    arena.load(LONGER, deadline=arena.within(20))
    arena.until_running(55)
    arena.until_known()
    arena.soon(0.0, 0.3)
    arena.restart_empty()
    arena.recovered(BACK_SECONDS)
    arena.finish()
    arena.only([*AWAY, "job_lost"])


@row("R3", "SIGSTOP of Redis for 2 to 8 s: stalled submits")
def redis_stands_still(arena: Arena) -> None:
    running = arena.load()
    arena.until_running(55)
    arena.soon(0.1, 0.6)
    assert arena.server.process is not None
    arena.server.process.send_signal(signal.SIGSTOP)
    late = arena.load(SHORT, count=40, over=2.0)
    time.sleep(arena.rng.uniform(2.0, 8.0))
    arena.server.process.send_signal(signal.SIGCONT)
    arena.recovered(BACK_SECONDS)
    arena.finish()
    refused_in_time(arena, late)
    arena.demand(sum(each.answered for each in running) >= 50, "a running call was lost")


@row("R3-pause", "CLIENT PAUSE of 4 s")
def redis_is_paused(arena: Arena) -> None:
    arena.load()
    arena.soon()
    late = arena.load(SHORT, count=40, over=3.0)
    arena.redis.execute_command("CLIENT", "PAUSE", 4000, "ALL")
    arena.finish()
    refused_in_time(arena, late)


@row("R4", "CLIENT KILL of every connection, ten times")
def connections_are_killed(arena: Arena) -> None:
    arena.load()
    arena.load(SHORT, count=40, over=2.0)
    arena.soon(0.6, 1.0)
    with contextlib.closing(arena.admin()) as admin:
        for _ in range(10):
            admin.execute_command("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes")
            time.sleep(arena.rng.uniform(0.02, 0.3))
    arena.finish()
    arena.only(AWAY)


@row("R4-rst", "every connection to Redis reset by the network, ten times")
def connections_are_reset(arena: Arena) -> None:
    arena.load()
    arena.load(SHORT, count=40, over=2.0)
    arena.soon(0.6, 1.0)
    for _ in range(10):
        arena.rng.choice([arena.web_redis, arena.worker_redis]).reset()
        time.sleep(arena.rng.uniform(0.02, 0.3))
    arena.finish()
    arena.only(AWAY)


@row("R5", "Redis is a read-only replica for 3 s, as after a failover")
def redis_is_read_only(arena: Arena) -> None:
    running = arena.load()
    arena.until_running(55)
    arena.soon(0.1, 0.8)
    arena.redis.replicaof("127.0.0.1", 1)
    late = arena.load(SHORT, count=30, over=2.0)
    time.sleep(3.0)
    arena.redis.replicaof("NO", "ONE")
    arena.recovered()
    arena.finish()
    refused_in_time(arena, late)
    arena.only([*AWAY, "worker_lost"], running)


@row("R5-term", "SIGTERM of everything while Redis refuses writes (READONLY)", ends=True)
def stopped_while_read_only(arena: Arena) -> None:
    calls = arena.load()
    arena.until_running(55)
    arena.soon(0.1, 0.8)
    arena.redis.replicaof("127.0.0.1", 1)
    stopped = arena.terminate(arena.web, arena.workers[0])
    time.sleep(arena.rng.uniform(1.0, 2.5))
    arena.redis.replicaof("NO", "ONE")
    arena.finish()
    arena.ended_well(arena.web, stopped)
    arena.ended_well(arena.workers[0], stopped)
    arena.demand(sum(each.answered for each in calls) >= 50, "a running call was lost")


@row("R6", "Redis is full (OOM): new calls are refused, running ones end")
def redis_is_full(arena: Arena) -> None:
    running = arena.load()
    arena.until_running(55)
    arena.soon(0.1, 0.8)
    arena.redis.config_set("maxmemory", arena.redis.info("memory")["used_memory"] // 2)
    late = arena.load(SHORT, count=30, over=1.5)
    time.sleep(3.0)
    arena.redis.config_set("maxmemory", 0)
    arena.recovered()
    arena.finish()
    refused_in_time(arena, late, ("server_is_overloaded", *AWAY))
    arena.demand(any(each.code for each in late), "nothing was refused")
    arena.demand(sum(each.answered for each in running) >= 50, "a running call was lost")


@row("R6-term", "SIGTERM of everything while Redis is full (OOM)", ends=True)
def stopped_while_full(arena: Arena) -> None:
    calls = arena.load()
    arena.until_running(55)
    arena.soon(0.1, 0.8)
    arena.redis.config_set("maxmemory", arena.redis.info("memory")["used_memory"] // 2)
    stopped = arena.terminate(arena.web, arena.workers[0])
    arena.finish()
    arena.ended_well(arena.web, stopped)
    arena.ended_well(arena.workers[0], stopped)
    arena.redis.config_set("maxmemory", 0)
    arena.demand(sum(each.answered for each in calls) >= 50, "a running call was lost")


@row("R8", "a black hole instead of Redis for 6 s")
def redis_is_a_black_hole(arena: Arena) -> None:
    running = arena.load()
    arena.until_running(55)
    arena.soon(0.1, 0.6)
    for proxy in (arena.web_redis, arena.worker_redis):
        proxy.blackhole()
    late = arena.load(SHORT, count=30, over=4.0)
    time.sleep(6.0)
    for proxy in (arena.web_redis, arena.worker_redis):
        proxy.heal()
    arena.recovered()
    arena.finish()
    refused_in_time(arena, late)
    arena.only([*AWAY, "worker_lost"], running)
