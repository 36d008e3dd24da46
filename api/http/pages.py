"""A page of a list, as OpenAI's API has it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any


def page_of(items: Sequence[dict[str, Any]], has_more: bool) -> dict[str, Any]:
    """The page with these items; each has an `id`, and `has_more` says whether others follow."""
    return {
        "object": "list",
        "data": items,
        "first_id": items[0]["id"] if items else None,
        "last_id": items[-1]["id"] if items else None,
        "has_more": has_more,
    }
