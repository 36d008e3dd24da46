"""Logged calls, as any web process reads them: while they run, and while their logs are kept."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import orjson
from flask import Response, request

from api.rendering import LoggedCall, numbered
from api.reply import Renderer, Reply
from api.services import services
from gateway.account import running
from gateway.broker.pending_call import PendingCall
from gateway.errors import (
    CallCancelled,
    CancelledByOperator,
    GatewayError,
    QueueUnavailable,
    WorkerLost,
)
from gateway.queue import event_logs
from gateway.queue.protocol import Outcome, decode_head

READ_SECONDS = 30.0  # to read a log that is complete

# Code of an error -> status of a call that ended with it; with others, it has failed.
STATUSES: Mapping[str | None, str] = {
    CallCancelled.code: "cancelled",
    CancelledByOperator.code: "cancelled",
    WorkerLost.code: "lost",
}


def find(call_id: str) -> LoggedCall | None:
    """The call, if it has a log that Redis still keeps. Raises RedisError."""
    value = event_logs.logged_request(services().broker.redis, call_id)
    return LoggedCall.decode(value) if value is not None else None


def follow(logged: LoggedCall) -> PendingCall:
    """Wait for the events of a call, from its first one: see Broker.follow."""
    pending = services().broker.follow(logged.rendering.call_id, logged.address, logged.key)
    pending.account = {"request_id": logged.request_id}
    return pending


def outcome(logged: LoggedCall) -> tuple[Outcome, int] | None:
    """The outcome of a call, and when it ended in Unix seconds; None while it has not."""
    return event_logs.logged_outcome(services().broker.redis, logged.rendering.call_id)


def wait(logged: LoggedCall, seconds: float) -> None:
    """Wait for the end of a call."""
    if outcome(logged) is None:
        end = time.monotonic() + seconds
        with _followed(logged) as pending:
            while pending.outcome is None and (left := end - time.monotonic()) > 0:
                pending.wait(left)
                pending.parts()


def read(logged: LoggedCall, ended_at: int) -> Renderer:
    """The renderer of a stream that has ended, which has rendered all of it."""
    renderer, end = logged.rendering.renderer(), time.monotonic() + READ_SECONDS
    begun = False
    with _followed(logged) as pending:
        while (payloads := pending.parts()) or pending.outcome is None:
            if payloads and not begun:
                begun = True
                route, _, payloads[0] = decode_head(payloads[0])
                renderer = logged.rendering.renderer(route)
            for payload in payloads:
                renderer.events(payload)
            if not payloads and not pending.wait(end - time.monotonic()):
                raise QueueUnavailable
        error = pending.outcome.error
    renderer.completed_at = ended_at
    if error is None:
        renderer.end()
    else:
        renderer.error(error)
    return renderer


@contextmanager
def _followed(logged: LoggedCall) -> Iterator[PendingCall]:
    pending = follow(logged)
    try:
        yield pending
    finally:
        services().broker.leave(pending)


def result(logged: LoggedCall, status: str) -> dict[str, Any]:
    """The response of a call, once it has ended, as /generations/{id} shows it.

    `response` is the body of the response; null for a stream, which has an address of its own.
    `error` is the error's object, null if there is none. `status` is what the account says; the log
    knows the end of a call before.
    """
    ended = outcome(logged)
    values: dict[str, Any] = {"status": status, "response": None, "error": None}
    if ended is None:
        return values
    how, ended_at = ended
    if how.error is not None:
        how.error.request_id = logged.request_id
        values["error"] = how.error.envelope()["error"]
    elif not logged.stream:
        values["response"] = orjson.loads(whole(logged, how, ended_at))
    if status in (running.QUEUED, running.RUNNING, running.SETTLING):
        values["status"] = status_of(how.error)
    return values


def whole(logged: LoggedCall, ended: Outcome, ended_at: int) -> bytes:
    """The body of the response of an unstreamed call that ended without an error."""
    renderer = logged.rendering.renderer(ended.route)
    renderer.completed_at = ended_at
    return renderer.whole(ended.answer)


def status_of(error: GatewayError | None) -> str:
    """The status of a call that ended with this error."""
    return "completed" if error is None else STATUSES.get(error.code, "failed")


def stream(logged: LoggedCall, after: int = -1, at_once: bool = False) -> Response:
    """The events of a call after this number, with their ids; those that it still sends follow.

    Raises the GatewayError of a call that failed before its first event: see Reply.streamed.
    """
    pending = follow(logged)
    renderer = numbered(logged.rendering.renderer, logged.rendering.call_id, after)
    return Reply(services().broker, pending, renderer, request.environ).streamed(at_once)
