"""gateway/sentry.py: what a report of an error says, and what it leaves out."""

from __future__ import annotations

import json
import logging

import pytest

from gateway.logs import log_fault
from gateway.sentry import SentryHandler
from gateway.settings import ConfigurationError, Settings
from tests.support.sentry import sentry_project

PROMPT, KEY = "a canary of a prompt", "mk_inference_AbCdEfGh1234_" + "s" * 43


@pytest.fixture
def receiver():
    """A project of Sentry: its DSN, and the bodies that it was sent."""
    with sentry_project() as project:
        yield project


@pytest.fixture
def logger(receiver):
    handler = SentryHandler(Settings(sentry_dsn=receiver[0], release="r1"))
    logger = logging.Logger("test.sentry")
    logger.addHandler(handler)
    yield logger
    handler.close()


def events(logger, receiver):
    """The events that arrived, after all have."""
    logger.handlers[0].flush()
    return [json.loads(body.splitlines()[2]) for body in receiver[1]]


def _fail(prompt):
    secret = prompt + KEY
    raise ValueError(f"cannot read {secret}")


def test_a_fault_is_reported_with_its_place_and_without_texts_and_variables(logger, receiver):
    try:
        _fail(PROMPT)
    except ValueError as error:
        log_fault(logger, error, "call %s", "c1")
    [event] = events(logger, receiver)
    assert event["message"].startswith("call c1: ValueError at test_sentry.py:")
    assert (event["level"], event["logger"], event["release"]) == ("error", "test.sentry", "r1")
    [exception] = event["exception"]["values"]
    assert (exception["type"], exception["value"]) == ("ValueError", "")
    frames = exception["stacktrace"]["frames"]
    assert frames[-1]["function"] == "_fail"
    assert not any("vars" in frame for frame in frames)
    [body] = receiver[1]
    assert PROMPT not in body
    assert "ssss" not in body
    assert "request" not in event
    assert "breadcrumbs" not in event


def test_an_error_has_the_fields_of_its_line_as_tags_and_keys_are_masked(logger, receiver):
    fields = {"call_id": "c1", "status": 401, "cause": "", "model": KEY}
    logger.error("attempt failed %s", KEY, extra={"fields": fields})
    logger.warning("a warning")
    [event] = events(logger, receiver)
    assert event["message"] == "attempt failed mk_inference_AbCd***"
    assert event["tags"] == {"call_id": "c1", "status": "401", "model": "mk_inference_AbCd***"}


def test_the_same_error_is_reported_once_in_a_while(logger, receiver):
    for number in range(5):
        logger.error("call %d failed", number, extra={"fields": {"route": "a/b"}})
    logger.error("call %d failed", 6, extra={"fields": {"route": "a/c"}})
    assert len(events(logger, receiver)) == 2


def test_an_address_that_is_none_is_refused_and_not_quoted():
    with pytest.raises(ConfigurationError, match="^SENTRY_DSN must be") as caught:
        SentryHandler(Settings(sentry_dsn="secret"))
    assert "secret" not in str(caught.value)
