"""api/schemas/check.py: one check for the schemas of all APIs."""

from __future__ import annotations

import pytest
from pydantic import TypeAdapter
from typing_extensions import TypedDict

from api.schemas.check import check
from gateway.errors import InvalidRequest


class Body(TypedDict):
    text: str


BODY = TypeAdapter(Body)
SECRET = "the caller's value"


def test_data_of_the_right_shape_passes():
    assert check(BODY, {"text": "hi", "more": 1}, lambda problem: InvalidRequest()) is None


def test_the_error_does_not_hold_the_caller_s_values():
    with pytest.raises(InvalidRequest) as raised:
        check(BODY, {"text": [SECRET]}, lambda problem: InvalidRequest(str(problem.error_count())))
    assert raised.value.message == "1"
    assert raised.value.__context__ is None
    assert raised.value.__cause__ is None


def test_values_are_not_coerced():
    with pytest.raises(InvalidRequest):
        check(BODY, {"text": 3}, lambda problem: InvalidRequest())
