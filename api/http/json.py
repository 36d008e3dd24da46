"""Responses in JSON, and pages of lists as OpenAI's API has them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import orjson
from flask import Response


def json_response(value: Any, status: int = 200, no_store: bool = False) -> Response:
    """The value as JSON; with `no_store` nobody may cache it."""
    response = Response(orjson.dumps(value), status, content_type="application/json")
    if no_store:
        response.headers["Cache-Control"] = "no-store"
    return response


def page_of(items: Sequence[dict[str, Any]], has_more: bool) -> dict[str, Any]:
    """The page with these items; each has an `id`, and `has_more` says whether others follow."""
    return {
        "object": "list",
        "data": items,
        "first_id": items[0]["id"] if items else None,
        "last_id": items[-1]["id"] if items else None,
        "has_more": has_more,
    }
