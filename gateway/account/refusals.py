"""The errors of calls that the submit script refuses for a limit, in the words of callers."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

from gateway.account.key_fields import NANO
from gateway.errors import GatewayError, Overloaded, QuotaExceeded, RateLimited, TokensLimited

LOGS_MS = 60_000  # until the next try where logs are full: others may make room
UNKNOWN_MS = 5_000  # until the next try, where nobody knows when a running call ends

LOGS_FULL = (
    "The service has no memory left for background, asynchronous, resumable and idempotent calls, "
    "whose responses it stores. Other calls go on."
)

SCOPES = {"key": "this API key", "owner": "the owner of this API key"}
LIMITS: dict[str, tuple[type[RateLimited], str]] = {
    "requests_per_minute": (RateLimited, "requests per minute"),
    "tokens_per_minute": (TokensLimited, "tokens per minute"),
    "max_in_flight": (RateLimited, "calls in flight"),
    "max_waiting": (RateLimited, "waiting calls"),
}
BUDGET = "limit"


def limited(detail: Mapping[str, Any], now: datetime | None = None) -> RateLimited:
    """Return the error for a limit that refused a call, as the submit script describes it.

    `detail` has `name`, `scope` ("key" or "owner"), `reset_ms` (milliseconds until it resets, 0 if
    nobody knows or it never does), and may have the `limit` itself; that of a budget is in `unit`s
    for each `window`. A limit that this call alone exceeds is `never` met.
    """
    name, reset_ms = str(detail.get("name", "")), int(detail.get("reset_ms") or 0)
    scope = SCOPES.get(str(detail.get("scope")), SCOPES["key"])
    headers = {"x-limit-name": name, "x-limit-scope": str(detail.get("scope", "key"))}
    resets_at = ""
    if reset_ms:
        moment = (now or datetime.now(UTC)) + timedelta(milliseconds=reset_ms)
        resets_at = headers["x-limit-reset"] = timestamp(moment)
    if name == BUDGET:
        return QuotaExceeded(_budget(detail, scope, resets_at), headers=headers)
    kind, words = LIMITS.get(name, (RateLimited, name))
    amount = f": limit {detail['limit']}" if detail.get("limit") else ""
    message = f"Rate limit reached for {scope} on {words}{amount}."
    if detail.get("never"):
        message = f"Request too large for {scope} on {words}{amount}."
        return kind(message, headers=headers, should_retry=False)
    wait = reset_ms or UNKNOWN_MS
    # Codex CLI reads the time from the message; OpenAI's clients read the header.
    message += f" Please try again in {duration(wait)}."
    headers["retry-after-ms"] = str(wait)
    return kind(message, headers=headers, retry_after=wait / 1000)


def logs_full(most_bytes: int, reset_ms: int, now: datetime | None = None) -> GatewayError:
    """Return the error for a call whose log finds no room among those of its API key.

    The first of these expires in `reset_ms` milliseconds; room may come before, from others. If
    `most_bytes` is negative, no key has room.
    """
    if most_bytes < 0:
        return Overloaded(LOGS_FULL, retry_after=LOGS_MS / 1000)
    moment = (now or datetime.now(UTC)) + timedelta(milliseconds=reset_ms)
    wait = min(reset_ms, LOGS_MS) or UNKNOWN_MS
    headers = {
        "x-limit-name": "log_bytes",
        "x-limit-scope": "key",
        "x-limit-reset": timestamp(moment),
        "retry-after-ms": str(wait),
    }
    return RateLimited(
        f"Rate limit reached for {SCOPES['key']} on stored responses and events of background, "
        f"resumable and idempotent calls: limit {most_bytes} bytes. The first of them expires at "
        f"{timestamp(moment)}. Delete stored responses, or try again in {duration(wait)}.",
        headers=headers,
        retry_after=wait / 1000,
    )


def used_up(detail: Mapping[str, Any]) -> dict[str, Any]:
    """Return what the limit that refused a call leaves, in the form of what is admitted of others.

    Empty for limits that are not per minute.
    """
    name = {"requests_per_minute": "requests", "tokens_per_minute": "tokens"}.get(detail["name"])
    if name is None or not detail.get("limit"):
        return {}
    return {name: [detail["limit"], 0, detail.get("reset_ms") or 0]}


def duration(milliseconds: int) -> str:
    """Return a time as Go writes durations, which is how OpenAI does: "12ms", "1.5s", "6m0s"."""
    if 0 < milliseconds < 1000:
        return f"{milliseconds}ms"
    minutes, rest = divmod(milliseconds, 60_000)
    hours, minutes = divmod(minutes, 60)
    text = f"{hours}h" if hours else ""
    if hours or minutes:
        text += f"{minutes}m"
    return f"{text}{rest / 1000:.3f}".rstrip("0").rstrip(".") + "s"


def timestamp(moment: datetime) -> str:
    """Return a UTC time as RFC 3339 has it, rounded to a whole second."""
    return (moment + timedelta(seconds=0.5)).strftime("%Y-%m-%dT%H:%M:%SZ")


def _budget(detail: Mapping[str, Any], scope: str, resets_at: str) -> str:
    window = f"{detail['window']} budget" if detail.get("window") else "budget"
    amount = ""
    if limit := detail.get("limit"):
        tokens = detail.get("unit") == "tokens"
        amount = f" ({limit} tokens)" if tokens else f" ({int(limit) / NANO:g} USD)"
    ends = f" It resets at {resets_at}." if resets_at else ""
    return (
        f"You exceeded your current quota: too little is left of the {window} of {scope}{amount} "
        f"for this call.{ends}"
    )
