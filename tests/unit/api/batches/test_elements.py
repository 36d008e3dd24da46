"""Splits a body with many requests while it arrives."""

from __future__ import annotations

import json
import time

import orjson
import pytest

from api.batches.elements import elements
from gateway.errors import InvalidRequest, PayloadTooLarge

OBJECTS = [
    {},
    {"a": "b"},
    {"text": 'quotes \\" and \\\\ and {[}]', "more": [1, {"x": [[]]}]},
    {'key"]}': "\\", "\\": "\u2028 😀"},
    {"deep": [[[[{"a": None}]]]]},
]


def split(body, size=1 << 20, longest=10_000):
    pieces = (body[start : start + size] for start in range(0, len(body), size))
    return [json.loads(text) for text in elements(pieces, longest)]


@pytest.mark.parametrize("indent", [None, 2])
@pytest.mark.parametrize("size", [1, 2, 3, 5, 17, 1000])
def test_elements_do_not_depend_on_pieces(size, indent):
    body = json.dumps({"requests": OBJECTS}, indent=indent).encode()
    assert split(body, size) == OBJECTS


@pytest.mark.parametrize("body", [b'{"requests": []}', b' {\n"requests" :[ ] } \n'])
def test_an_array_may_be_empty(body):
    assert split(body) == []


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"[]",
        b"{}",
        b"{",
        b'{"requests": {}}',
        b'{"requests": [',
        b'{"requests": [{}',
        b'{"requests": [{"a": "}]}',
        b'{"requests": [{}]',
        b'{"requests": [{}]]',
        b'{"requests": [{} {}]}',
        b'{"requests": [{},]}',
        b'{"requests": [,{}]}',
        b'{"requests": [1]}',
        b'{"requests": [null, {}]}',
        b'{"requests": [{}], "more": 1}',
        b'{"more": 1, "requests": [{}]}',
        b'{"requests": [{}]} {}',
    ],
)
@pytest.mark.parametrize("size", [1, 1000])
def test_other_bodies_are_refused(body, size):
    with pytest.raises(InvalidRequest):
        split(body, size)


def test_a_request_that_is_too_large_is_refused_before_it_has_arrived():
    def endless():
        yield b'{"requests": [{"a": "'
        for _ in range(1_000):
            yield b"a" * 1_000

    with pytest.raises(PayloadTooLarge):
        list(elements(endless(), 10_000))


def test_a_large_body_takes_a_time_that_grows_with_its_size():
    request = orjson.dumps({"custom_id": "1", "params": {"text": 'a "quoted" word ' * 500}})
    body = b'{"requests": [' + b",".join([request] * 2_000) + b"]}"
    began = time.process_time()
    assert len(split(body, 262_144)) == 2_000
    assert time.process_time() - began < 10
