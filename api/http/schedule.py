"""When a call may start and until when it must have ended: X-Not-Before, X-Deadline, timeouts."""

from __future__ import annotations

import math
import re
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime

from werkzeug.datastructures import Headers

from gateway.errors import DeadlineExceeded, InvalidRequest

NOT_BEFORE, DEADLINE = "X-Not-Before", "X-Deadline"
MOST_DELAY_SECONDS = 86_400  # a call and what it reserves are kept for no longer
SECONDS = re.compile(r"\d{1,9}(?:\.\d{1,6})?", re.ASCII)
# RFC 3339: with a time zone, since nobody knows which one a client means without.
ZONED = re.compile(
    r"\d{4}-\d\d-\d\d[Tt ]\d\d:\d\d:\d\d(?:\.\d{1,9})?(?:[Zz]|[+-]\d\d:\d\d)", re.ASCII
)


def schedule(
    headers: Headers, longest: float, stream: bool, now: float, waits: bool = True
) -> tuple[float, float]:
    """Return in how many seconds a call may start, and in how many it must have ended.

    `longest` is the service's deadline, which counts from the start of the call. `now` is in
    seconds since 1970. A client that `waits` for the response must let the call start within the
    time that it may take. Raises InvalidRequest, and DeadlineExceeded for a deadline that has
    passed.
    """
    budget = _timeout(headers, longest, stream)
    not_before, deadline = (_seconds(headers, name, now) for name in (NOT_BEFORE, DEADLINE))
    delay = max(not_before or 0.0, 0.0)
    most = budget if waits else MOST_DELAY_SECONDS
    if delay > most:
        reason = f"the call must start within {most:g} s"
        if waits:
            reason += ", because the client waits for the response"
        raise _invalid(NOT_BEFORE, reason)
    if deadline is None:
        return delay, delay + budget
    if deadline <= 0:
        raise DeadlineExceeded("The time in X-Deadline has passed. The call was not sent.")
    if deadline <= delay:
        raise _invalid(DEADLINE, f"it must be later than {NOT_BEFORE}")
    return delay, min(delay + budget, deadline)


def _timeout(headers: Headers, longest: float, stream: bool) -> float:
    """Seconds that the call may take: the service's deadline, or less where the client waits less.

    `x-stainless-read-timeout` is what OpenAI's clients send. It is the longest silence they bear:
    for an unstreamed answer that is the whole wait, for a stream it is not.
    """
    names = ("X-Request-Timeout",) if stream else ("X-Request-Timeout", "x-stainless-read-timeout")
    for name in names:
        if (text := headers.get(name)) is None:
            continue
        try:
            seconds = float(text)
        except ValueError:
            continue
        if math.isfinite(seconds) and seconds > 0:
            return min(seconds, longest)
    return longest


def _seconds(headers: Headers, name: str, now: float) -> float | None:
    """Seconds from now until the time in a header; None without the header."""
    text = headers.get(name)
    if text is None:
        return None
    text = text.strip()
    if SECONDS.fullmatch(text):
        return float(text)
    try:
        if ZONED.fullmatch(text):
            moment = datetime.fromisoformat(text.upper())
        else:
            moment = parsedate_to_datetime(text)
            moment = moment if moment.tzinfo else moment.replace(tzinfo=UTC)
        return moment.timestamp() - now
    except (ValueError, OverflowError):
        reason = "expected seconds from now, or a time such as 2026-11-27T18:00:00Z"
        raise _invalid(name, reason) from None


def _invalid(name: str, reason: str) -> InvalidRequest:
    return InvalidRequest(f"Invalid {name} header: {reason}.", param=name, code="invalid_value")
