"""The queue: how deep and how old it is, who waits, who works, and the acts that steer it."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from flask import Response, request, url_for

from api.console.names import key_names
from api.console.page import console, done, page, see_other
from api.console.session import operators
from api.http.auth import actor
from api.queue import acts
from api.queue.shown import shown_call, shown_pause, shown_worker
from api.services import services
from gateway.account.api_keys import KeyRecord
from gateway.errors import GatewayError, InvalidRequest
from gateway.queue import steering

ROWS = 100  # of a page
REASONS = {
    "in_line": "In line",
    "limit": "Over a limit",
    "paused": "Paused",
    "scheduled": "Scheduled",
}
DONE = {
    "moved": "The call is at the front.",
    "cancelled": "The call has been cancelled.",
    "paused": "Paused. Calls that run go on; further ones wait.",
    "resumed": "Resumed. Its calls stand in line again within a second.",
    "drained": "The worker takes no more calls. Those that it runs go on.",
    "undrained": "The worker takes calls again.",
}


@console.get("/console/queue")
@operators
def queue(key: KeyRecord) -> Response:
    """A page of the calls that wait, the pauses and the workers."""
    return _page(key, None)


@console.post("/console/queue/<call_id>/move")
@operators
def queue_move(key: KeyRecord, call_id: str) -> Response:
    """Move a waiting call to the front."""
    return _act(key, lambda: acts.move(call_id, actor(key)), "moved")


@console.post("/console/queue/<call_id>/cancel")
@operators
def queue_cancel(key: KeyRecord, call_id: str) -> Response:
    """Cancel a call that waits or runs."""
    return _act(key, lambda: acts.cancel(call_id, actor(key)), "cancelled")


@console.post("/console/queue/pause")
@operators
def queue_pause(key: KeyRecord) -> Response:
    """Let the calls of a key, a model or a provider wait."""
    return _act(key, lambda: acts.pause(*_chosen(), actor(key)), "paused")


@console.post("/console/queue/resume")
@operators
def queue_resume(key: KeyRecord) -> Response:
    """End a pause."""
    return _act(key, lambda: acts.resume(*_chosen(), actor(key)), "resumed")


@console.post("/console/queue/workers/<name>")
@operators
def queue_drain(key: KeyRecord, name: str) -> Response:
    """Let a worker take no more calls, or take calls again."""
    draining = request.form.get("draining") == "1"
    done = "drained" if draining else "undrained"
    return _act(key, lambda: acts.drain(name, actor(key), draining), done)


def _act(key: KeyRecord, act: Callable[[], Any], done: str) -> Response:
    try:
        act()
    except GatewayError as error:
        return _page(key, error)
    if request.form.get("back") == "model":
        model_id = request.form.get("id", "")
        return see_other(url_for("console.models_one", model_id=model_id, done=done))
    return see_other(url_for("console.queue", done=done))


def _chosen() -> tuple[str, str]:
    """Kind and id of what the form pauses; raises InvalidRequest."""
    kind, id = (request.form.get(name, "").strip() for name in ("kind", "id"))
    if kind not in steering.PAUSES or not id:
        raise InvalidRequest("Name the key, model or provider to pause.", param="id")
    return kind, id


def _page(key: KeyRecord, error: GatewayError | None) -> Response:
    redis, now = services().broker.redis, time.time()
    args = request.args
    reason = args.get("reason", "")
    try:
        waiting, more = steering.waiting(
            redis,
            reason=reason if reason in REASONS else None,
            after=args.get("after", ""),
            limit=ROWS,
        )
    except ValueError:
        raise InvalidRequest("The call that this page begins after is not known.") from None
    calls = [shown_call(call, now) for call in waiting]
    return page(
        "queue.html",
        error.status if error else 200,
        calls=calls,
        more=more,
        after=args.get("after", ""),
        reason=reason,
        reasons=REASONS,
        counts=steering.counts(redis),
        pauses=[shown_pause(pause) for pause in steering.pauses(redis)],
        workers=[shown_worker(worker) for worker in steering.workers(redis)],
        oldest=max((call["waiting_seconds"] for call in calls), default=None),
        names=key_names(key),
        models=[row.id for row in services().catalogue.listed()],
        kinds=steering.PAUSES,
        chosen={name: request.form.get(name, "") for name in ("kind", "id")},
        message=error.message if error else "",
        wrong=bool(error),
        done="" if error else done(DONE),
    )
