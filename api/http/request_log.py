"""The web process' line about a request: one for each call, error and change."""

from __future__ import annotations

import logging
import time
from functools import partial
from typing import Any

from flask import Response, g, request

from gateway.broker.pending_call import PendingCall
from gateway.errors import code_of

log = logging.getLogger(__name__)

READS = frozenset({"GET", "HEAD", "OPTIONS"})


def follow(response: Response) -> None:
    """Log the request once its response has been sent: a read that went well at DEBUG only.

    Needs the context of the request.
    """
    state, current = vars(g._get_current_object()), request._get_current_object()  # type: ignore[attr-defined]
    call: PendingCall | None = state.get("call")
    quiet = call is None and response.status_code < 400 and current.method in READS
    level = logging.DEBUG if quiet else logging.INFO
    if not log.isEnabledFor(level):
        return
    rule = current.url_rule
    fields = {
        "request_id": state.get("request_id", ""),
        "call_id": call.call_id if call is not None else "",
        "key_id": state.get("public_id", ""),
        "method": current.method,
        # Never the path itself, which may hold anything.
        "address": rule.rule if rule is not None else "unknown",
        "status": response.status_code,
        "error": code_of(state.get("error")),
    }
    response.call_on_close(partial(_write, level, fields, state.get("began"), call))


def _write(
    level: int, fields: dict[str, Any], began: float | None, call: PendingCall | None
) -> None:
    if call is not None:
        fields["model"], fields["route"] = call.account.get("model"), call.route
        if (outcome := call.outcome) is not None:
            fields["route"] = outcome.route or call.route
            fields["error"] = code_of(outcome.error)
        fields["cache"] = call.cache
    if began is not None:
        if call is not None and call.first_sent:
            fields["first_token_ms"] = int((call.first_sent - began) * 1000)
        fields["total_ms"] = int((time.monotonic() - began) * 1000)
    log.log(level, "request" if call is None else "call", extra={"fields": fields})
