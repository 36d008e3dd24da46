"""Faults of the service's own processes: rows P."""

from __future__ import annotations

import resource
import signal
import time
from collections import Counter

import requests

from gateway.queue import keys
from tests.faults.arena import AGAIN, LONG, LONGER, SHORT, SILENT, Arena
from tests.faults.reconciler import Allowed, nonce_of
from tests.faults.rows import row
from tests.faults.scenarios_account import account, books_are_right
from tests.support.stack import until

LOSS_SECONDS = 4.5  # 4 s are promised; the client's own end takes some


@row("P1-P2", "kill -9 of one of two workers, in the middle of calls", workers=2)
def a_worker_is_killed(arena: Arena) -> None:
    arena.steady()
    calls = arena.load()
    arena.until_running()
    arena.soon(0.0, 1.2)
    killed = arena.kill(arena.workers[0])
    arena.finish()
    arena.only(["worker_lost"])
    lost = [each for each in calls if each.code]
    arena.demand(lost, "the killed worker ran no call")
    for each in lost:
        took = each.ended - killed
        arena.demand(
            took < arena.within(LOSS_SECONDS), f"{each.nonce}: its loss was told after {took:.1f} s"
        )
        arena.demand(
            each.should_retry == "false" or each.status == 200, f"{each.nonce}: to be retried?"
        )


def load_that_runs_again(arena: Arena, streams: int, seconds: float) -> None:
    """Calls of which nothing has left the worker: whole ones, and streams that have not begun."""
    arena.steady()
    deadline = arena.within(seconds)
    arena.load(LONG, streams=False, headers=AGAIN, deadline=deadline)
    for headers in (AGAIN, {**AGAIN, "X-Resumable": "true"}):
        arena.load(SILENT, count=streams, streams=True, headers=headers, deadline=deadline)
    arena.until_running(60 + 2 * streams)


def ran_again(arena: Arena) -> set[str]:
    """The calls that the provider got twice, once all have ended; demand that all are answered."""
    arena.finish()
    arena.demand(all(each.answered for each in arena.here()), "a call was not answered")
    called = Counter(nonce_of(call) for call in arena.upstream.log())
    again = {nonce for nonce, count in called.items() if count == 2}
    arena.demand(again, "no call ran again")
    arena.notes.append(f"{len(again)} calls ran again")
    return again


@row("P16", "kill -9 of one of two workers whose calls may run once more", workers=2,
     env={"STREAM_REPLAY_SECONDS": "60"}, allowed=Allowed(attempts=2), database=True)  # fmt: skip
def calls_of_a_killed_worker_run_again(arena: Arena) -> None:
    load_that_runs_again(arena, 30, 25)
    arena.soon(0.0, 1.2)
    arena.kill(arena.workers[0])
    again = ran_again(arena)
    arena.notes.append("they are charged for one run each")
    books_are_right(arena)
    lost = {
        call["request_id"]
        for call in account(arena)
        if [attempt["error"] for attempt in call["provider_responses"]] == ["worker_lost", None]
    }
    arena.demand(lost == again, f"{len(lost)} records list a lost run, and {len(again)} calls")


@row("P18", "SIGTERM of one of two workers with calls longer than the drain (3 s), which may run "
     "once more", workers=2, env={"DRAIN_SECONDS": "3"}, allowed=Allowed(attempts=2))  # fmt: skip
def calls_of_a_stopped_worker_run_again(arena: Arena) -> None:
    models = ("fake/delay-6000", "claude/nonce-stream-100-60")
    arena.load(models, streams=False, headers=AGAIN, deadline=arena.within(25))
    arena.until_running()
    arena.soon(0.0, 1.0)
    stopped = arena.terminate(arena.workers[0])
    ran_again(arena)
    arena.ended_well(arena.workers[0], stopped)


def a_sleeping_worker_loses_its_calls(arena: Arena) -> None:
    """It is taken for lost; its calls run once more, there or here; what it writes is dropped."""
    load_that_runs_again(arena, 20, 35)
    arena.soon(0.0, 1.0)
    arena.workers[0].signal(signal.SIGSTOP)
    time.sleep(14.0)
    arena.workers[0].signal(signal.SIGCONT)
    ran_again(arena)


for _workers, _which in ((1, "the only worker"), (2, "one of two workers")):
    row(
        f"P17-{_workers}",
        f"SIGSTOP of {_which} for 14 s, whose calls may run once more",
        workers=_workers,
        env={"STREAM_REPLAY_SECONDS": "60"},
        allowed=Allowed(attempts=2),
    )(a_sleeping_worker_loses_its_calls)


@row("P3", "kill -9 of the only worker as soon as it has claimed calls; another starts")
def a_worker_is_killed_after_its_claim(arena: Arena) -> None:
    arena.steady()
    arena.load(over=0.05)
    until(lambda: arena.redis.zcard(keys.RQ_STARTED), arena.within(10))
    until(lambda: arena.in_flight() >= 50, arena.within(5))
    arena.soon(0.0, 0.1)
    arena.kill(arena.workers[0])
    arena.start_worker()
    arena.finish()
    arena.only(["worker_lost"])


@row("P4", "kill -9 of a worker whose answers Redis has not taken yet")
def a_worker_dies_with_its_answers(arena: Arena) -> None:
    arena.steady()
    arena.load(["fake/delay-1500"], over=0.3)
    arena.until_running()
    arena.soon(0.0, 0.2)
    arena.worker_redis.blackhole()
    until(lambda: all(call["ended"] for call in arena.upstream.log()), arena.within(10))
    arena.kill(arena.workers[0])
    arena.worker_redis.heal()
    arena.start_worker()
    arena.finish()
    arena.only(["worker_lost"])


@row(
    "P5",
    "kill -9 of all workers: nobody takes what is queued",
    env={"NO_WORKERS_SECONDS": "2"},
    ends=True,
)
def all_workers_are_killed(arena: Arena) -> None:
    arena.kill(arena.workers[0])
    calls = arena.load()
    until(lambda: arena.in_flight() >= 50, arena.within(5))
    arena.soon(0.5, 0.8)
    arena.finish()
    arena.only(["no_workers"])
    arena.demand(all(each.status == 503 for each in calls), "another status than 503")
    arena.demand(all(each.retry_after for each in calls), "a 503 without Retry-After")
    limit = arena.within(8)
    arena.demand(all(each.ended - each.began < limit for each in calls), "refused too late")


@row(
    "P6",
    "kill -9 of the web process: its calls are stopped",
    allowed=Allowed(broken=True, orphan_seconds=5.0),
)
def the_web_process_is_killed(arena: Arena) -> None:
    arena.steady()
    calls = arena.load(["fake/nonce-stream-200-100", "fake/delay-20000"], deadline=30)
    arena.until_running()
    arena.soon(0.0, 1.0)
    killed = arena.kill(arena.web)
    for each in calls:
        each.left = killed  # whoever called has lost the connection
    arena.finish()
    until(lambda: all(call["ended"] for call in arena.upstream.log()), arena.within(15))
    arena.new_port()


def answer_of(arena: Arena) -> str:
    """What a process that stops says to a new call: a status, or how it lets nobody in."""
    try:
        response = arena.ask("fake/echo", "late", headers={"X-Request-Timeout": "1"})
        return str(response.status_code)
    except requests.ConnectionError:
        return "refused"


@row("P7", "SIGTERM of web and worker; what ends within the drain is answered, new calls are not",
     ends=True)  # fmt: skip
def all_are_stopped(arena: Arena) -> None:
    calls = arena.load([*LONG, *SHORT], count=160)
    arena.soon(0.8, 1.5)
    stopped = arena.terminate(arena.web, arena.workers[0])
    time.sleep(0.5)  # what it takes before it has noticed waits for a worker, in vain
    until(lambda: answer_of(arena) in ("503", "refused"), arena.within(10), "an end of new calls")
    answers = set()
    while arena.in_flight():
        answers.add(answer_of(arena))
        time.sleep(arena.rng.uniform(0.02, 0.1))
    arena.finish()
    arena.demand(answers <= {"503", "refused"}, f"new calls were told {sorted(answers)}")
    late = [call for call in arena.upstream.log() if nonce_of(call) == "late" and call["started"]]
    arena.demand(
        all(call["started"] < stopped + arena.within(2) for call in late), "a new call was made"
    )
    arena.ended_well(arena.web, stopped)
    arena.ended_well(arena.workers[0], stopped)
    arena.demand(all(each.answered for each in calls), "a call that ends in time was lost")
    left = [*arena.redis.keys(keys.lease("*")), *arena.redis.smembers(keys.RQ_WORKERS)]
    arena.demand(not left, f"processes that have left are still registered: {left}")


@row(
    "P9",
    "SIGTERM of everything three times, with calls longer than the drain (3 s)",
    env={"DRAIN_SECONDS": "3"},
    ends=True,
)
def the_drain_is_too_short(arena: Arena) -> None:
    arena.load(["fake/nonce-stream-300-100", "fake/delay-30000"], deadline=40)
    short = arena.load(SHORT, count=40)
    arena.soon(0.7, 1.2)
    arena.terminate(arena.web, arena.workers[0])
    for _ in range(2):
        time.sleep(0.5)
        stopped = arena.terminate(arena.web, arena.workers[0])
    arena.finish()
    arena.ended_well(arena.web, stopped, 3 + 4)
    arena.ended_well(arena.workers[0], stopped, 3 + 4)
    arena.only(["worker_stopped", "shutting_down"])
    arena.demand(all(each.answered for each in short), "a call that ends in time was lost")


@row("P8", "SIGTERM of one of two workers, three times in three seconds", workers=2)
def a_worker_is_stopped(arena: Arena) -> None:
    calls = arena.load()
    calls += arena.load([*LONG, *SHORT], count=60, over=3.0)
    arena.soon(0.8, 1.5)
    for _ in range(3):
        stopped = arena.terminate(arena.workers[0])
        time.sleep(1.0)
    arena.finish()
    arena.ended_well(arena.workers[0], stopped)
    arena.demand(all(each.answered for each in calls), "a call was lost")


@row("P10", "SIGSTOP of a worker for 14 s: its late results are fenced off", workers=2)
def a_worker_sleeps(arena: Arena) -> None:
    arena.steady()
    arena.load(["fake/nonce-stream-50-100", "fake/delay-5000"], deadline=arena.within(25))
    arena.until_running()
    arena.soon(0.0, 1.0)
    arena.workers[0].signal(signal.SIGSTOP)
    time.sleep(14.0)
    arena.workers[0].signal(signal.SIGCONT)
    arena.finish()
    arena.only(["worker_lost"])
    arena.demand(any(each.code for each in arena.here()), "no call was on the stopped worker")


@row("P15", "a worker runs out of file descriptors and loses its connections to Redis", workers=2)
def a_worker_without_descriptors(arena: Arena) -> None:
    arena.steady()
    calls = arena.load(LONGER, deadline=60)
    arena.until_running()
    arena.soon(0.0, 1.0)
    worker = arena.workers[0].pid
    limits = resource.prlimit(worker, resource.RLIMIT_NOFILE)
    resource.prlimit(worker, resource.RLIMIT_NOFILE, (3, limits[1]))
    with arena.admin() as admin:
        for client in admin.client_list():
            if client["cmd"] != "client|id":  # the lease keeps its connection
                admin.client_kill_filter(_id=client["id"])
    cut = time.time()
    arena.finish()
    arena.only(["worker_lost"])
    lost = [each for each in calls if each.code]
    arena.demand(lost, "the worker without descriptors ran no call")
    for each in lost:
        took = each.ended - cut
        arena.demand(took < arena.within(20), f"{each.nonce}: its loss was told after {took:.1f} s")
    resource.prlimit(worker, resource.RLIMIT_NOFILE, limits)
    until(lambda: len(list(arena.redis.scan_iter(keys.lease("worker-*")))) == 2, arena.within(10))


@row("P11", "the only worker dies and is started again, while calls keep coming")
def a_worker_is_replaced(arena: Arena) -> None:
    arena.steady()
    arena.load()
    arena.until_running()
    arena.soon(0.0, 1.0)
    arena.kill(arena.workers[0])
    late = arena.load(SHORT, count=30, over=3.0)
    arena.start_worker()
    arena.finish()
    arena.only(["worker_lost"])
    arena.demand(any(each.answered for each in late), "nothing was answered afterwards")


@row("P12", "SIGSTOP of web and worker for 2 s: all wait, none is lost")
def all_stand_still(arena: Arena) -> None:
    calls = arena.load()
    arena.soon()
    for process in (arena.web, arena.workers[0]):
        process.signal(signal.SIGSTOP)
    time.sleep(2.0)
    for process in (arena.web, arena.workers[0]):
        process.signal(signal.SIGCONT)
    arena.finish()
    arena.demand(all(each.answered for each in calls), "a call was lost")


@row("P13", "a deploy under load, old and new processes overlapping")
def a_deploy(arena: Arena) -> None:
    old = [arena.web, arena.workers[0]]
    calls = arena.load(count=60)
    arena.soon(0.8, 1.0)
    calls += arena.load([*LONG, *SHORT], count=120, over=8.0)
    arena.start_worker()
    arena.new_port()
    until(lambda: arena.redis.scard(keys.RQ_WORKERS) == 2, arena.within(20))
    time.sleep(0.5)  # a request that was sent to the old address has arrived
    stopped = arena.terminate(*old)
    arena.finish()
    for process in old:
        arena.ended_well(process, stopped)
    arena.demand(all(each.answered for each in calls), "a call failed during the deploy")


def clocks_jump(arena: Arena) -> None:
    """An hour on, and then two hours back, under calls; new ones come all the while."""
    calls = arena.load()
    calls += arena.load(SHORT, count=60, over=6.0)
    arena.soon(0.6, 1.2)
    for moved in (3600, -3600):
        arena.jump(moved)
        time.sleep(arena.rng.uniform(2.0, 3.0))
    arena.finish()
    arena.demand(all(each.answered for each in calls), "a call was lost")
    created = arena.ask("fake/echo", "what time is it?").json()["created"]
    if "web" in arena.clocks:
        arena.demand(created < time.time() - 3000, "the clock did not jump")


for _clocks in (("web",), ("worker",), ("web", "worker")):
    row(
        f"P14-{'-'.join(_clocks)}",
        f"the clock of {' and '.join(_clocks)} jumps an hour on, then two back",
        clocks=_clocks,
    )(clocks_jump)
