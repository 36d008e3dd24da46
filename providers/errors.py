"""Turns the errors of providers into ours: statuses, codes, masking and `Retry-After`."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any

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
from providers.error_reports import GONE, Report, read_report, report_in, within_limits

MAX_MESSAGE = 2000  # characters of a provider's message
PLAIN_TEXT = frozenset({400, 413, 422})  # statuses whose body may be the message itself
TOO_LONG = "context_length_exceeded"

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

QUOTA = frozenset({"insufficient_quota", "billing_not_active", "billing_hard_limit_reached"})

# Patterns of messages -> the code for them, for providers that send none, or one of their own.
# In their words: Anthropic, Bedrock, SGLang, Fireworks and omlx; OpenAI, vLLM, xAI, Mistral and
# OpenRouter; llama.cpp, LM Studio, Ollama and Moonshot; Gemini and Vertex; TensorRT; Z.ai; Together
# and TGI; Alibaba; LM Studio; Cohere; Groq and Cerebras.
_TOO_LONG = (
    r"\b(prompt|input|context|messages?|conversation)\b[^.:]{0,40}\b(too long|longer than)\b"
    r"|\b(maximum|max|model'?s?|total|available|loaded with) (context|prompt|model|sequence)"
    r" ?(length|size|window)"
    r"|(exceed\w*|greater than|overflow\w*|reached) [^.]{0,40}"
    r"\b(context( (length|size|window|limit))?|max_(model|seq)_len|token limit)\b"
    r"|context (length|size|window|limit)[^.]{0,40} (exceed|overflow|reached)"
    r"|token count\b[^.]{0,80}\b(exceeds?|supports? up to)"
    r"|(prompt|input)( tokens?)? (length|tokens?)\b[^.]{0,60}\bexceeds?\b"
    r"|exceeds? (the )?max(imum)? (number of tokens|(input |prompt )?length)"
    r"|`inputs`( tokens|.{0,20} must have less than)"
    r"|range of input length should be"
    r"|\bn_(keep|ctx)\b"
    r"|too many (input |prompt )?tokens(?!.{0,60}\b(wait|per|minute|second))"
    r"|reduce the length of (the|your) (messages|prompt|input)"
)
CODES_BY_MESSAGE = {
    "context_length_exceeded": re.compile(_TOO_LONG, re.IGNORECASE),
    "insufficient_quota": re.compile("^your credit balance is too low", re.IGNORECASE),
}
TOO_LONG_CODES = frozenset(
    "context_length_exceeded context_window_exceeded model_max_prompt_tokens_exceeded"
    " exceed_context_size_error string_above_max_context".split()
)

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
    report = read_report(body, plain_text=status in PLAIN_TEXT)
    kind = STATUSES.get(status) or CLASSES.get(status // 100, UpstreamBadResponse)
    if kind is UpstreamRejected and _has_code(report, GONE):
        kind = ModelNotFound
    if kind is ModelNotFound and not report.message:
        # A 404 without an error object is a wrong base URL, not a model that does not exist.
        return UpstreamBadResponse()
    wait = retry_after(headers)
    return _error(kind, status, report, report.wait if wait is None else wait, secrets)


def rejection_inside(details: Any, secrets: Iterable[str] = ()) -> GatewayError:
    """Return the error for a body or an error object inside a stream, or inside a 200.

    It is not retryable, because the provider had accepted the call.
    """
    report = report_in(details)
    status = report.status or 500
    kind = STATUSES.get(status) or CLASSES.get(status // 100, UpstreamFailed)
    error = _error(kind, status, report, None, secrets)
    error.retryable = error.should_retry = False
    return error


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
            return within_limits(seconds)
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


def _error(
    kind: type[GatewayError],
    status: int,
    report: Report,
    wait: float | None,
    secrets: Iterable[str],
) -> GatewayError:
    code = _code(report)
    if kind is UpstreamFailed and code == TOO_LONG:
        kind, status = UpstreamRejected, 400  # some servers fail over it
    if kind is UpstreamThrottled:
        if _has_code(report, QUOTA):
            return UpstreamQuotaExceeded()
        return UpstreamThrottled(retry_after=wait)
    if kind is UpstreamOverloaded:
        # A provider that names a time has not acted on the call.
        return UpstreamOverloaded(retry_after=wait, should_retry=None if wait is None else True)
    if kind not in (UpstreamRejected, ModelNotFound):
        # The message is for the operator, who owns the key and the address that it is about.
        return kind()
    message = mask(report.message, secrets).strip()[:MAX_MESSAGE]
    if code in QUOTA:  # Anthropic sends it with 400
        return UpstreamQuotaExceeded()
    param = report.param
    if kind is ModelNotFound:  # always with the same status and code
        return ModelNotFound(message or None, param="model" if param == "model" else None)
    return kind(
        message or None,
        param=None if param is None else mask(param, secrets)[:200],
        code=code,
        status=status if status in STATUSES else None,
    )


def _has_code(report: Report, codes: frozenset[str]) -> bool:
    return not codes.isdisjoint(report.codes)


def _code(report: Report) -> str | None:
    if _has_code(report, TOO_LONG_CODES):
        return TOO_LONG
    for usual, pattern in CODES_BY_MESSAGE.items():
        if pattern.search(report.message):
            return usual
    return report.code if report.code and _CODE.fullmatch(report.code) else None
