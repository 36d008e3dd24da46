"""Reads what a provider reports about an error, in any of the forms that providers use."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from providers import lenient_json

MAX_DEPTH = 5  # objects within each other
MAX_REASONS = 10  # of a list of errors
MAX_RETRY_AFTER = 3600.0  # seconds

# Codes for a model that does not exist any more. Groq, Together and Mistral send some with 400.
GONE = frozenset(
    "model_not_found model_decommissioned model_not_available model_deprecated"
    " invalid_model".split()
)

# Codes and types -> the status that they stand for: errors inside a stream or a 200 have none.
# Those of OpenAI and Anthropic; of vLLM and SGLang; of TGI; of Google; of Amazon.
STATUS_WORDS: dict[int, str] = {
    400: "invalid_request_error invalid_prompt context_length_exceeded content_policy_violation"
    " invalid_request BadRequestError BadRequest validation validation_error invalid_parameter"
    " INVALID_ARGUMENT FAILED_PRECONDITION OUT_OF_RANGE ValidationException",
    401: "invalid_api_key authentication_error AuthenticationError unauthorized UNAUTHENTICATED",
    402: "billing_error payment_required",
    403: "permission_error PermissionDeniedError forbidden PERMISSION_DENIED AccessDeniedException",
    404: "not_found_error NotFoundError not_found ResourceNotFoundException",
    413: "request_too_large",
    429: "rate_limit_exceeded rate_limit_error RateLimitError too_many_requests insufficient_quota"
    " requests tokens RESOURCE_EXHAUSTED ThrottlingException Throttling rate_limited",
    500: "server_error api_error InternalServerError internal_error INTERNAL generation",
    503: "service_unavailable_error ServiceUnavailableError server_is_overloaded slow_down"
    " provider_overloaded service_unavailable UNAVAILABLE engine_overloaded"
    " ServiceUnavailableException ModelNotReadyException",
    504: "timeout_error timeout DEADLINE_EXCEEDED gateway_timeout ModelTimeoutException",
    529: "overloaded_error overloaded",
}


def _word(text: str) -> str:
    return re.sub("[^a-z0-9]", "", text.lower())


STATUSES = {_word(word): status for status, words in STATUS_WORDS.items() for word in words.split()}
STATUSES.update(dict.fromkeys(map(_word, GONE), 404))

# Fields with the reason, or with an object or a list that holds it: the first that has one counts.
REASONS = (
    "errors detail message msg error_message error_msg errorMessage Message error_description"
    " status_msg error title description reason"
).split()
CODES = "code error_code errorCode status_code statusCode status type error_type __type".split()
PARAMS = ("param", "field", "property")
# A body without choices that has one of these reports an error.
MARKS = frozenset(
    "errors detail message msg error_message error_msg errorMessage Message error_description"
    " error_code errorCode error_type exception".split()
)

_PARAM = re.compile(
    r"(?:unknown name|(?:unsupported|unknown|unrecognized) (?:parameter|field|argument)"
    r"|property|parameter)s?:? [\"'`]([\w.\[\]]{1,100})[\"'`]",
    re.IGNORECASE,
)
_UNITS = {"ms": 0.001, "m": 60.0, "h": 3600.0, "d": 86400.0, "s": 1.0, "": 1.0}
_DURATION = re.compile(
    r"(\d+(?:\.\d+)?)\s*(ms|milliseconds?|h(?:ours?|rs?)?|d(?:ays?)?|m(?:in(?:ute)?s?)?"
    r"|s(?:ec(?:ond)?s?)?)?(?![a-z])",
    re.IGNORECASE,
)
_WAIT = re.compile(
    r"(?:try again|retry|retry your request|wait)\s(?:again )?(?:in|after|for)?\s*(?:about )?"
    r"((?:\d+(?:\.\d+)?\s*(?:ms|milliseconds?|hours?|hrs?|h|days?|d|minutes?|mins?|m"
    r"|seconds?|secs?|s)?(?:,|\s|and)*)+)",
    re.IGNORECASE,
)
_WAIT_FIELD = re.compile(r"retry_?(after|delay|in)_?(ms|seconds|secs|s)?", re.IGNORECASE)


@dataclass(slots=True)
class Report:
    """What a provider says about an error.

    `codes` are all its codes and types. `status` is the HTTP status that they stand for. `wait` is
    the time until a retry, in seconds.
    """

    message: str = ""
    param: str | None = None
    code: str | None = None
    codes: list[str] = field(default_factory=list)
    status: int | None = None
    wait: float | None = None


def reports_error(body: Mapping[str, Any]) -> bool:
    """Return whether the body of a 200, or an object in a stream, reports an error."""
    if body.get("error"):
        return True
    base = body.get("base_resp")  # MiniMax's
    if isinstance(base, dict) and base.get("status_code"):
        return True
    if body.get("choices"):
        return False
    if body.get("object") == "error" or body.get("type") == "error" or body.get("success") is False:
        return True
    return any(name in MARKS and value for name, value in body.items())


def read_report(body: bytes, plain_text: bool = False) -> Report:
    """Return what the body of an HTTP response reports; with `plain_text`, it may be no JSON."""
    try:
        return report_in(lenient_json.loads(body))
    except ValueError:
        pass
    text = lenient_json.text(body).strip()
    if not plain_text or text.startswith(("<", "{", "[")) or "\ufffd" in text:
        return Report()
    return report_in({"message": text})


def report_in(value: Any) -> Report:
    """Return what an error object, or the body around it, reports."""
    report = Report()
    reasons = _reasons(value, report, 0)
    report.message = "; ".join(dict.fromkeys(reasons))
    if report.param is None and (match := _PARAM.search(report.message)):
        report.param = match[1]
    if report.wait is None and (match := _WAIT.search(report.message)):
        report.wait = _seconds(match[1])
    return report


def within_limits(seconds: float) -> float:
    """Return the seconds to wait, from 1 to 3600."""
    return min(max(seconds, 1.0), MAX_RETRY_AFTER)


def _reasons(value: Any, report: Report, depth: int) -> list[str]:
    """Return the reasons in a value, and note codes and the rest; the innermost ones count."""
    if isinstance(value, str):
        return _reasons_of_text(value.strip(), report, depth)
    if depth > MAX_DEPTH:
        return []
    if isinstance(value, list):
        return [text for each in value[:MAX_REASONS] for text in _reasons(each, report, depth + 1)]
    if not isinstance(value, dict):
        return []
    reasons = next(filter(None, _candidates(value, report, depth)), [])
    if path := _path(value.get("loc") or value.get("path")):
        reasons = [f"{path}: {reason}" for reason in reasons]
        report.param = report.param or path.removeprefix("body.")
    if reasons and (more := _reasons_of_provider(value, report, depth)):
        reasons = [f"{reasons[0].rstrip('.')}: {'; '.join(more)}"]
    _note(value, report)
    return reasons


def _candidates(value: Mapping[str, Any], report: Report, depth: int) -> Iterator[list[str]]:
    """Yield the reasons of one field after the other; an error that is only a word comes last."""
    if isinstance(value.get("error"), (dict, list)):
        yield _reasons(value["error"], report, depth + 1)
    for name in REASONS:
        if value.get(name):
            yield _reasons(value[name], report, depth + 1)


def _reasons_of_text(text: str, report: Report, depth: int) -> list[str]:
    if text.startswith(("{", "[")) and depth <= MAX_DEPTH:
        try:
            inner = _reasons(lenient_json.loads(text), report, depth + 1)
        except ValueError:
            inner = []
        if inner:
            return inner
    return [text] if text else []


def _reasons_of_provider(value: Mapping[str, Any], report: Report, depth: int) -> list[str]:
    """Return the reasons of the provider behind OpenRouter, whose own message is a general one."""
    metadata = value.get("metadata")
    raw = metadata.get("raw") if isinstance(metadata, dict) else None
    return _reasons(raw, report, depth + 1) if raw else []


def _note(value: Mapping[str, Any], report: Report) -> None:
    """Note codes, parameter and time of an object, unless an object in it has named them."""
    for name in CODES:
        code = value.get(name)
        if isinstance(code, str) and code.isdecimal() and len(code) == 3:
            report.status = report.status or _http_status(int(code))
        elif isinstance(code, str) and code:
            report.codes.append(code)
            report.status = report.status or STATUSES.get(_word(code))
            if "code" in name.lower() and "status" not in name.lower():
                report.code = report.code or code
        elif type(code) is int:
            report.status = report.status or _http_status(code)
    error = value.get("error")
    if isinstance(error, str) and " " not in error:
        report.status = report.status or STATUSES.get(_word(error))
    for name in PARAMS:
        if report.param is None and isinstance(value.get(name), str) and value[name]:
            report.param = value[name]
    details = value.get("details")
    for each in (value, *(details if isinstance(details, list) else ())):
        if isinstance(each, dict):
            _note_details(each, report)


def _note_details(value: Mapping[str, Any], report: Report) -> None:
    """Note the time until a retry, and the field that Google says is wrong."""
    for name, wait in value.items():
        if report.wait is None and (match := _WAIT_FIELD.fullmatch(name)):
            unit = 0.001 if match[2] and match[2].lower() == "ms" else 1.0
            report.wait = _seconds(wait, unit)
    violations = value.get("fieldViolations")
    if report.param is None and isinstance(violations, list) and violations:
        wrong = violations[0].get("field") if isinstance(violations[0], dict) else None
        report.param = wrong if isinstance(wrong, str) and wrong else None


def _http_status(code: int) -> int | None:
    return code if 400 <= code <= 599 else None


def _path(steps: Any) -> str:
    """Return a path that FastAPI and others send as a list: `body.messages[0].role`."""
    if not isinstance(steps, list):
        return ""
    path = ""
    for step in steps:
        path += f"[{step}]" if isinstance(step, int) else f".{step}"
    return path.removeprefix(".")


def _seconds(value: Any, unit: float = 1.0) -> float | None:
    """Return a duration, such as 2, "34.5s" or "1m30s", in seconds within the limits."""
    if type(value) in (int, float):
        return within_limits(value * unit) if 0 <= value < 1e9 else None
    pieces = _DURATION.findall(value) if isinstance(value, str) else []
    if not pieces:
        return None
    if len(pieces) == 1 and not pieces[0][1]:
        return within_limits(float(pieces[0][0]) * unit)
    return within_limits(sum(float(number) * _unit(name.lower()) for number, name in pieces))


def _unit(name: str) -> float:
    return _UNITS["ms"] if name.startswith(("ms", "milli")) else _UNITS[name[:1]]
