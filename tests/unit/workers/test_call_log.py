"""workers/call_log.py: what the worker's lines about calls say."""

from __future__ import annotations

import logging

import pytest

from gateway.account.records import Record
from gateway.catalogue.target import Target
from gateway.errors import UpstreamAuth, UpstreamFailed, UpstreamRejected
from gateway.queue.protocol import CallSpec
from workers.call_log import log_call, log_failure, log_skip

TARGET = Target("openai/gpt", "openai", "gpt-2")
SPEC = CallSpec("c1", "web-1", False, (TARGET,), key="k1", account={"request_id": "r1"})
IDS = {"request_id": "r1", "call_id": "c1", "key_id": "k1", "route": "openai/gpt-2"}


def test_the_line_of_a_call_has_its_ids_times_tokens_and_attempts(
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.INFO)
    skipped, made = {"code": "circuit_open"}, {"code": ""}
    log_call(
        Record(
            id="c1",
            key_id="k1",
            created_ms=0,
            settled_ms=0,
            request_id="r1",
            model="openai/gpt",
            model_requested="gpt",
            provider_name="openai",
            upstream_model="gpt-2",
            latency_ms=2210,
            queued_ms=3,
            time_to_first_token_ms=310,
            usage={"input": 2, "cache_read": 40, "output": 8},
            attempts=(skipped, made, made),
        )
    )
    (record,) = caplog.records
    assert (record.levelno, record.getMessage()) == (logging.INFO, "call")
    assert record.__dict__["fields"] == {
        **IDS,
        "model": "gpt",
        "status": "completed",
        "error": "",
        "queued_ms": 3,
        "first_token_ms": 310,
        "total_ms": 2210,
        "input_tokens": 42,
        "output_tokens": 8,
        "attempts": 2,
    }


def test_a_failed_attempt_names_host_status_and_cause(caplog: pytest.LogCaptureFixture) -> None:
    error = UpstreamFailed("CANARY")
    error.host, error.upstream_status, error.cause = "api.example", 500, "TimeoutError"
    log_failure(SPEC, TARGET, error, "other.example", 2, 0.25)
    (record,) = caplog.records
    assert record.levelno == logging.WARNING
    assert record.__dict__["fields"] == {
        **IDS,
        "attempt": 2,
        "host": "api.example",
        "status": 500,
        "error": "upstream_failed",
        "cause": "TimeoutError",
        "ms": 250,
    }


def test_an_error_without_a_code_is_named_by_its_kind(caplog: pytest.LogCaptureFixture) -> None:
    log_failure(SPEC, TARGET, UpstreamRejected(), "host.example", 1, 0)
    fields = caplog.records[0].__dict__["fields"]
    assert (fields["error"], fields["host"]) == ("upstream_rejected", "host.example")


def test_a_refused_key_is_an_error(caplog: pytest.LogCaptureFixture) -> None:
    log_failure(SPEC, TARGET, UpstreamAuth(), "", 1, 0)
    assert caplog.records[0].levelno == logging.ERROR


def test_a_target_behind_an_open_breaker_is_named(caplog: pytest.LogCaptureFixture) -> None:
    log_skip(SPEC, TARGET)
    assert caplog.records[0].__dict__["fields"] == {**IDS, "error": "circuit_open"}
