"""What a request for embeddings may say, and how it is refused."""

from __future__ import annotations

import orjson
import pytest

from api.embeddings.schema import MAX_ELEMENTS, embeddings_request
from gateway import strict_json
from gateway.errors import InvalidRequest

MISSING, TYPE, VALUE = "missing_required_parameter", "invalid_type", "invalid_value"
EMPTY, LONG = "empty_array", "array_above_max_length"
HIGH, LOW = "integer_above_max_value", "integer_below_min_value"


def body(given: object = "hi", **fields: object) -> dict[str, object]:
    return {"model": "m", "input": given, **fields}


GOOD = {
    "a text": "hi",
    "a blank": " ",
    "a long text": "word " * 100_000,
    "texts": ["a", "b"],
    "2048 texts": ["a"] * 2048,
    "tokens": [1, 2, 3],
    "a token": [0],
    "2048 tokens": [1] * 2048,
    "token lists": [[1, 2], [3]],
    "long token lists": [[1] * 8192] * 3,
    "2048 token lists": [[1]] * 2048,
}

BAD = {
    "no input": ({"model": "m"}, MISSING, "input"),
    "no model": ({"input": "hi"}, MISSING, "model"),
    "not an object": (["hi"], TYPE, None),
    "null": (body(None), TYPE, "input"),
    "number": (body(1), TYPE, "input"),
    "true": (body(True), TYPE, "input"),
    "object": (body({"text": "hi"}), TYPE, "input"),
    "empty text": (body(""), VALUE, "input"),
    "an empty text among others": (body(["a", ""]), VALUE, "input[1]"),
    "nothing": (body([]), EMPTY, "input"),
    "no tokens": (body([[1], []]), EMPTY, "input[1]"),
    "no tokens at first": (body([[]]), EMPTY, "input[0]"),
    "2049 texts": (body(["a"] * 2049), LONG, "input"),
    "2049 tokens": (body([1] * 2049), LONG, "input"),
    "2049 token lists": (body([[1]] * 2049), LONG, "input"),
    "nulls": (body([None]), TYPE, "input[0]"),
    "decimals": (body([1.5]), TYPE, "input[0]"),
    "booleans": (body([True]), TYPE, "input[0]"),
    "objects": (body([{"text": "a"}]), TYPE, "input[0]"),
    "a token among texts": (body(["a", 1]), TYPE, "input[1]"),
    "a text among tokens": (body([1, "a"]), TYPE, "input[1]"),
    "a text among token lists": (body([[1], "a"]), TYPE, "input[1]"),
    "a text in a token list": (body([[1, "a"]]), TYPE, "input[0][1]"),
    "a negative token": (body([[1, -1]]), LOW, "input[0][1]"),
    "encoding": (body(encoding_format="md5"), VALUE, "encoding_format"),
    "encoding number": (body(encoding_format=1), TYPE, "encoding_format"),
    "no dimensions": (body(dimensions=0), LOW, "dimensions"),
    "too many dimensions": (body(dimensions=2**31), HIGH, "dimensions"),
    "far too many dimensions": (body(dimensions=2**70), HIGH, "dimensions"),
    "dimensions text": (body(dimensions="3"), TYPE, "dimensions"),
    "dimensions true": (body(dimensions=True), TYPE, "dimensions"),
    "user": (body(user=1), TYPE, "user"),
}


def refusal(data: object) -> InvalidRequest:
    """The refusal of this request as it arrives, that is, after a trip through JSON."""
    encoded = orjson.dumps(data) if data != BAD["far too many dimensions"][0] else FAR
    with pytest.raises(InvalidRequest) as caught:
        embeddings_request(strict_json.loads(encoded, MAX_ELEMENTS))
    return caught.value


FAR = b'{"model": "m", "input": "hi", "dimensions": %d}' % 2**70  # too large for orjson to write


@pytest.mark.parametrize("given", GOOD.values(), ids=GOOD)
def test_every_kind_of_input_is_passed_on_as_it_is(given: object) -> None:
    data = strict_json.loads(orjson.dumps(body(given)), MAX_ELEMENTS)
    asked = embeddings_request(data)
    assert asked.parameters["input"] is data["input"]
    assert (asked.model, asked.stream, asked.ignored) == ("m", False, [])


def test_parameters_are_kept_nulls_dropped_and_unknown_fields_named() -> None:
    asked = embeddings_request(
        body(encoding_format="base64", dimensions=3, user=None, stream=True, task="x", odd=1),
        extra=["task"],
    )
    assert asked.parameters == {
        "input": "hi",
        "encoding_format": "base64",
        "dimensions": 3,
        "task": "x",
    }
    assert asked.ignored == ["stream", "odd"]
    assert not asked.stream


@pytest.mark.parametrize(("data", "code", "param"), BAD.values(), ids=BAD)
def test_what_is_wrong_is_told_with_its_path(data: object, code: str, param: str | None) -> None:
    error = refusal(data)
    assert (error.status, error.code, error.param) == (400, code, param)
    assert error.message


def test_the_limit_of_a_batch_is_in_the_message() -> None:
    message = refusal(body(["a"] * 3000)).message
    assert "maximum length 2048" in message
    assert "length 3000" in message


def test_a_wrong_input_is_told_what_is_expected() -> None:
    assert refusal(body(1)).message == (
        "Invalid type for 'input': expected one of a string, array of strings, array of integers, "
        "or array of integer arrays, but got an integer instead."
    )


def test_no_input_reaches_a_log() -> None:
    error = refusal(body(["CANARY", 1]))
    assert "CANARY" not in str(error)
    assert error.__context__ is None


def test_a_batch_of_tokens_as_large_as_openai_takes_is_no_json_that_is_too_large() -> None:
    given = [[1] * 8_000] * 37
    data = strict_json.loads(orjson.dumps(body(given)), MAX_ELEMENTS)
    assert embeddings_request(data).parameters["input"] == given
    with pytest.raises(InvalidRequest) as caught:
        strict_json.loads(orjson.dumps(body(given * 2)), MAX_ELEMENTS)
    assert caught.value.code == "json_too_large"
