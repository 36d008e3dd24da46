"""gateway/account/refusals.py: what a caller reads about the limit that refused a call."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest

from gateway.account.refusals import duration, limited, timestamp, used_up
from gateway.errors import QuotaExceeded, RateLimited, TokensLimited

NOW = datetime(2026, 11, 30, 23, 59, 58, tzinfo=UTC)


@pytest.mark.parametrize(
    ("milliseconds", "text"),
    [
        (0, "0s"), (1, "1ms"), (12, "12ms"), (999, "999ms"), (1000, "1s"), (1500, "1.5s"),
        (1020, "1.02s"), (10_000, "10s"), (60_000, "1m0s"), (360_000, "6m0s"), (61_250, "1m1.25s"),
        (3_600_000, "1h0m0s"), (90_061_001, "25h1m1.001s"),
    ],
)  # fmt: skip
def test_durations_are_go_s(milliseconds: int, text: str) -> None:
    assert duration(milliseconds) == text


def test_the_end_of_a_window_is_whole_though_the_clocks_differ_by_milliseconds() -> None:
    for microsecond in (0, 1, 400_000):
        assert timestamp(NOW.replace(microsecond=microsecond)) == "2026-11-30T23:59:58Z"
    assert timestamp(NOW.replace(microsecond=999_000)) == "2026-11-30T23:59:59Z"


@pytest.mark.parametrize(
    ("name", "kind", "words"),
    [
        ("requests_per_minute", RateLimited, "requests per minute"),
        ("tokens_per_minute", TokensLimited, "tokens per minute"),
        ("max_in_flight", RateLimited, "calls in flight"),
        ("max_waiting", RateLimited, "waiting calls"),
    ],
)
def test_a_rate_limit_names_itself_its_scope_and_its_reset(
    name: str, kind: type[RateLimited], words: str
) -> None:
    detail = {"name": name, "scope": "owner", "reset_ms": 1_200, "limit": 60}
    error = limited(detail, NOW)
    assert type(error) is kind
    assert error.message == (
        f"Rate limit reached for the owner of this API key on {words}: limit 60. "
        "Please try again in 1.2s."
    )
    assert error.headers == {
        "x-limit-name": name,
        "x-limit-scope": "owner",
        "x-limit-reset": "2026-11-30T23:59:59Z",
        "retry-after-ms": "1200",
    }
    assert (error.retry_after, error.should_retry) == (1.2, None)


def test_a_limit_without_a_known_reset_says_when_to_try_again() -> None:
    error = limited({"name": "max_waiting", "scope": "key", "reset_ms": 0}, NOW)
    assert "x-limit-reset" not in error.headers
    assert error.headers["retry-after-ms"] == "5000"
    assert error.message.endswith("waiting calls. Please try again in 5s.")


def test_a_call_that_can_never_fit_is_not_worth_a_retry() -> None:
    detail = {"name": "tokens_per_minute", "scope": "key", "limit": 100, "never": True}
    error = limited(detail, NOW)
    assert error.message == "Request too large for this API key on tokens per minute: limit 100."
    assert (error.retry_after, error.should_retry) == (None, False)


def test_what_is_used_up_is_said_as_of_calls_that_are_admitted() -> None:
    detail = {"name": "requests_per_minute", "scope": "key", "reset_ms": 1_200, "limit": 60}
    assert used_up(detail) == {"requests": [60, 0, 1_200]}
    assert used_up({**detail, "name": "tokens_per_minute"}) == {"tokens": [60, 0, 1_200]}
    assert used_up({**detail, "name": "limit"}) == used_up({**detail, "limit": None}) == {}


BUDGETS: list[tuple[dict[str, Any], str]] = [
    (
        {"unit": "usd", "window": "monthly", "limit": 12_500_000_000, "reset_ms": 2_000},
        "too little is left of the monthly budget of this API key (12.5 USD) for this call. "
        "It resets at 2026-12-01T00:00:00Z.",
    ),
    (
        {"unit": "tokens", "window": "daily", "limit": 1_000_000, "reset_ms": 2_000},
        "too little is left of the daily budget of this API key (1000000 tokens) for this call. "
        "It resets at 2026-12-01T00:00:00Z.",
    ),
    (
        {"unit": "usd", "window": None, "reset_ms": 0},
        "too little is left of the budget of this API key for this call.",
    ),
]


@pytest.mark.parametrize(("fields", "text"), BUDGETS)
def test_a_budget_is_openai_s_quota_and_never_worth_a_retry(
    fields: dict[str, Any], text: str
) -> None:
    error = limited({"name": "limit", "scope": "key", **fields}, NOW)
    assert type(error) is QuotaExceeded
    assert error.message == f"You exceeded your current quota: {text}"
    assert (error.type, error.code) == ("insufficient_quota", "insufficient_quota")
    assert (error.retry_after, error.should_retry) == (None, False)
    assert error.headers["x-limit-name"] == "limit"
    assert ("x-limit-reset" in error.headers) is bool(fields["reset_ms"])
