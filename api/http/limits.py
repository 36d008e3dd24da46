"""Headers of every response to a call: its id, and what the limits of its key leave.

Sources, read in November 2026: community.openai.com/t/1268905 for OpenAI's names and durations; for
Anthropic's, a response that the tests of tidyllm have recorded (rdrr.io/cran/tidyllm).
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

from gateway.account.refusals import duration, timestamp
from gateway.broker.pending_call import PendingCall

LIMITED = ("requests", "tokens")


def headers(call: PendingCall) -> dict[str, str]:
    """The id of a call, its cap, whether a kept response answers it, and OpenAI's rate limits.

    What the queue has not admitted yet is left out.
    """
    values = {"X-Generation-Id": call.call_id}
    for name in LIMITED:
        if row := call.admission.get(name):
            limit, remaining, reset_ms = row
            values[f"x-ratelimit-limit-{name}"] = str(limit)
            values[f"x-ratelimit-remaining-{name}"] = str(remaining)
            values[f"x-ratelimit-reset-{name}"] = duration(reset_ms)
    if call.cache:
        values["X-Cache"] = call.cache
    if cap := call.admission.get("cap"):
        values["X-Max-Tokens-Capped"] = str(cap)
    return values


def anthropic_headers(admission: Mapping[str, Any], now: datetime | None = None) -> dict[str, str]:
    """The same limits as Anthropic's API names them."""
    values = {}
    for name in LIMITED:
        if row := admission.get(name):
            limit, remaining, reset_ms = row
            moment = (now or datetime.now(UTC)) + timedelta(milliseconds=reset_ms)
            values[f"anthropic-ratelimit-{name}-limit"] = str(limit)
            values[f"anthropic-ratelimit-{name}-remaining"] = str(remaining)
            values[f"anthropic-ratelimit-{name}-reset"] = timestamp(moment)
    return values
