"""What a request asks for: the parameters that its API has checked, and the headers of a call."""

from __future__ import annotations

import re
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from werkzeug.datastructures import Headers

from api import idempotency
from api.http.schedule import schedule
from gateway.account.api_keys import KeyRecord
from gateway.errors import InvalidRequest
from gateway.queue import keys
from gateway.settings import Settings

LINE_SECONDS = 3_600.0  # a line of a batch may wait and run for at least so long
MAX_WAIT_SECONDS = 60.0  # for an asynchronous call; longer, and a proxy might give up
FLAG = ("true", "false")
RETRY = "X-Retry-On-Worker-Loss"
WAIT = re.compile(r"wait\s*=\s*(\d{1,4})", re.ASCII)


@dataclass(slots=True)
class CheckedRequest:
    """A chat request that keeps OpenAI's rules.

    `parameters` holds what the caller sent, `messages` included, in the caller's order and without
    nulls; not `model`, `models`, `stream` and `stream_options`, which have attributes of their own.
    `models` are the caller's fallbacks; None: it names none. `ignored` names the fields that are
    unknown, as the caller wrote them: clean them before they go into a header or a log. `optional`
    names parameters that are left out where a model refuses them. `own_names` maps a parameter to
    the name that the caller's API has for it. With `background` the caller does not wait: the
    response is 202, and the call goes on. `stored` is what the API needs, besides the result, to
    show the response later; it is kept for RESULT_HOURS.
    """

    model: str
    stream: bool
    include_usage: bool
    parameters: dict[str, Any]
    ignored: list[str]
    models: tuple[str, ...] | None = None
    optional: tuple[str, ...] = ()
    own_names: Mapping[str, str] = field(default_factory=dict)
    include_cost: bool = False
    background: bool = False
    stored: dict[str, Any] | None = None
    kind: str = "chat"  # see CallSpec


@dataclass(slots=True)
class CallOptions:
    """How a call is queued, and how its response is sent. Times are in seconds.

    The call may start after `delay` and must have ended after `budget`. If it `parks`, it waits
    while its key has too many calls in flight; otherwise it is refused. With `retry` it may run
    once more if its worker is lost. The response is 202 after `wait`; None: the client waits for
    the result. An unstreamed response begins with blanks after `heartbeat`; 0: never. A stream that
    starts `at_once` begins when the call is queued. The events of a `resumable` stream have ids.
    The log of the call is kept for `log_seconds` after its end; 0: it has none.
    """

    delay: float
    budget: float
    parks: bool
    retry: bool
    wait: float | None
    heartbeat: float
    at_once: bool
    resumable: bool
    idempotency_key: str
    log_seconds: int


def call_options(
    headers: Headers,
    checked: CheckedRequest,
    key: KeyRecord,
    settings: Settings,
    total: float,
    is_line: bool,
) -> CallOptions:
    """The options of a call that may take `total` seconds, or is the line of a batch.

    Raises InvalidRequest for a header that is malformed, and DeadlineExceeded.
    """
    heartbeat = settings.sync_heartbeat
    if is_line:  # it may wait behind all other calls, and needs the status of its response
        total, heartbeat = max(total, LINE_SECONDS), 0
    counts = checked.kind == "count_tokens"
    # A stored stream begins as soon as the call is queued, and its client may leave.
    at_once = checked.background and checked.stream and checked.stored is not None
    wait = None if counts or at_once else _async_wait(headers, checked.background)
    kept = wait is not None or checked.stored is not None
    client_waits = wait is None and not at_once
    delay, budget = schedule(headers, total, checked.stream or kept, time.time(), client_waits)
    asks_to_resume = _first_of(FLAG, headers, "X-Resumable", False)
    resumable = checked.stream and (asks_to_resume or at_once)
    idempotency_key = "" if counts else idempotency.name_of(headers)
    return CallOptions(
        delay=delay,
        budget=budget,
        parks=_first_of(("wait", "refuse"), headers, "X-Queue", True),
        retry=_first_of(FLAG, headers, RETRY, key.retry_on_worker_loss or is_line),
        wait=wait,
        heartbeat=heartbeat,
        at_once=at_once,
        resumable=resumable,
        idempotency_key=idempotency_key,
        log_seconds=max(
            settings.stream_replay_seconds if resumable else 0,
            settings.result_hours * 3600 if kept else 0,
            keys.IDEMPOTENT_SECONDS if idempotency_key else 0,
        ),
    )


def _async_wait(headers: Headers, background: bool) -> float | None:
    """Return the seconds after which an asynchronous call gets 202; None for any other call.

    RFC 7240: a preference that cannot be read is ignored.
    """
    preferences = [each.strip().lower() for each in headers.get("Prefer", "").split(",")]
    if not background and "respond-async" not in preferences:
        return None
    match = next(filter(None, map(WAIT.fullmatch, preferences)), None)
    return min(float(match[1]), MAX_WAIT_SECONDS) if match else 0.0


def _first_of(values: tuple[str, str], headers: Headers, name: str, default: bool) -> bool:
    """Whether a header has the first of two values; raises InvalidRequest for any other."""
    value = headers.get(name, values[not default]).strip().lower()
    if value not in values:
        raise InvalidRequest(
            f"Invalid {name} header: expected '{values[0]}' or '{values[1]}'.",
            param=name,
            code="invalid_value",
        )
    return value == values[0]
