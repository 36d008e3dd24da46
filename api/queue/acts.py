"""How operators steer the queue: what the HTTP API, the commands and the console share."""

from __future__ import annotations

import re
import time
from typing import Any

from api.services import services
from gateway.account.api_keys import public_id
from gateway.account.record_store import Actor, audit_entry
from gateway.errors import InvalidRequest, ModelNotFound, NotFound
from gateway.queue import steering

CALL_ID = re.compile(r"[0-9a-f]{32}")
# What lua/move.lua replies -> why the call cannot be moved.
NOT_MOVED = {
    "scheduled": "The call is scheduled: it waits for its start.",
    "paused": "The call is paused: it waits until the pause ends.",
    "started": "The call has started.",
}


def move(call_id: str, by: Actor) -> None:
    """Move a waiting call to the front.

    Raises NotFound, and InvalidRequest with 409 for a call that does not stand in line.
    """
    _check(call_id)
    result = steering.move(_redis(), call_id, _entry("queue.moved", call_id, by))
    if result == "":
        raise _no_call()
    if result != "moved":
        reason = NOT_MOVED.get(result, "The call has ended.")
        raise InvalidRequest(reason, status=409, code="call_not_in_line")


def cancel(call_id: str, by: Actor) -> None:
    """Cancel a call that waits or runs; raises NotFound."""
    _check(call_id)
    if not steering.cancel(_redis(), call_id, _entry("queue.cancelled", call_id, by)):
        raise _no_call()


def pause(kind: str, id: str, by: Actor) -> steering.Pause:
    """Pause a key, a model or a provider, and return the pause; one that is there stays.

    Raises NotFound for what does not exist.
    """
    parts = services()
    name = pause_name(kind, id)
    if kind == "key" and parts.keys.get(name.partition(":")[2]) is None:
        raise NotFound("There is no such API key.", code="key_not_found")
    if kind == "model":
        parts.catalogue.resolve(id)
    if kind == "provider" and id not in parts.catalogue.providers:
        raise NotFound("The catalogue has no such provider.", code="provider_not_found")
    now = int(time.time())
    steering.pause(_redis(), name, now, by.id, _entry("queue.paused", name, by))
    matching = (each for each in steering.pauses(_redis()) if each.name == name)
    return next(matching, steering.Pause(name, now, by.id))


def resume(kind: str, id: str, by: Actor) -> bool:
    """End a pause; return whether there was one."""
    name = pause_name(kind, id)
    return steering.resume(_redis(), name, _entry("queue.resumed", name, by))


def drain(name: str, by: Actor, draining: bool = True) -> None:
    """Let a worker take no more calls, or take calls again; raises NotFound."""
    entry = _entry("worker.drained" if draining else "worker.undrained", name, by)
    if not steering.drain(_redis(), name, by.id, entry, draining):
        raise NotFound("There is no such worker.", code="worker_not_found")


def pause_name(kind: str, id: str) -> str:
    """The name of a pause: a model may be named as in a request, a key by the whole key."""
    if kind == "key":
        id = public_id(id)
    elif kind == "model":
        try:
            id = services().catalogue.resolve(id).model
        except ModelNotFound:  # perhaps the catalogue had it when it was paused
            pass
    return f"{kind}:{id}"


def _entry(action: str, target: str, by: Actor) -> dict[str, Any]:
    return audit_entry(action, target, by, int(time.time()))


def _check(call_id: str) -> None:
    """Raises NotFound for what is no call's id: another application on this Redis may have jobs."""
    if not CALL_ID.fullmatch(call_id):
        raise _no_call()


def _redis() -> Any:
    return services().broker.redis


def _no_call() -> NotFound:
    return NotFound("No call with this id waits or runs.", code="call_not_found")
