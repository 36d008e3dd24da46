"""What providers report about errors, in all of their forms."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.errors import UpstreamFailed, UpstreamOverloaded, UpstreamRejected, UpstreamThrottled
from providers.error_reports import read_report, report_in, reports_error
from providers.errors import rejection, rejection_inside

EXTRA = {
    "type": "extra_forbidden",
    "loc": ["body", "store"],
    "msg": "Extra inputs are not permitted",
    "input": True,
}
ROLE = {"loc": ["body", "messages", 0, "role"], "msg": "Field required", "type": "missing"}
REASON = "body.store: Extra inputs are not permitted"

# Body of a refusal -> its message and parameter.
REPORTS = [
    ({"detail": [EXTRA]}, REASON, "store"),
    ({"detail": EXTRA}, REASON, "store"),
    ({"message": {"detail": [EXTRA]}, "object": "error", "code": None}, REASON, "store"),
    ({"message": [EXTRA], "object": "Error", "code": 3001}, REASON, "store"),
    ({"message": EXTRA}, REASON, "store"),
    ({"error": {"message": {"detail": [EXTRA]}}}, REASON, "store"),
    ({"error": {"detail": [EXTRA]}}, REASON, "store"),
    ({"error": {"message": json.dumps({"detail": [EXTRA]})}}, REASON, "store"),
    ({"error": [EXTRA]}, REASON, "store"),
    ({"errors": [EXTRA]}, REASON, "store"),
    ([{"error": {"message": "bad", "status": "INVALID_ARGUMENT"}}], "bad", None),
    (
        {"detail": [EXTRA, ROLE]},
        f"{REASON}; body.messages[0].role: Field required",
        "store",
    ),
    ({"detail": [EXTRA, EXTRA]}, REASON, "store"),
    ({"detail": "bad"}, "bad", None),
    ({"message": "bad", "param": "seed"}, "bad", "seed"),
    ({"error": "bad"}, "bad", None),
    ({"error": "Bad Request", "message": ["seed should not exist"]}, "seed should not exist", None),
    ({"error": "invalid_request", "error_description": "bad"}, "bad", None),
    ({"error_code": 336003, "error_msg": "bad"}, "bad", None),
    ({"base_resp": {}, "code": 1, "msg": "bad"}, "bad", None),
    ({"title": "Bad", "detail": "worse", "status": 400}, "worse", None),
    (
        {"errors": [{"code": "x", "path": ["a", 0], "message": "Required"}]},
        "a[0]: Required",
        "a[0]",
    ),
    (
        {"error": {"message": "property 'store' is unsupported", "type": "invalid_request_error"}},
        "property 'store' is unsupported",
        "store",
    ),
    (
        {"error": {"message": 'Invalid JSON payload received. Unknown name "metadata": no.'}},
        'Invalid JSON payload received. Unknown name "metadata": no.',
        "metadata",
    ),
    (
        {
            "error": {
                "message": "Provider returned error",
                "code": 400,
                "metadata": {"raw": '{"error":{"message":"seed is bad","param":"seed"}}'},
            }
        },
        "Provider returned error: seed is bad",
        "seed",
    ),
    (
        {
            "error": {
                "message": "bad",
                "details": [{"fieldViolations": [{"field": "tools[0]", "description": "no"}]}],
            }
        },
        "bad",
        "tools[0]",
    ),
]


@pytest.mark.parametrize(("body", "message", "param"), REPORTS, ids=range(len(REPORTS)))
def test_the_reason_of_a_refusal_is_found(body, message, param):
    error = rejection(422, json.dumps(body).encode(), {})
    assert (type(error), error.status) == (UpstreamRejected, 422)
    assert (error.message, error.param) == (message, param)


@pytest.mark.parametrize(("body", "message", "param"), REPORTS[:4], ids=range(4))
def test_the_reason_of_an_error_in_a_200_is_found(body, message, param):
    error = rejection_inside({**body, "type": "invalid_request_error"})
    assert (error.message, error.param, error.status) == (message, param, 400)


def test_a_refusal_in_plain_text_is_its_message():
    text = b"Failed to deserialize: messages[0].role: unknown variant `developer`"
    assert rejection(422, text, {}).message == text.decode()
    assert rejection(400, b"<html>no</html>", {}).message == UpstreamRejected.message
    assert rejection(400, b"\xff\xfe", {}).message == UpstreamRejected.message


def test_a_byte_that_is_no_text_costs_one_character_of_a_reason():
    assert rejection(400, b'{"message":"a\xffb \\ud83d"}', {}).message == "a\ufffdb \ufffd"


TOO_LONG = [
    "The input (345516 tokens) is longer than the model's context length (262144 tokens).",
    "Prompt too long: 32799 tokens exceeds max context window of 32768 tokens",
    "prompt is too long: 210000 tokens > 200000 maximum",
    "input length and `max_tokens` exceed context limit: 190000 + 20000 > 200000",
    "This model's maximum context length is 128000 tokens. However, you requested 130000 tokens",
    "You passed 40000 input tokens and requested 1 output tokens. However, the model's context"
    " length is only 32768 tokens",
    "The decoder prompt (length 40000) is longer than the maximum model length of 32768.",
    "The prompt (total length 40000) is too long to fit into the model",
    "Input validation error: `inputs` tokens + `max_new_tokens` must be <= 8193. Given: 8200",
    "`inputs` must have less than 4096 tokens. Given: 5000",
    "the request exceeds the available context size. try increasing the context size",
    "request (9000 tokens) exceeds the available context size (8192 tokens), try increasing it",
    "The number of tokens to keep from the initial prompt is greater than the context length.",
    "Trying to keep the first 9000 tokens when context the overflows. However, the model is loaded"
    " with context length of only 4096 tokens",
    "Cannot truncate prompt with n_keep (9000) >= n_ctx (4096)",
    "the input length exceeds the context length",
    "input length exceeds maximum context length",
    "The input token count (1200000) exceeds the maximum number of tokens allowed (1048576).",
    "Unable to submit request because the input token count is 40000 but the model only supports up"
    " to 32768.",
    "This model's maximum prompt length is 131072 but the request contains 140000 tokens.",
    "Please reduce the length of the messages or completion.",
    "Prompt contains 40000 tokens and 0 draft tokens, too large for model with 32768 maximum"
    " context length",
    "too many tokens: total number of tokens in the prompt cannot exceed 4081",
    "Input is too long for requested model.",
    "Invalid request: Your request exceeded model token limit: 8192",
    "Prompt exceeds max length",
    "Range of input length should be [1, 30720]",
    "The prompt is too long: 140000, model maximum context length: 131071",
    "prompt token count of 70000 exceeds the limit of 64000",
    "context window exceeds limit (2013)",
    "Your input exceeds the context window of this model. Please adjust your input and try again.",
    "context too long",
]


@pytest.mark.parametrize("message", TOO_LONG)
def test_too_long_has_one_code_in_every_servers_words(message):
    body = {"error": {"message": message, "code": 400}}
    errors = [
        rejection(400, json.dumps(body).encode(), {}),
        rejection(500, json.dumps({"error": message}).encode(), {}),
        rejection(413, json.dumps({"detail": message}).encode(), {}),
        rejection_inside({"error": message}),
    ]
    assert [(type(error), error.code) for error in errors] == [
        (UpstreamRejected, "context_length_exceeded")
    ] * len(errors)
    assert message in errors[0].message


@pytest.mark.parametrize(
    "message",
    [
        "max_tokens is too large: 32000. This model supports at most 16384 completion tokens",
        "Invalid 'messages[0].name': string too long. Expected a string with maximum length 64",
        "Invalid 'user': string too long.",
        "Request too large for model `x` on tokens per minute (TPM): Limit 6000, Requested 7000",
        "Too many tokens, please wait before trying again.",
        "The request took too long",
        "Invalid 'stop': array too long. Expected an array with maximum length 4",
        "context_management: Extra inputs are not permitted",
    ],
)
def test_other_refusals_are_not_for_too_long_a_prompt(message):
    error = rejection(400, json.dumps({"error": {"message": message}}).encode(), {})
    assert error.code != "context_length_exceeded"


WAITS = [
    ({"error": {"message": "Rate limit reached. Please try again in 1.2s."}}, 1.2),
    ({"error": {"message": "Please try again in 6m0s."}}, 360),
    ({"error": {"message": "Please try again in 7m12.5s. Need more?"}}, 432.5),
    ({"error": {"message": "Please try again in 120ms."}}, 1),
    ({"error": {"message": "Please retry after 20 seconds."}}, 20),
    ({"error": {"message": "Please retry in 34.07s."}}, 34.07),
    ({"error": {"message": "Try again in 2 minutes"}}, 120),
    ({"error": {"message": "Try again in 1 hour and 5 minutes"}}, 3600),
    ({"error": {"message": "slow", "details": [{"retryDelay": "34s"}]}}, 34),
    ({"error": {"message": "slow", "retry_after": 7}}, 7),
    ({"error": {"message": "slow"}, "retry_after_ms": 2500}, 2.5),
    ({"message": "slow", "retry_after_seconds": "9"}, 9),
    ({"retryAfter": 5}, 5),
    ({"error": {"message": "Try again later"}}, None),
    ({"error": {"message": "We retry after failures"}}, None),
]


@pytest.mark.parametrize(("body", "seconds"), WAITS, ids=range(len(WAITS)))
def test_the_time_to_wait_is_read_from_a_body(body, seconds):
    for status, kind in ((429, UpstreamThrottled), (503, UpstreamOverloaded)):
        error = rejection(status, json.dumps(body).encode(), {})
        assert (type(error), error.retry_after) == (kind, seconds)


def test_a_header_says_more_than_a_body():
    body = json.dumps({"error": {"message": "Please try again in 20s."}}).encode()
    assert rejection(429, body, {"retry-after": "3"}).retry_after == 3


def test_an_overloaded_provider_that_names_a_time_may_be_asked_again():
    assert rejection(503, b"", {"retry-after": "3"}).should_retry is True
    assert rejection(503, b"", {}).should_retry is False


def test_a_server_error_without_words_stays_one():
    assert type(rejection(500, b"{}", {})) is UpstreamFailed


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=9),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(
                "error errors message detail code type param loc path msg details metadata raw"
                " retry_after retryDelay fieldViolations field choices status".split()
            ),
            inner,
            max_size=4,
        )
    ),
    max_leaves=20,
)


@given(JSON)
def test_any_body_is_read(value):
    report = report_in(value)
    assert isinstance(report.message, str)
    if isinstance(value, dict):
        reports_error(value)
    error = rejection_inside(value)
    assert error.to_dict()


@given(st.binary(max_size=50))
def test_any_bytes_are_read(body):
    read_report(body, plain_text=True)
