"""The account after faults: every call is booked once, with what the provider counted. Rows A."""

from __future__ import annotations

import subprocess
import sys
import threading
import time
from typing import Any

import requests

from gateway.queue import keys
from tests.faults.account import booked
from tests.faults.arena import LONG, SHORT, Arena
from tests.faults.reconciler import Allowed
from tests.faults.rows import row
from tests.support.stack import ROOT, until

SETTLED_SECONDS = 60.0  # until the ledger has every record: what dead processes ran takes 45
PAGE = 100
# Answers, errors, retries, and streams that end badly, before and after their first token.
MIX = (
    *SHORT,
    *SHORT,
    "claude/delay-200",
    "fake/nonce-stream-30-5",
    "fake/once-500",
    "fake/status-400",
    "fake/status-500",
    "fake/policy",
    "fake/nonce-stream-10-20-cut-mid",
    "claude/nonce-stream-10-20-cut-mid",
    "fake/nonce-stream-10-20-error-mid",
    "fake/nonce-stream-10-20-reset-mid",
)
# Attempts: a provider's errors are tried again.
MIXED = Allowed(attempts=5, broken=True, orphan_seconds=12.0, retry=True)
ENV = {"UPSTREAM_RETRIES": "2"}


def account(arena: Arena) -> list[dict[str, Any]]:
    """All calls of the account, as an operator reads them."""
    calls: list[dict[str, Any]] = []
    page: dict[str, Any] = {"limit": PAGE}
    while True:
        response = requests.get(
            f"{arena.url}/generations", params=page, headers=arena.headers(), timeout=30
        )
        response.raise_for_status()
        body = response.json()
        calls += body["data"]
        if not body["has_more"]:
            return calls
        page["after"] = body["last_id"]


def books_are_right(arena: Arena) -> None:
    """Wait for the ledger, and demand that it is right, and the same as the counters in Redis."""
    until(  # in this order: a call leaves the registry as its record enters the stream
        lambda: not arena.redis.zcard(keys.RQ_STARTED) and not arena.redis.xlen(keys.RECORDS),
        arena.within(SETTLED_SECONDS),
        "a ledger that has all records",
    )
    result = booked(arena.here(), arena.upstream.log(), account(arena))
    arena.defects += result.defects
    arena.notes.append(str(result))
    check = subprocess.run(
        [sys.executable, "-m", "flask", "account", "check"],
        cwd=ROOT,
        env=arena.env,
        capture_output=True,
        text=True,
        timeout=arena.within(60),
    )
    arena.demand(check.returncode == 0, f"flask account check: {check.stdout}{check.stderr}"[:500])


def mixed(arena: Arena, count: int, seconds: float) -> None:
    """Begin so many mixed calls in so many seconds; one in five of the clients leaves."""
    arena.load(MIX, count=count * 4 // 5, over=seconds)
    arena.load([*MIX, *LONG], count=count // 5, over=seconds, leave=(0.05, 1.5))


def kill_web(arena: Arena) -> None:
    """kill -9 of the web process; its clients lose their connections, and the next ones wait."""
    killed = arena.kill(arena.web)
    for each in arena.here():
        if each.began and not each.ended:
            each.left = killed
    arena.web = arena.new_port()


@row("A1", "400 mixed calls: answers, errors, retries, cut streams, clients that leave",
     env=ENV, allowed=MIXED, database=True)  # fmt: skip
def calls_end_in_every_way(arena: Arena) -> None:
    arena.load(LONG)
    mixed(arena, 340, 8.0)
    arena.soon()
    arena.finish()
    books_are_right(arena)


@row("A2", "kill -9 of one of two workers under mixed calls; another starts", workers=2,
     env=ENV, allowed=MIXED, database=True)  # fmt: skip
def a_worker_is_killed(arena: Arena) -> None:
    arena.steady()
    arena.load(LONG)
    mixed(arena, 200, 8.0)
    arena.until_running()
    arena.soon(0.0, 1.0)
    arena.kill(arena.workers[0])
    arena.start_worker()
    arena.finish()
    books_are_right(arena)


@row("A3", "kill -9 of the web process under mixed calls; another starts", env=ENV, allowed=MIXED,
     database=True)  # fmt: skip
def the_web_process_is_killed(arena: Arena) -> None:
    arena.steady()
    arena.load(LONG)
    mixed(arena, 150, 1.5)
    arena.until_running()
    arena.soon(0.0, 1.0)
    kill_web(arena)
    mixed(arena, 150, 3.0)
    arena.finish()
    books_are_right(arena)


@row("A4", "Redis restarted with its data under mixed calls, away for 2 s", env=ENV,
     allowed=MIXED, database=True)  # fmt: skip
def redis_is_restarted(arena: Arena) -> None:
    arena.load(LONG)
    mixed(arena, 300, 8.0)
    arena.until_running()
    arena.soon(0.0, 1.0)
    arena.server.stop()
    time.sleep(2.0)
    arena.server.start()
    arena.recovered()
    arena.finish()
    books_are_right(arena)


def away(arena: Arena, seconds: float) -> None:
    """Take the database away; calls go on."""
    arena.database.reset()
    arena.database.blackhole()
    time.sleep(seconds)
    arena.database.heal()


@row("A5", "the database away for 10 s: calls go on, and are booked afterwards", env=ENV,
     allowed=MIXED, database=True)  # fmt: skip
def the_database_is_away(arena: Arena) -> None:
    calls = arena.load(LONG)
    arena.until_running()
    arena.soon(0.0, 1.0)
    mixed(arena, 200, 8.0)
    calls += arena.load(SHORT, count=40, over=8.0)
    away(arena, 10.0)
    arena.finish()
    arena.demand(all(each.answered for each in calls), "a call was lost")
    books_are_right(arena)


@row(
    "A-2000",
    "2,000 mixed calls in two minutes; two workers and the web process are killed, Redis is "
    "restarted with its data, the database is away for a minute",
    workers=2,
    env=ENV,
    allowed=MIXED,
    database=True,
    memory=128,
)
def everything_goes_wrong(arena: Arena) -> None:
    arena.steady()
    arena.load(LONG, count=100)
    mixed(arena, 1_900, 120.0)
    arena.soon()
    arena.soon(4.0, 6.0)
    database = threading.Thread(target=away, args=(arena, 60.0))
    database.start()
    arena.soon(8.0, 12.0)
    arena.kill(arena.workers[0])
    arena.start_worker()
    arena.soon(8.0, 12.0)
    arena.server.stop()
    time.sleep(3.0)
    arena.server.start()
    arena.soon(8.0, 12.0)
    kill_web(arena)
    arena.soon(8.0, 12.0)
    arena.kill(arena.workers[1])
    arena.start_worker()
    database.join()
    arena.finish()
    books_are_right(arena)
