"""/queue and /workers: what waits and who works, for operators, and how they steer it."""

from __future__ import annotations

import re
import time
from functools import partial

from flask import Blueprint, Response, request

from api.http.auth import actor, operator
from api.http.body import request_json
from api.http.json import json_response
from api.keys.schema import checked_fields
from api.queue import acts
from api.queue.schema import PAUSE
from api.queue.shown import shown_call, shown_pause, shown_worker
from api.schemas import query
from api.schemas.errors import invalid
from api.services import services
from gateway.account.api_keys import KeyRecord
from gateway.queue import steering

queue = Blueprint("queue", __name__)
_json = partial(json_response, no_store=True)

PAGE, LARGEST_PAGE = 100, 500  # calls in a response
CURSOR = re.compile(r"[qa]:-?\d[\d.e+-]{0,30}:[\w-]{1,64}", re.ASCII)


@queue.get("/queue")
@operator
def list_waiting_calls(key: KeyRecord) -> Response:
    """List the calls that wait, and why; their requests are not shown."""
    args, redis = request.args, services().broker.redis
    query.refuse_unknown(args, ("after", "limit", "reason", "api_key_id", "model"))
    after = query.text(args, "after", CURSOR) or ""
    model = query.text(args, "model", query.MODEL)
    try:
        page, more = steering.waiting(
            redis,
            reason=query.choice(args, "reason", steering.REASONS),
            key=query.text(args, "api_key_id", query.ID),
            model=model and acts.pause_name("model", model).partition(":")[2],
            after=after,
            limit=query.number(args, "limit", PAGE, LARGEST_PAGE),
        )
    except ValueError:
        raise invalid("wrong.value", "after", reason="it must be a call's cursor") from None
    now = time.time()
    return _json(
        {
            "data": [shown_call(call, now) for call in page],
            "has_more": more,
            "counts": steering.counts(redis),
            "pauses": [shown_pause(pause) for pause in steering.pauses(redis)],
        }
    )


@queue.post("/queue/<call_id>/move")
@operator
def move_call(key: KeyRecord, call_id: str) -> Response:
    """Move a waiting call to the front."""
    acts.move(call_id, actor(key))
    return _json({"moved": True})


@queue.post("/queue/<call_id>/cancel")
@operator
def cancel_call(key: KeyRecord, call_id: str) -> Response:
    """Cancel a call that waits or runs."""
    acts.cancel(call_id, actor(key))
    return _json({"cancelled": True})


@queue.post("/queue/pause")
@operator
def pause(key: KeyRecord) -> Response:
    """Let the calls of a key, a model or a provider wait."""
    return _json({"data": shown_pause(acts.pause(*_paused(), actor(key)))})


@queue.post("/queue/resume")
@operator
def resume(key: KeyRecord) -> Response:
    """End a pause."""
    return _json({"resumed": acts.resume(*_paused(), actor(key))})


@queue.get("/workers")
@operator
def list_workers(key: KeyRecord) -> Response:
    """List the workers that live."""
    query.refuse_unknown(request.args, ())
    return _json({"data": [shown_worker(w) for w in steering.workers(services().broker.redis)]})


@queue.post("/workers/<name>/drain")
@operator
def drain_worker(key: KeyRecord, name: str) -> Response:
    """Let a worker take no more calls; those that it runs go on."""
    acts.drain(name, actor(key))
    return _json({"draining": True})


@queue.delete("/workers/<name>/drain")
@operator
def undrain_worker(key: KeyRecord, name: str) -> Response:
    """Let a drained worker take calls again."""
    acts.drain(name, actor(key), draining=False)
    return _json({"draining": False})


def _paused() -> tuple[str, str]:
    """Kind and id of what the request pauses; raises InvalidRequest."""
    fields: dict[str, str] = checked_fields(PAUSE, request_json())
    if len(fields) != 1:
        raise invalid("wrong.value", "", reason="expected one of 'key', 'model' and 'provider'")
    ((kind, id),) = fields.items()
    return kind, id
