"""The web process' line about a request, unless nobody needs it.

Errors and changes have one, and calls that failed or that no worker ran. The other calls have the
worker's line (workers/call_log.py), which says more.
"""

from __future__ import annotations

import logging
import time
from functools import partial
from typing import Any

from flask import Request, Response, g, request

from gateway.broker.pending_call import PendingCall
from gateway.errors import code_of

log = logging.getLogger(__name__)

READS = frozenset({"GET", "HEAD", "OPTIONS"})


def follow(response: Response) -> None:
    """Log the request once its response has been sent: at DEBUG if nobody needs to look at it.

    Needs the context of the request.
    """
    if not log.isEnabledFor(logging.INFO):
        return
    current: Request = request._get_current_object()  # type: ignore[attr-defined]
    state = vars(g._get_current_object())
    # A stream may still fail.
    if response.is_streamed or log.isEnabledFor(_level(current, response.status_code, state)):
        response.call_on_close(partial(_ended, current, response.status_code, state))


def _level(current: Request, status: int, state: dict[str, Any]) -> int:
    call: PendingCall | None = state.get("call")
    quiet = status < 400 and (current.method in READS if call is None else _has_line(call))
    return logging.DEBUG if quiet else logging.INFO


def _ended(current: Request, status: int, state: dict[str, Any]) -> None:
    level = _level(current, status, state)  # a stream has ended by now
    if not log.isEnabledFor(level):
        return
    call: PendingCall | None = state.get("call")
    rule = current.url_rule
    fields = {
        "request_id": state.get("request_id", ""),
        "call_id": call.call_id if call is not None else "",
        "key_id": state.get("public_id", ""),
        "method": current.method,
        # Never the path itself, which may hold anything.
        "address": rule.rule if rule is not None else "unknown",
        "status": status,
        "error": code_of(state.get("error")),
    }
    if call is not None:
        fields["model"], fields["route"] = call.account.get("model"), call.route
        # After a 202 the call goes on: here, its outcome says only that nobody waits any more.
        if (outcome := call.outcome) is not None and not state.get("accepted"):
            fields["route"] = outcome.route or call.route
            fields["error"] = code_of(outcome.error)
        if call.fault is not None:
            fields["error"] = code_of(call.fault)
        fields["cache"] = call.cache
    if (began := state.get("began")) is not None:
        if call is not None and call.first_sent:
            fields["first_token_ms"] = int((call.first_sent - began) * 1000)
        fields["total_ms"] = int((time.monotonic() - began) * 1000)
    log.log(level, "request" if call is None else "call", extra={"fields": fields})


def _has_line(call: PendingCall) -> bool:
    """Whether the worker has a line about this request, which went well.

    A kept response has no worker, and a request that was sent again only follows another's call.
    """
    if call.outcome is None or call.outcome.error is not None or call.fault is not None:
        return False
    return call.cache != "hit" and "model" in call.account
