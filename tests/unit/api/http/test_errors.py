"""gateway/errors.py and api/http/errors.py: the tree of errors, and how they look over HTTP."""

from __future__ import annotations

import json
import re

import orjson
import pytest
from flask import Blueprint, Flask, Response

from api.http import errors as http
from gateway import errors
from gateway.errors import KINDS, GatewayError, InvalidRequest, Overloaded, UpstreamError

ALL = sorted(KINDS.values(), key=lambda kind: kind.__name__)
DRAWN = re.compile(r"^ *[*x+] (\w+) +(\d{3})", re.MULTILINE)
# OpenAI's own, and those that its clients tell apart by status alone.
TYPES = {
    "invalid_request_error", "server_error", "timeout_error", "service_unavailable_error",
    "requests", "tokens", "insufficient_quota",
}  # fmt: skip


def each(kinds):
    return pytest.mark.parametrize("kind", kinds, ids=lambda kind: kind.__name__)


def test_the_drawing_at_the_top_shows_every_error_with_its_status():
    drawn = {name: int(status) for name, status in DRAWN.findall(errors.__doc__)}
    assert drawn == {kind.__name__: kind.status for kind in ALL}


@each(ALL)
def test_every_error_renders_all_four_keys_of_the_envelope(kind):
    told = json.loads(http.body(kind()))
    assert told.keys() == {"error"}
    assert told["error"].keys() == {"message", "type", "param", "code"}
    assert told["error"]["message"]
    assert told["error"]["type"] in TYPES
    assert told["error"]["param"] is None
    assert told["error"]["code"] != "None"


@each(ALL)
def test_every_error_survives_its_way_through_redis(kind):
    sent = kind(
        "what happened", param="messages[0]", code="a_code", status=418, retry_after=1.5,
        should_retry=True, headers={"x-limit-name": "requests_per_minute"},
    )  # fmt: skip
    received = GatewayError.from_dict(orjson.loads(orjson.dumps(sent.to_dict())))
    assert type(received) is kind
    assert received.to_dict() == sent.to_dict()
    assert received.envelope() == sent.envelope()
    assert http.headers(received) == http.headers(sent)


@each(ALL)
def test_every_error_survives_with_its_defaults(kind):
    received = GatewayError.from_dict(orjson.loads(orjson.dumps(kind().to_dict())))
    assert (type(received), received.to_dict()) == (kind, kind().to_dict())


def test_an_error_of_an_unknown_kind_keeps_the_rest():
    sent = {**Overloaded(retry_after=3).to_dict(), "kind": "OfANewerVersion"}
    received = GatewayError.from_dict(sent)
    assert type(received) is GatewayError
    assert (received.status, received.code, received.retry_after) == (503, Overloaded.code, 3)


def test_what_is_given_to_one_error_does_not_stick_to_its_kind():
    InvalidRequest("no", code="invalid_value", status=422, should_retry=True)
    fresh = InvalidRequest()
    assert (fresh.code, fresh.status, fresh.should_retry) == (None, 400, None)


@each([kind for kind in ALL if kind.retryable])
def test_only_what_was_not_acted_on_is_tried_again_here(kind):
    assert issubclass(kind, UpstreamError)
    assert kind.status in (429, 502, 503)


@each(
    [
        errors.WorkerLost, errors.WorkerStopped, errors.ReplyLost, errors.SlowReader,
        errors.JobLost, errors.DeadlineExceeded, errors.UpstreamTruncated, errors.UpstreamTimeout,
        errors.UpstreamFailed,
    ]
)  # fmt: skip
def test_clients_are_told_not_to_repeat_what_may_have_been_acted_on(kind):
    assert http.headers(kind())["x-should-retry"] == "false"


@each([errors.Overloaded, errors.QueueUnavailable, errors.NoWorkers, errors.ShuttingDown])
def test_clients_are_told_to_repeat_what_was_never_started(kind):
    assert http.headers(kind())["x-should-retry"] == "true"


def test_a_wrong_key_is_not_worth_a_retry():
    assert http.headers(errors.AuthenticationFailed())["x-should-retry"] == "false"


@each(
    [
        kind
        for kind in ALL
        if issubclass(kind, InvalidRequest) and kind is not errors.AuthenticationFailed
    ]
)
def test_the_caller_s_own_faults_say_nothing_of_trying_again(kind):
    assert http.headers(kind()) == {}


@pytest.mark.parametrize(
    ("seconds", "told"),
    [(0, "1"), (-3, "1"), (0.2, "1"), (1, "1"), (1.01, "2"), (119.5, "120"), (86_400, "120")],
)
def test_retry_after_is_whole_and_neither_zero_nor_endless(seconds, told):
    assert http.headers(Overloaded(retry_after=seconds))["Retry-After"] == told


def test_no_retry_after_is_made_up():
    assert "Retry-After" not in http.headers(Overloaded())


@pytest.fixture
def web():
    """A client of an app with two APIs: one with a dialect of its own, one without."""
    spoken = http.ApiBlueprint("spoken", "spoken", dialect=lambda error: Response("ouch"))
    plain = Blueprint("plain", "plain")
    for blueprint in (spoken, plain):

        @blueprint.post(f"/{blueprint.name}")
        def fail():
            raise InvalidRequest

    app = Flask("two_apis")
    http.register(app)
    app.register_blueprint(spoken, url_prefix="/base/v1")
    app.register_blueprint(plain, url_prefix="/base/v1")
    return app.test_client()


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("POST", "/base/v1/spoken"),
        ("GET", "/base/v1/spoken"),
        ("GET", "/base/v1/spoken/more"),
        ("POST", "/v1/spoken"),
        ("POST", "/other/v1/spoken/more"),
    ],
)
def test_a_blueprint_decides_how_errors_at_and_below_its_addresses_look(web, method, path):
    assert web.open(path, method=method).get_data() == b"ouch"


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("POST", "/base/v1/plain"),
        ("GET", "/base/v1/plain"),
        ("GET", "/v1/spokenness"),
        ("GET", "/"),
    ],
)
def test_other_errors_have_openai_s_envelope(web, method, path):
    assert web.open(path, method=method).get_json()["error"]["type"] == "invalid_request_error"
