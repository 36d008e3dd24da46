"""Turns the errors of providers into ours: statuses, codes, masking and `Retry-After`."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any

import orjson

from gateway.errors import (
    GatewayError,
    ModelNotFound,
    UpstreamAuth,
    UpstreamBadResponse,
    UpstreamFailed,
    UpstreamOverloaded,
    UpstreamQuotaExceeded,
    UpstreamRejected,
    UpstreamThrottled,
    UpstreamTimeout,
)

MAX_MESSAGE = 2000  # characters of a provider's message
MAX_RETRY_AFTER = 3600.0  # seconds

# A request that timed out at the provider is not sent again: it may have been acted on and billed.
STATUSES: dict[int, type[GatewayError]] = {
    400: UpstreamRejected,
    401: UpstreamAuth,
    402: UpstreamAuth,
    403: UpstreamAuth,
    404: ModelNotFound,
    405: UpstreamBadResponse,  # a wrong base URL
    407: UpstreamAuth,  # the operator's proxy wants a password
    408: UpstreamTimeout,
    409: UpstreamRejected,
    410: ModelNotFound,
    413: UpstreamRejected,
    415: UpstreamRejected,
    422: UpstreamRejected,
    429: UpstreamThrottled,
    503: UpstreamOverloaded,
    504: UpstreamTimeout,
    524: UpstreamTimeout,  # Cloudflare's, for an origin that does not answer
    529: UpstreamOverloaded,  # Anthropic's
}

CLASSES: dict[int, type[GatewayError]] = {4: UpstreamRejected, 5: UpstreamFailed}

# Errors inside a stream or a 200 have no status: their `code` or `type` stands for one.
KINDS: dict[str, int] = {
    "invalid_request_error": 400,
    "invalid_prompt": 400,
    "context_length_exceeded": 400,
    "content_policy_violation": 400,
    "invalid_api_key": 401,
    "authentication_error": 401,
    "billing_error": 402,
    "permission_error": 403,
    "not_found_error": 404,
    "request_too_large": 413,
    "rate_limit_exceeded": 429,
    "rate_limit_error": 429,
    "insufficient_quota": 429,
    "requests": 429,
    "tokens": 429,
    "server_error": 500,
    "api_error": 500,
    "overloaded_error": 529,
    "service_unavailable_error": 503,
    "server_is_overloaded": 503,
    "slow_down": 503,
    "provider_overloaded": 503,
    "timeout_error": 504,
    "timeout": 504,
}

# Codes for a model that does not exist any more. Groq, Together and Mistral send some with 400.
GONE = frozenset(
    "model_not_found model_decommissioned model_not_available model_deprecated"
    " invalid_model".split()
)
KINDS.update(dict.fromkeys(GONE, 404))

QUOTA = frozenset({"insufficient_quota", "billing_not_active", "billing_hard_limit_reached"})

# Patterns of messages -> the code for them, for providers that send none, or one of their own.
CODES_BY_MESSAGE = {
    # In this order: Anthropic; OpenAI, vLLM, DeepSeek, OpenRouter, Mistral; xAI; llama.cpp and
    # OpenAI's Responses; Gemini; Bedrock and Cohere
    "context_length_exceeded": re.compile(
        r"prompt is too long|input length and `max_tokens` exceed"
        r"|maximum context length"
        r"|maximum prompt length"
        r"|exceeds? the (available )?context (size|window)"
        r"|exceeds the maximum number of tokens"
        r"|input is too long|too many tokens",
        re.IGNORECASE,
    ),
    "insufficient_quota": re.compile("^your credit balance is too low", re.IGNORECASE),
}

_SECRETS = re.compile(
    r"\b(?:sk|pk|rk|gsk|xai)-[\w*.-]{4,}"
    r"|\b(?:hf|mk_inference|org|proj)[-_][\w*-]{6,}"
    r"|\b(?:x-api-key|authorization)\b[\"']?\s*[:=]\s*[\"']?(?:(?:bearer|basic)\s+)?[^\s\"',;]+"
    r"|\bbearer\s+[^\s\"',;]+",
    re.IGNORECASE,
)
_CODE = re.compile(r"[\w.-]{1,64}")
_STARS = "***"


def rejection(
    status: int, body: bytes, headers: Mapping[str, str], secrets: Iterable[str] = ()
) -> GatewayError:
    """Return the error for an HTTP response with a status other than 200.

    Nothing in its message looks like a credential, or is among `secrets`.
    """
    details = error_in(body)
    kind = STATUSES.get(status) or CLASSES.get(status // 100, UpstreamBadResponse)
    if kind is UpstreamRejected and _has_code(details, GONE):
        kind = ModelNotFound
    if kind is ModelNotFound and not details:
        # A 404 without an error object is a wrong base URL, not a model that does not exist.
        return UpstreamBadResponse()
    return _error(kind, status, details, retry_after(headers), secrets)


def rejection_inside(details: Any, secrets: Iterable[str] = ()) -> GatewayError:
    """Return the error for an error object inside a stream, or inside a 200.

    It is not retryable, because the provider had accepted the call.
    """
    if not isinstance(details, Mapping):
        details = {"message": details} if isinstance(details, str) else {}
    status = _status_of(details)
    kind = STATUSES.get(status) or CLASSES.get(status // 100, UpstreamFailed)
    error = _error(kind, status, details, None, secrets)
    error.retryable = error.should_retry = False
    return error


def error_in(body: bytes) -> Mapping[str, Any]:
    """Return the error object in a provider's body, or an empty one."""
    try:
        data = orjson.loads(body)
    except orjson.JSONDecodeError:
        return {}
    if isinstance(data, list) and len(data) == 1:
        data = data[0]  # as Google sends it
    if not isinstance(data, Mapping):
        return {}
    details = data.get("error") or data.get("detail") or data
    if isinstance(details, str):
        return {"message": details}
    if not isinstance(details, Mapping) or not isinstance(details.get("message"), str):
        return {}
    return details


def mask(text: str, secrets: Iterable[str] = ()) -> str:
    """Return the text with `secrets`, and all that looks like a credential, replaced by stars."""
    for secret in secrets:
        if len(secret) >= 6:
            text = text.replace(secret, _STARS)
    return _SECRETS.sub(_STARS, text)


def retry_after(headers: Mapping[str, str]) -> float | None:
    """Return the seconds to wait, from 1 to 3600; None if the headers hold no number."""
    for name, unit in (("retry-after-ms", 1000.0), ("retry-after", 1.0)):
        try:
            seconds = float(headers.get(name) or "") / unit
        except ValueError:
            continue
        if math.isfinite(seconds) and seconds >= 0:
            return min(max(seconds, 1.0), MAX_RETRY_AFTER)
    return None


def seconds_until(date: str, now: float) -> float | None:
    """Return the seconds from `now` (Unix time) to an HTTP date; None for any other text."""
    try:
        when = parsedate_to_datetime(date)
    except (ValueError, OverflowError):  # OverflowError: for an impossible time zone
        return None
    if when.tzinfo is None:
        when = when.replace(tzinfo=UTC)
    return max((when - datetime.fromtimestamp(now, UTC)).total_seconds(), 0.0)


def _status_of(details: Mapping[str, Any]) -> int:
    for value in (details.get("status"), details.get("code"), details.get("type")):
        if isinstance(value, int) and 400 <= value <= 599:
            return value
        if isinstance(value, str) and value in KINDS:
            return KINDS[value]
    return 500


def _error(
    kind: type[GatewayError],
    status: int,
    details: Mapping[str, Any],
    wait: float | None,
    secrets: Iterable[str],
) -> GatewayError:
    code = details.get("code")
    if kind is UpstreamThrottled:
        if _has_code(details, QUOTA):
            return UpstreamQuotaExceeded()
        return UpstreamThrottled(retry_after=wait)
    if kind is UpstreamOverloaded:
        return UpstreamOverloaded(retry_after=wait)
    if kind not in (UpstreamRejected, ModelNotFound):
        # The message is for the operator, who owns the key and the address that it is about.
        return kind()
    message = mask(str(details.get("message") or ""), secrets).strip()[:MAX_MESSAGE]
    if _code(code, message) in QUOTA:  # Anthropic sends it with 400
        return UpstreamQuotaExceeded()
    param = details.get("param")
    if kind is ModelNotFound:  # always with the same status and code
        return ModelNotFound(message or None, param="model" if param == "model" else None)
    return kind(
        message or None,
        param=mask(param, secrets)[:200] if isinstance(param, str) else None,
        code=_code(code, message),
        status=status if status in STATUSES else None,
    )


def _has_code(details: Mapping[str, Any], codes: frozenset[str]) -> bool:
    values = (details.get("code"), details.get("type"))
    return any(isinstance(value, str) and value in codes for value in values)


def _code(code: Any, message: str) -> str | None:
    for usual, pattern in CODES_BY_MESSAGE.items():
        if pattern.search(message):
            return usual
    return code if isinstance(code, str) and _CODE.fullmatch(code) else None
