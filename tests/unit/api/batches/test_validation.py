"""What is checked of a batch before its first line runs."""

from __future__ import annotations

import json

import orjson
import pytest

from api.batches.validation import MAX_ERRORS, MAX_LINES, check_lines
from gateway.errors import ModelNotFound
from gateway.files.lines import lines
from tests.support.batches import CHAT, line

LONGEST = 100_000


def resolve(model):
    if model.startswith("none/"):
        raise ModelNotFound


def checked(*content, endpoint=CHAT):
    return check_lines(lines(content, LONGEST), endpoint, resolve)


REQUEST = json.loads(line("one"))


@pytest.mark.parametrize(
    ("content", "code", "number", "param"),
    [
        (b"{\n", "invalid_json_line", 2, None),
        (b"[]\n", "invalid_json_line", 2, None),
        (b'{"body": ' + b"[" * 300 + b"]" * 300 + b"}\n", "invalid_json_line", 2, None),
        (line("first"), "duplicate_custom_id", 2, "custom_id"),
        (line(""), "invalid_value", 2, "custom_id"),
        (line("a", url="/v1/embeddings"), "url_mismatch", 2, "url"),
        (line("a", url="/v1/images"), "invalid_url", 2, "url"),
        (line("a", model="none/at-all"), "model_not_found", 2, "body.model"),
        (line("a", model=None), "missing_required_parameter", 2, "body.model"),
        (line("a", stream=True), "invalid_value", 2, "body.stream"),
        *(
            (
                orjson.dumps({**REQUEST, "custom_id": "a", name: 1}),
                "invalid_type",
                2,
                name,
            )
            for name in ("method", "url", "body")
        ),
        (
            orjson.dumps({name: REQUEST[name] for name in ("custom_id", "url", "body")}),
            "missing_required_parameter",
            2,
            "method",
        ),
        (
            orjson.dumps({**REQUEST, "custom_id": "a", "method": "GET"}),
            "invalid_method",
            2,
            "method",
        ),
        (b"{" * (LONGEST + 1), "request_too_large", 2, None),
    ],
)
def test_a_wrong_line_is_named(content, code, number, param):
    (error,) = checked(line("first"), content).errors
    assert (error["code"], error["line"], error["param"]) == (code, number, param)
    assert error["message"]


@pytest.mark.parametrize("url", [CHAT, "/inference/v1/chat/completions", "/chat/completions"])
def test_a_url_may_have_our_prefix_or_none(url):
    assert not checked(line("one", url=url)).errors
    assert not checked(line("one"), endpoint=url).errors


def test_valid_lines_are_counted():
    result = checked(line("one"), line("two"), b"\n")
    assert (result.lines, result.model, result.errors) == (2, "openai/gpt-4o-mini", [])
    assert result.tokens == 2 * (len(line("one")) // 4)


def test_several_models_are_none_in_particular():
    assert checked(line("one"), line("two", model="demo/echo")).model == ""


def test_a_batch_lists_some_errors_only():
    assert len(checked(*[line("one")] * (MAX_ERRORS + 20)).errors) == MAX_ERRORS


def test_a_batch_has_a_largest_number_of_lines():
    numbered = ((number, line(str(number))) for number in range(1, MAX_LINES + 3))
    (error,) = check_lines(numbered, CHAT, resolve).errors
    assert (error["code"], error["line"]) == ("too_many_tasks", MAX_LINES + 1)
