"""The query parameters of the account's operations: the schema of each, by its name.

A list is repeated, as such or with brackets behind its name, as OpenAI's clients send it.
"""

from __future__ import annotations

from collections.abc import Mapping

Schema = Mapping[str, object]
Query = Mapping[str, Schema]

TIME = "Unix seconds, or an ISO 8601 date or time (UTC by default)"


def _text(description: str, **schema: object) -> Schema:
    return {"type": "string", "description": description, **schema}


def _list(description: str, **items: object) -> Schema:
    each = {"type": "string", **items}
    return {"type": "array", "items": each, "maxItems": 20, "description": description}


def _limit(description: str, most: int, **schema: object) -> Schema:
    bounds = {"minimum": 1, "maximum": most}
    return {"type": "integer", **bounds, "description": description, **schema}


MODEL = "^[!-~]{1,256}$"
ID = "^[A-Za-z0-9_.:-]{1,64}$"
MOMENT = "^([0-9]{1,10}|[0-9]{4}-.*)$"

PERIOD: Query = {
    "start_time": _text(f"{TIME}, inclusive.", pattern=MOMENT, examples=["1796083200"]),
    "end_time": _text(f"{TIME}, exclusive.", pattern=MOMENT, examples=["2026-12-01"]),
}
SELECTION: Query = {
    **PERIOD,
    "page": _text("`next_page` of the page before.", pattern="^[0-9]{1,10}$"),
    "api_key_ids": _list("Only calls with these keys, by their public ids.", pattern=ID),
    "project_ids": _list("Only calls of these owners.", pattern=ID),
}
USAGE: Query = {
    **SELECTION,
    "bucket_width": _text("The length of a bucket.", enum=["1m", "1h", "1d"], default="1d"),
    "limit": _limit(
        "Buckets of a page. By default 7 days, 24 hours or 60 minutes; at most 31 days, 168 hours "
        "or 1,440 minutes.",
        1440,
    ),
    "group_by": _list(
        "A result for each of these. `project_id` is the owner, under OpenAI's name.",
        enum=["api_key_id", "model", "owner", "project_id", "kind"],
    ),
    "models": _list("Only calls that these models answered.", pattern=MODEL),
}
USAGE_OR_CSV: Query = {
    **USAGE,
    "format": _text("`csv`: a row for each result.", enum=["json", "csv"], default="json"),
}
COSTS: Query = {
    **SELECTION,
    "bucket_width": _text("The length of a bucket.", enum=["1d"], default="1d"),
    "limit": _limit("Buckets of a page.", 180, default=7),
    "group_by": _list(
        "A result for each of these. A `line_item` is a model.",
        enum=["api_key_id", "line_item", "project_id"],
    ),
    "line_items": _list("Only calls that these models answered.", pattern=MODEL),
}
GENERATION: Query = {"id": _text("The call's id. Required.", pattern=ID)}
GENERATIONS: Query = {
    **PERIOD,
    "model": _text("Only calls that this model answered.", pattern=MODEL),
    "status": _text("Only calls that ended so.", enum=["completed", "failed", "cancelled", "lost"]),
    "api_key_id": _text("Only calls with this key, by its public id.", pattern=ID),
    "owner": _text("Only calls of this owner.", pattern=ID),
    "limit": _limit("Calls of a page.", 100, default=20),
    "after": _text("`last_id` of the page before.", pattern=ID),
}
