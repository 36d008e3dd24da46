"""What a provider's refusal means to our caller: statuses, codes, masking and `Retry-After`."""

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

MAX_MESSAGE = 2000  # characters of a provider's own words
MAX_RETRY_AFTER = 3600.0  # seconds

# A timeout at the provider is never sent again: it may have been acted on, and paid for.
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
    524: UpstreamTimeout,  # Cloudflare's word for a silent origin
    529: UpstreamOverloaded,  # Anthropic's
}

CLASSES: dict[int, type[GatewayError]] = {4: UpstreamRejected, 5: UpstreamFailed}

# Errors inside a stream or a 200 have no status: their `code` or `type` stands in for it.
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

# What is said of a model that is gone, with 400 by some: Groq, Together and Mistral among them.
GONE = frozenset(
    "model_not_found model_decommissioned model_not_available model_deprecated"
    " invalid_model".split()
)
KINDS.update(dict.fromkeys(GONE, 404))

QUOTA = frozenset({"insufficient_quota", "billing_not_active", "billing_hard_limit_reached"})

# Where a provider gives no code, or one of its own, but always the same words.
CODES_BY_WORDS = {
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
    """The error that an HTTP answer other than 200 stands for."""
    said = error_in(body)
    kind = STATUSES.get(status) or CLASSES.get(status // 100, UpstreamBadResponse)
    if kind is UpstreamRejected and _says(said, GONE):
        kind = ModelNotFound
    if kind is ModelNotFound and not said:
        # A bare 404 page is a wrong base URL, not a model that does not exist.
        return UpstreamBadResponse()
    return _make(kind, status, said, retry_after(headers), secrets)


def rejection_inside(said: Any, secrets: Iterable[str] = ()) -> GatewayError:
    """The error that an error object inside a stream, or inside a 200, stands for.

    The provider had taken the call: the same route is not asked again.
    """
    if not isinstance(said, Mapping):
        said = {"message": said} if isinstance(said, str) else {}
    status = _status_of(said)
    kind = STATUSES.get(status) or CLASSES.get(status // 100, UpstreamFailed)
    error = _make(kind, status, said, None, secrets)
    error.retryable = error.should_retry = False
    return error


def error_in(body: bytes) -> Mapping[str, Any]:
    """The error object in a provider's body; empty where the body has none."""
    try:
        data = orjson.loads(body)
    except orjson.JSONDecodeError:
        return {}
    if isinstance(data, list) and len(data) == 1:
        data = data[0]  # Google's way
    if not isinstance(data, Mapping):
        return {}
    said = data.get("error") or data.get("detail") or data
    if isinstance(said, str):
        return {"message": said}
    if not isinstance(said, Mapping) or not isinstance(said.get("message"), str):
        return {}
    return said


def mask(text: str, secrets: Iterable[str] = ()) -> str:
    """The text without anything that looks like a credential, and without these secrets."""
    for secret in secrets:
        if len(secret) >= 6:
            text = text.replace(secret, _STARS)
    return _SECRETS.sub(_STARS, text)


def retry_after(headers: Mapping[str, str]) -> float | None:
    """Seconds to wait, from 1 to an hour, where the provider says so in numbers."""
    for name, unit in (("retry-after-ms", 1000.0), ("retry-after", 1.0)):
        try:
            seconds = float(headers.get(name) or "") / unit
        except ValueError:
            continue
        if math.isfinite(seconds) and seconds >= 0:
            return min(max(seconds, 1.0), MAX_RETRY_AFTER)
    return None


def seconds_until(date: str, now: float) -> float | None:
    """How long after `now` (Unix time) an HTTP date is; None for anything else."""
    try:
        when = parsedate_to_datetime(date)
    except (ValueError, OverflowError):  # the latter for a zone that no clock has
        return None
    if when.tzinfo is None:
        when = when.replace(tzinfo=UTC)
    return max((when - datetime.fromtimestamp(now, UTC)).total_seconds(), 0.0)


def _status_of(said: Mapping[str, Any]) -> int:
    for word in (said.get("status"), said.get("code"), said.get("type")):
        if isinstance(word, int) and 400 <= word <= 599:
            return word
        if isinstance(word, str) and word in KINDS:
            return KINDS[word]
    return 500


def _make(
    kind: type[GatewayError],
    status: int,
    said: Mapping[str, Any],
    wait: float | None,
    secrets: Iterable[str],
) -> GatewayError:
    code = said.get("code")
    if kind is UpstreamThrottled:
        if _says(said, QUOTA):
            return UpstreamQuotaExceeded()
        return UpstreamThrottled(retry_after=wait)
    if kind is UpstreamOverloaded:
        return UpstreamOverloaded(retry_after=wait)
    if kind not in (UpstreamRejected, ModelNotFound):
        # Its words are for the operator, who owns the key and the address they speak of.
        return kind()
    message = mask(str(said.get("message") or ""), secrets).strip()[:MAX_MESSAGE]
    if _code(code, message) in QUOTA:  # Anthropic says so with 400
        return UpstreamQuotaExceeded()
    param = said.get("param")
    if kind is ModelNotFound:  # one status and one code, whatever the provider's
        return ModelNotFound(message or None, param="model" if param == "model" else None)
    return kind(
        message or None,
        param=mask(param, secrets)[:200] if isinstance(param, str) else None,
        code=_code(code, message),
        status=status if status in STATUSES else None,
    )


def _says(said: Mapping[str, Any], words: frozenset[str]) -> bool:
    told = (said.get("code"), said.get("type"))
    return any(isinstance(word, str) and word in words for word in told)


def _code(code: Any, message: str) -> str | None:
    for known, words in CODES_BY_WORDS.items():
        if words.search(message):
            return known
    return code if isinstance(code, str) and _CODE.fullmatch(code) else None
