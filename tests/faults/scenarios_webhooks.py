"""Webhooks under faults: each event is accepted at least once. Row W."""

from __future__ import annotations

import time

from gateway import webhooks
from gateway.account.api_keys import public_id
from gateway.queue import keys
from tests.faults.arena import LONG, SHORT, Arena
from tests.faults.reconciler import Allowed
from tests.faults.rows import row
from tests.support.receiver import Receiver
from tests.support.stack import until

EVENTS = 25  # for each key
# What is accepted in the end; /twice fails the first two requests.
PATHS = ("/ok-0", "/ok-1", "/ok-2", "/twice")
# The lease of a dead sender lives for 10 s, and the last of three attempts is 10 s after the first.
SECONDS = 40.0


def hooked(arena: Arena, receiver: Receiver, path: str) -> str:
    """The public id of a new key with a webhook at a path."""
    url = receiver.url + path
    return public_id(arena.keys.create(path, webhook_url=url, webhook_nonce="nonce"))


@row("W1", "receivers that fail, hang and redirect; kill -9 of the sender, and Redis restarted "
     "with its data", workers=2, allowed=Allowed(attempts=2, broken=True))  # fmt: skip
def receivers_fail(arena: Arena) -> None:
    with Receiver() as receiver:
        arena.env["WEBHOOK_HOSTS"] = receiver.host
        for worker in list(arena.workers):
            arena.ended_well(worker, arena.terminate(worker))
            arena.start_worker()
        arena.until_ready()
        arena.steady()
        ids = {path: hooked(arena, receiver, path) for path in (*PATHS, "/hang", "/redirect")}
        arena.load(LONG)
        arena.load(SHORT, count=100, over=6.0)
        for number in range(EVENTS):
            for key_id in ids.values():
                webhooks.enqueue(arena.redis, key_id, "batch.completed", f"batch_{number}")
        name = until(lambda: arena.redis.get(keys.WEBHOOK_SENDER), arena.within(15)).decode()
        arena.soon()
        sender = next(each for each in arena.workers if name in each.log.read_text())
        arena.kill(sender)
        arena.start_worker()
        arena.soon(0.5, 1.0)
        arena.server.stop()
        time.sleep(1.0)
        arena.server.start()
        arena.recovered()
        arena.finish()
        events = {f"batch_{number}" for number in range(EVENTS)}
        for path in PATHS:
            until(
                lambda path=path: (
                    {each.event["data"]["id"] for each in receiver.at(path)} >= events
                    and not arena.redis.exists(keys.webhooks(ids[path]))
                ),
                arena.within(SECONDS),
                f"all events at {path}",
            )
        arena.demand(not receiver.at("/other"), "a redirect was followed")
        count = sum(len(receiver.at(path)) for path in PATHS)
        arena.notes.append(f"{len(PATHS) * EVENTS} events in {count} requests")
