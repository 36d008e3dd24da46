"""/generations and /usage: what calls were and cost. A key sees its own, an operator key all."""

from __future__ import annotations

import re
import time
from dataclasses import replace
from typing import Any

import orjson
from flask import Blueprint, Response, request

from api.http import errors
from api.http.auth import reader
from api.schemas.errors import invalid
from api.services import services
from api.usage import query as read
from api.usage import reports
from api.usage.generation import generation
from api.usage.reports import Report
from gateway.account import running
from gateway.account.api_keys import KeyRecord
from gateway.account.ledger import LedgerUnavailable, UnknownCursor
from gateway.account.records import Record
from gateway.errors import InvalidRequest, NotFound, PermissionDenied, Unavailable
from gateway.queue import keys

usage = Blueprint("usage", __name__)

RETRY_SECONDS = 5

GENERATIONS, MAX_GENERATIONS = 20, 100  # of a page: by default, and at most
STATUSES = ("completed", "failed", "cancelled", "lost")
LIST_PARAMETERS = ("start_time", "end_time", "model", "status", "api_key_id", "owner", "limit")
# What the bodies of responses put before a call's id.
BODY_ID = re.compile(r"(?:chatcmpl-|msg_|resp_)(?=[0-9a-f]{32}$)")


@usage.errorhandler(LedgerUnavailable)
def _render_unavailable(_: LedgerUnavailable) -> Response:
    return errors.render(_unavailable("The database of the account does not answer."))


@usage.get("/generations/<generation_id>")
@reader
def get_generation(key: KeyRecord, generation_id: str) -> Response:
    """Return one call, also while it waits or runs; raises NotFound for a call of another key."""
    return _generation(key, generation_id)


@usage.get("/generation")
@reader
def get_generation_by_id(key: KeyRecord) -> Response:
    """Return one call, at OpenRouter's address."""
    read.refuse_unknown(request.args, ("id",))
    generation_id = read.text(request.args, "id", read.ID)
    if generation_id is None:
        raise invalid("missing", "id")
    return _generation(key, generation_id)


@usage.get("/generations")
@reader
def list_generations(key: KeyRecord) -> Response:
    """Return a page of calls that have ended, the latest first."""
    args = request.args
    read.refuse_unknown(args, (*LIST_PARAMETERS, "after"))
    start, end = (read.time(args, name) for name in ("start_time", "end_time"))
    named = read.text(args, "api_key_id", read.ID)
    seen = _seen_by(key, (named,) if named else (), "api_key_id")
    try:
        page = services().ledger.generations(
            key_id=seen[0] if seen else None,
            owner=read.text(args, "owner", read.ID),
            model=read.text(args, "model", read.MODEL),
            status=read.choice(args, "status", STATUSES),
            start_ms=None if start is None else start * 1000,
            end_ms=None if end is None else end * 1000,
            after=read.text(args, "after", read.ID),
            limit=read.number(args, "limit", GENERATIONS, MAX_GENERATIONS),
        )
    except UnknownCursor:
        raise InvalidRequest(
            "Invalid 'after': no such call.", param="after", code="invalid_value"
        ) from None
    data = [generation(record) for record in page.records]
    return _json(
        {
            "object": "list",
            "data": data,
            "first_id": data[0]["id"] if data else None,
            "last_id": data[-1]["id"] if data else None,
            "has_more": page.has_more,
        }
    )


@usage.get("/usage")
@reader
def get_usage(key: KeyRecord) -> Response:
    """Return the usage of all calls in OpenAI's pages of buckets, or as CSV."""
    return _report(key, reports.USAGE)


@usage.get("/organization/usage/completions")
@reader
def get_completions_usage(key: KeyRecord) -> Response:
    """Return the usage of chat models as OpenAI's clients read it."""
    return _report(key, reports.COMPLETIONS)


@usage.get("/organization/usage/embeddings")
@reader
def get_embeddings_usage(key: KeyRecord) -> Response:
    """Return the usage of embedding models as OpenAI's clients read it."""
    return _report(key, reports.EMBEDDINGS)


@usage.get("/organization/costs")
@reader
def get_costs(key: KeyRecord) -> Response:
    """Return the costs of each day as OpenAI's clients read them."""
    return _report(key, reports.COSTS)


def _report(key: KeyRecord, report: Report) -> Response:
    selected = reports.selection(report, request.args, int(time.time()))
    query = selected.query
    seen = _seen_by(key, query.api_key_ids, "api_key_ids")
    selected = replace(selected, query=replace(query, api_key_ids=seen))
    buckets = services().ledger.usage(selected.query)
    if selected.format == "csv":
        response = Response(reports.as_csv(selected, buckets), mimetype="text/csv")
        response.headers["Content-Disposition"] = 'attachment; filename="usage.csv"'
        return response
    return _json(reports.page(selected, buckets))


def _seen_by(key: KeyRecord, api_key_ids: tuple[str, ...], name: str) -> tuple[str, ...]:
    """The keys whose calls count: those of the query, or for an ordinary key its own.

    Raises PermissionDenied if an ordinary key names another.
    """
    if key.operator:
        return api_key_ids
    if set(api_key_ids) - {key.public_id}:
        raise PermissionDenied("Only an operator key sees the calls of other keys.", param=name)
    return (key.public_id,)


def _generation(key: KeyRecord, generation_id: str) -> Response:
    call_id = BODY_ID.sub("", generation_id)
    record = find_record(call_id)
    if record is None or not (key.operator or record.key_id == key.public_id):
        raise NotFound(
            f"Generation with id '{generation_id[:64]}' not found.",
            param="id",
            code="generation_not_found",
        )
    return _json({"data": generation(record)})


def find_record(call_id: str) -> Record | None:
    """The record of a call that runs, or that the ledger has.

    Redis is read first: it forgets a call JOB_SECONDS after its end, when the ledger has its
    record. Raises Unavailable while the ledger is further behind than that.
    """
    ledger = services().ledger
    unfinished = running.find(services().broker.redis, call_id)
    if unfinished is not None and unfinished.status != running.SETTLING:
        return unfinished
    record = ledger.generation(call_id) or unfinished
    if record is None and ledger.health().lag_seconds > keys.JOB_SECONDS:
        raise _unavailable("The account is behind: the record of this call may be on its way.")
    return record


def _unavailable(message: str) -> Unavailable:
    return Unavailable(message, code="account_unavailable", retry_after=RETRY_SECONDS)


def _json(value: Any) -> Response:
    return Response(orjson.dumps(value), content_type="application/json")
