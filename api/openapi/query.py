"""The query parameters of operations, by their name in the document's components."""

from __future__ import annotations

from typing import Any

TIME = "Unix seconds, or an ISO 8601 date or time (UTC by default)"


def _one(description: str, **schema: Any) -> dict[str, Any]:
    return {"description": description, "schema": {"type": "string", **schema}}


def _list(description: str, **items: Any) -> dict[str, Any]:
    """A list: its name is repeated, as such or with brackets behind it, as OpenAI's clients do."""
    schema = {"type": "array", "items": {"type": "string", **items}, "maxItems": 20}
    return {"description": description, "style": "form", "explode": True, "schema": schema}


MODEL: dict[str, Any] = {"pattern": "^[!-~]{1,256}$"}
ID: dict[str, Any] = {"pattern": "^[A-Za-z0-9_.:-]{1,64}$"}
MOMENT: dict[str, Any] = {
    "pattern": "^([0-9]{1,10}|[0-9]{4}-.*)$",
    "examples": ["1796083200", "2026-11-01"],
}
LIMIT: dict[str, Any] = {"type": "integer", "minimum": 1}

# Name in the document -> the parameter. What stands before a dot tells two of one name apart.
QUERY_PARAMETERS: dict[str, dict[str, Any]] = {
    "wait": _one(
        "Seconds to wait for the end of a call whose response is kept.",
        type="integer",
        minimum=0,
        maximum=60,
    ),
    "starting_after": _one(
        "The number of the last event that is known; `Last-Event-ID` takes precedence.",
        type="integer",
        minimum=0,
    ),
    "responses.stream": _one("Return its events.", enum=["true", "false"], default="false"),
    "responses.starting_after": _one(
        "The `sequence_number` of the last event that is known.", type="integer", minimum=0
    ),
    "include": _list("OpenAI's; without effect."),
    "include_obfuscation": _one("OpenAI's; without effect."),
    "items.limit": _one("Items of a page.", **LIMIT, maximum=100, default=20),
    "items.order": _one("`asc`: the first one first.", enum=["asc", "desc"], default="desc"),
    "id": _one("The call's id.", **ID) | {"required": True},
    "start_time": _one(f"{TIME}, inclusive. Usage begins with the bucket of this time.", **MOMENT),
    "end_time": _one(f"{TIME}, exclusive.", **MOMENT),
    "bucket_width": _one("The length of a bucket.", enum=["1m", "1h", "1d"], default="1d"),
    "group_by": _list(
        "A result for each of these. `project_id` is the owner, under OpenAI's name.",
        enum=["api_key_id", "model", "owner", "project_id", "kind"],
    ),
    "costs.group_by": _list(
        "A result for each of these. A `line_item` is a model.",
        enum=["api_key_id", "line_item", "project_id"],
    ),
    "costs.bucket_width": _one("The length of a bucket.", enum=["1d"], default="1d"),
    "models": _list("Only calls that these models answered.", **MODEL),
    "line_items": _list("Only calls that these models answered.", **MODEL),
    "api_key_ids": _list("Only calls with these keys, by their public ids.", **ID),
    "project_ids": _list("Only calls of these owners.", **ID),
    "limit": _one(
        "Buckets of a page. By default 7 days, 24 hours or 60 minutes; at most 31 days, 168 hours "
        "or 1,440 minutes.",
        **LIMIT,
        maximum=1440,
    ),
    "costs.limit": _one("Buckets of a page.", **LIMIT, maximum=180, default=7),
    "page": _one("`next_page` of the page before.", pattern="^[0-9]{1,10}$"),
    "format": _one("`csv`: the results as rows of text.", enum=["json", "csv"], default="json"),
    "model": _one("Only calls that this model answered.", **MODEL),
    "status": _one("Only calls that ended so.", enum=["completed", "failed", "cancelled", "lost"]),
    "api_key_id": _one("Only calls with this key, by its public id.", **ID),
    "owner": _one("Only calls of this owner.", **ID),
    "generations.limit": _one("Calls of a page.", **LIMIT, maximum=100, default=20),
    "after": _one("Id of the last item of the page before.", **ID),
    "message_batches.limit": _one("Batches of a page.", **LIMIT, maximum=1000, default=20),
    "before_id": _one("Id of the first batch of the page after.", **ID),
    "after_id": _one("Id of the last batch of the page before.", **ID),
    "batches.limit": _one("Batches of a page.", **LIMIT, maximum=100, default=20),
    "files.limit": _one("Files of a page.", **LIMIT, maximum=10_000, default=10_000),
    "order": _one("By when they were created.", enum=["asc", "desc"], default="desc"),
    "purpose": _one("Only files of this purpose.", enum=["batch", "batch_output"]),
    "page.limit": _one("Items of a page.", **LIMIT, maximum=500, default=100),
    "keys.owner": _one("Only keys of this owner.", **ID),
    "reason": _one(
        "Only calls that wait for this.", enum=["in_line", "limit", "paused", "scheduled"]
    ),
    "queue.model": _one("Only calls for this model.", **MODEL),
    "queue.after": _one(
        "Cursor of the last call of the page before.",
        pattern="^[qa]:-?[0-9][0-9.e+-]{0,30}:[A-Za-z0-9_-]{1,64}$",
    ),
    "include_disabled": _one(
        "Whether disabled keys are listed.", enum=["false", "true"], default="false"
    ),
}
