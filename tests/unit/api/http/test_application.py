"""Requests of the app: their headers are found as werkzeug finds them."""

from __future__ import annotations

import pytest
from werkzeug.datastructures import EnvironHeaders

from api.http.application import Request

ENVIRON = {
    "REQUEST_METHOD": "POST",
    "CONTENT_TYPE": "application/json",
    "CONTENT_LENGTH": "12",
    "HTTP_X_QUEUE": "wait",
    "HTTP_EMPTY": "",
}


@pytest.mark.parametrize(
    "name", ["X-Queue", "x-queue", "X_Queue", "Content-Type", "content-length", "Empty", "Absent"]
)
def test_a_header_is_what_werkzeug_returns(name: str) -> None:
    ours, theirs = Request(ENVIRON).headers, EnvironHeaders(ENVIRON)
    assert ours.get(name) == theirs.get(name)
    assert ours.get(name, "default") == theirs.get(name, "default")
    assert ours.get(name, 0, type=int) == theirs.get(name, 0, type=int)
    assert (name in ours) == (name in theirs)
