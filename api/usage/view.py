"""/generations and /usage: what calls were and cost. A key sees its own, an operator key all."""

from __future__ import annotations

import re
import time
from dataclasses import replace

from flask import Blueprint, Response, request

from api import logged as logged_calls
from api.http.auth import keyed, reader
from api.http.errors import account_unavailable
from api.http.json import json_response, page_of
from api.rendering import LoggedCall
from api.schemas import query as read
from api.schemas.errors import invalid
from api.services import services
from api.usage import reports
from api.usage.generation import generation
from api.usage.reports import Report
from gateway.account import running
from gateway.account.api_keys import KeyRecord
from gateway.account.ledger import UnknownCursor
from gateway.account.records import Record
from gateway.errors import InvalidRequest, NotFound, PermissionDenied
from gateway.queue import commands, keys

usage = Blueprint("usage", __name__)

CANCEL_SECONDS = 3  # in which a worker notices that a call was cancelled
MAX_WAIT_SECONDS = 60
MAX_EVENTS = 2**31
EVENT_NUMBER = re.compile(r"\d{1,10}", re.ASCII)
GENERATIONS, MAX_GENERATIONS = 20, 100  # of a page: by default, and at most
STATUSES = ("completed", "failed", "cancelled", "lost")
LIST_PARAMETERS = ("start_time", "end_time", "model", "status", "api_key_id", "owner", "limit")
# What the bodies of responses put before a call's id.
BODY_ID = re.compile(r"(?:chatcmpl-|msg_|resp_)(?=[0-9a-f]{32}$)")


@usage.get("/generations/<generation_id>")
@reader
def get_generation(key: KeyRecord, generation_id: str) -> Response:
    """Return one call, also while it waits or runs; raises NotFound for a call of another key.

    With a log, the response is there as well once it has ended; `wait` is how long to wait for
    that, in seconds.
    """
    read.refuse_unknown(request.args, ("wait",))
    seconds = read.number(request.args, "wait", 0, MAX_WAIT_SECONDS, least=0)
    call_id = BODY_ID.sub("", generation_id)
    logged = _logged(key, call_id)
    if logged is not None and seconds:
        logged_calls.wait(logged, seconds)
    return _generation(key, generation_id, logged)


@usage.get("/generations/<generation_id>/stream")
@keyed
def stream_generation(key: KeyRecord, generation_id: str) -> Response:
    """Return the events of a call that has a log: from the first one, or after a number."""
    read.refuse_unknown(request.args, ("starting_after",))
    logged = _logged(key, BODY_ID.sub("", generation_id))
    if logged is None or not logged.stream:
        raise _not_found(generation_id)
    return logged_calls.stream(logged, _last_event(logged.rendering.call_id))


@usage.post("/generations/<generation_id>/cancel")
@keyed
def cancel_generation(key: KeyRecord, generation_id: str) -> Response:
    """Stop a call, and return it. One that has ended stays as it is."""
    call_id = BODY_ID.sub("", generation_id)
    record = find_record(call_id)
    if record is None or record.key_id != key.public_id:
        raise _not_found(generation_id)
    if record.status in (running.QUEUED, running.RUNNING):
        commands.cancel(services().broker.redis, call_id)
    logged = _logged(key, call_id)
    if logged is not None:
        logged_calls.wait(logged, CANCEL_SECONDS)
    return _generation(key, generation_id, logged)


@usage.get("/generation")
@reader
def get_generation_by_id(key: KeyRecord) -> Response:
    """Return one call, at OpenRouter's address."""
    read.refuse_unknown(request.args, ("id",))
    generation_id = read.text(request.args, "id", read.ID)
    if generation_id is None:
        raise invalid("missing", "id")
    return _generation(key, generation_id, _logged(key, BODY_ID.sub("", generation_id)))


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
    return json_response(page_of(data, page.has_more))


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
    return json_response(reports.page(selected, buckets))


def _seen_by(key: KeyRecord, api_key_ids: tuple[str, ...], name: str) -> tuple[str, ...]:
    """The keys whose calls count: those of the query, or for an ordinary key its own.

    Raises PermissionDenied if an ordinary key names another.
    """
    if key.operator:
        return api_key_ids
    if set(api_key_ids) - {key.public_id}:
        raise PermissionDenied("Only an operator key sees the calls of other keys.", param=name)
    return (key.public_id,)


def _generation(key: KeyRecord, generation_id: str, logged: LoggedCall | None) -> Response:
    record = find_record(BODY_ID.sub("", generation_id))
    if record is None or not (key.operator or record.key_id == key.public_id):
        raise _not_found(generation_id)
    data = generation(record)
    if logged is not None:
        data |= logged_calls.result(logged, record.status)
    return json_response({"data": data})


def _not_found(generation_id: str) -> NotFound:
    return NotFound(
        f"Generation with id '{generation_id[:64]}' not found.",
        param="id",
        code="generation_not_found",
    )


def _logged(key: KeyRecord, call_id: str) -> LoggedCall | None:
    """The call if it has a log and is of this key. An operator does not see what others wrote."""
    logged = logged_calls.find(call_id)
    return logged if logged is not None and logged.key == key.public_id else None


def _last_event(call_id: str) -> int:
    """The number of the last event that the client has; -1: it has none."""
    after = read.number(request.args, "starting_after", -1, MAX_EVENTS, least=0)
    last = request.headers.get("Last-Event-ID")
    if last is None:
        return after
    name, _, number = last.strip().rpartition(":")
    if name != call_id or not EVENT_NUMBER.fullmatch(number):
        raise InvalidRequest(
            "Invalid Last-Event-ID header: not the id of an event of this call.",
            param="Last-Event-ID",
            code="invalid_value",
        )
    return int(number)


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
        raise account_unavailable(
            "The account is behind: the record of this call may not be written yet."
        )
    return record
