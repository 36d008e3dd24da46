"""Sends the requests of a batch's lines, again if they are refused, until the batch stops."""

from __future__ import annotations

import random
import time
from collections.abc import Iterable, Mapping
from itertools import islice
from typing import Any

import orjson
from flask import Flask
from gevent.event import Event

from api.http import line as line_api
from api.http.line import Line, LineReply
from api.idempotency import name_in_redis
from api.services import Services
from gateway.files.batches import Batch
from gateway.queue import commands, event_logs
from gateway.stalls import give_turn

RETRY_SECONDS = 900.0  # a line that a provider or this service refuses is tried again so long
PAUSE_SECONDS = (1.0, 30.0)  # between two tries, at first and at most
STOPPED_LINES = 500  # lines whose calls are stopped together
MOST_LOST = 20  # runners that may be killed before they have queued the call of one line


def call(
    app: Flask, batch: Batch, number: int, path: str, request: Mapping[str, Any], stopping: Event
) -> LineReply | None:
    """Return the reply to a line, or None if the batch ends or is `stopping` before that.

    `path` is the address in the app.
    """
    body = orjson.dumps(request["body"])
    line = Line(batch.key_id, batch.id)
    began, tries, lost = time.monotonic(), 0, 0
    while True:
        left = batch.expires - time.time()
        if left <= 0:
            return None
        headers = {
            "Idempotency-Key": _name(batch, number, lost),
            "X-Request-Timeout": f"{left:.3f}",
            "User-Agent": "batch",
        }
        reply = line_api.call(app, line, path, body, headers)
        if reply.status == 504 and time.time() >= batch.expires:
            return None
        if never_queued(reply) and lost < MOST_LOST:
            lost += 1  # the same name would stand for that call for a day
            continue
        seconds = pause(reply, tries, time.monotonic() - began)
        if seconds is None:
            return reply
        tries += 1
        if stopping.wait(seconds):
            return None


def stop(services: Services, batch: Batch, numbers: Iterable[int]) -> None:
    """Stop the calls of these lines, also at their providers. Raises RedisError.

    They have run for long enough, or the runner that waited for them was killed.
    """
    redis, pepper = services.broker.redis, services.settings.key_pepper
    left = iter(numbers)
    while some := list(islice(left, STOPPED_LINES)):
        for lost in range(MOST_LOST):
            names = [_name(batch, number, lost) for number in some]
            in_redis = [name_in_redis(pepper, batch.key_id, name) for name in names]
            calls = event_logs.idempotent_calls(redis, in_redis)
            if not calls:
                break
            for call_id in calls:
                commands.cancel(redis, call_id)
        give_turn()


def _name(batch: Batch, number: int, lost: int) -> str:
    """The Idempotency-Key of a line whose call so many runners did not queue."""
    return f"{batch.id}:{number}" + (f":{lost}" if lost else "")


def never_queued(reply: LineReply) -> bool:
    """Whether the runner before this one was killed before it had queued the call of the line.

    Then its name is noted, and Redis knows no such call (`job_lost`).
    """
    return reply.status == 503 and "idempotent-replayed" in reply.headers


def pause(reply: LineReply, tries: int, elapsed: float) -> float | None:
    """Return the seconds until a line with this reply is tried again; None if the reply is final.

    Only lines that no provider acted on are tried again: for RETRY_SECONDS, or as long as the batch
    lasts if a limit of the key refuses them.
    """
    should_retry = reply.headers.get("x-should-retry")
    if should_retry == "false" or (should_retry is None and reply.status != 429):
        return None
    if elapsed > RETRY_SECONDS and "x-limit-name" not in reply.headers:
        return None
    first, most = PAUSE_SECONDS
    wait = float(reply.headers.get("retry-after", 0))
    own: float = min(most, first * 2 ** min(tries, 10))
    return max(wait, own * random.uniform(0.5, 1))
