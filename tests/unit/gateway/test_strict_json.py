"""What bytes are JSON here, and how much of it one body may hold."""

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway import strict_json
from gateway.errors import InvalidRequest

NOT_JSON = {
    "28 empty body": b"",
    "28 only blanks": b" \n",
    "33 unfinished": b"{",
    "33 trailing garbage": b"{} x",
    "33 two documents": b"{}{}",
    "33 single quotes": b"{'model': 1}",
    "33 comment": b'{"model": 1} // hello',
    "33 trailing comma": b'{"model": 1,}',
    "34 invalid UTF-8": b'{"model": "\xff"}',
    "34 overlong UTF-8": b'"\xc0\xaf"',
    "34 UTF-16": '{"model": "m"}'.encode("utf-16"),
    "34 UTF-16 without a mark": '{"model": "m"}'.encode("utf-16-le"),
    "34 byte order mark": b'\xef\xbb\xbf{"model": "m"}',
    "35 lone surrogate": b'"\\ud800"',
    "35 lone surrogate as a key": b'{"\\udc00": 1}',
    "35 encoded surrogate": b'"\xed\xa0\x80"',
    "36 NaN": b"[NaN]",
    "36 Infinity": b"[Infinity]",
    "36 -Infinity": b"[-Infinity]",
    "36 1e999": b"[1e999]",
    "37 10k arrays": b"[" * 10_000 + b"]" * 10_000,
    "37 100k arrays": b"[" * 100_000 + b"]" * 100_000,
    "37 100k objects": b'{"a":' * 100_000 + b"1" + b"}" * 100_000,
    "40 5,000-digit integer": b"9" * 5_000,
}


@pytest.mark.parametrize("body", NOT_JSON.values(), ids=NOT_JSON.keys())
def test_what_is_not_strict_json_is_refused(body):
    with pytest.raises(InvalidRequest) as caught:
        strict_json.loads(body)
    assert (caught.value.status, caught.value.code, caught.value.param) == (
        400,
        "invalid_json",
        None,
    )


def nested(depth: int) -> bytes:
    return b'{"a":[' * (depth // 2) + b"[]" * (depth % 2) + b"]}" * (depth // 2)


TOO_DEEP = {f"38 {depth} levels": nested(depth) for depth in (65, 66, 512, 1024)}
TOO_LARGE = {
    "39 200k keys": orjson.dumps({str(number): 0 for number in range(200_000)}),
    "39 1M elements": b"[" + b"0," * 999_999 + b"0]",
    "39 1M empty arrays": b"[" + b"[]," * 999_999 + b"[]]",
    "39 one element too many": b"[" + b"0," * 50_000 + b"0]",
    "39 many small objects": b"[" + b'{"a":1},' * 25_000 + b"0]",
}


@pytest.mark.parametrize("body", TOO_DEEP.values(), ids=TOO_DEEP.keys())
def test_json_of_more_than_64_levels_is_refused(body):
    with pytest.raises(InvalidRequest) as caught:
        strict_json.loads(body)
    assert (caught.value.code, caught.value.param) == ("json_too_deep", None)


@pytest.mark.parametrize("body", TOO_LARGE.values(), ids=TOO_LARGE.keys())
def test_json_of_more_than_50000_elements_is_refused(body):
    with pytest.raises(InvalidRequest) as caught:
        strict_json.loads(body)
    assert (caught.value.code, caught.value.param) == ("json_too_large", None)


ALLOWED = {
    "64 levels": nested(64),
    "many containers side by side": b"[" + b"[]," * 1_000 + b"{}]",
    "50k elements": b"[" + b"0," * 49_999 + b"0]",
    "brackets in a string": orjson.dumps(["[" * 10_000]),
    "commas in a string": orjson.dumps([","] * 2 + ["," * 100_000]),
    "a scalar": b"1",
    "NUL": b'"\\u0000"',
    "surrogate pair": b'"\\ud83d\\ude00"',
}


@pytest.mark.parametrize("body", ALLOWED.values(), ids=ALLOWED.keys())
def test_what_is_within_the_limits_is_read(body):
    assert strict_json.loads(body) == orjson.loads(body)


def test_of_duplicate_keys_the_last_wins():
    assert strict_json.loads(b'{"model": "a", "model": "b"}') == {"model": "b"}


def test_the_error_keeps_no_hold_of_the_body():
    with pytest.raises(InvalidRequest) as caught:
        strict_json.loads(b'{"key": "sk-secret" oops')
    error = caught.value
    assert "line 1" in error.message
    assert "secret" not in error.message
    assert error.__cause__ is None
    assert error.__context__ is None


json_values = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**64 - 1) | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
)


@given(json_values)
def test_every_json_value_survives(value):
    assert strict_json.loads(orjson.dumps(value)) == value


@given(st.binary(max_size=200))
def test_no_bytes_raise_anything_but_our_error(body):
    try:
        strict_json.loads(body)
    except InvalidRequest as error:
        assert error.code == "invalid_json"
