"""Responses that are kept: those of the background, and those of requests with `store: true`."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import orjson

from api import logged as logged_calls
from api.rendering import LoggedCall
from api.responses.renderer import ResponseRenderer
from api.services import services
from gateway.account import running
from gateway.account.api_keys import KeyRecord
from gateway.errors import InvalidRequest, NotFound
from gateway.queue import commands, event_logs

RESPONSE_ID = re.compile(r"resp_([0-9a-f]{32})", re.ASCII)
CANCEL_SECONDS = 5.0  # to wait until a cancelled call has ended
FINISHED = ("completed", "incomplete")
TEXT = {"assistant": "output_text"}  # role -> type of its text; "input_text" of all others


def find(key: KeyRecord, response_id: str) -> LoggedCall:
    """The call of a response of this key. Raises NotFound, and RedisError."""
    match = RESPONSE_ID.fullmatch(response_id)
    logged = logged_calls.find(match[1]) if match else None
    if logged is None or logged.key != key.public_id or "input" not in logged.extra:
        raise NotFound(
            f"Response with id '{response_id[:64]}' not found. Only responses with 'store' or"
            " 'background' are kept, and not for ever.",
            param="response_id",
            code="response_not_found",
        )
    return logged


def in_background(logged: LoggedCall) -> bool:
    """Whether the response was created with `background`."""
    return bool(_renderer(logged).response["background"])


def response_of(logged: LoggedCall) -> dict[str, Any]:
    """The response object as it is now, with its output once it has ended. Raises RedisError."""
    call_id = logged.rendering.call_id
    ended = logged_calls.outcome(logged)
    if ended is None:
        record = running.find(services().broker.redis, call_id)
        waits = record is not None and record.status == running.QUEUED
        return {**_renderer(logged).response, "status": "queued" if waits else "in_progress"}
    outcome, ended_at = ended
    if logged.stream:
        renderer: Any = logged_calls.read(logged, ended_at)
    elif outcome.error is None:
        body: dict[str, Any] = orjson.loads(logged_calls.whole(logged, outcome, ended_at))
        return body
    else:
        renderer = _renderer(logged, outcome.route)
        renderer.error(outcome.error)
    response: dict[str, Any] = renderer.response
    if logged_calls.status_of(outcome.error) == "cancelled":
        response |= {"status": "cancelled", "error": None}
    return response


def cancel(logged: LoggedCall) -> None:
    """Stop the call, unless it has ended. Raises RedisError."""
    if logged_calls.outcome(logged) is None:
        commands.cancel(services().broker.redis, logged.rendering.call_id)
        logged_calls.wait(logged, CANCEL_SECONDS)


def delete(logged: LoggedCall) -> None:
    """Forget a response; stop its call, unless that has ended. Raises RedisError."""
    cancel(logged)
    event_logs.delete_log(services().broker.redis, logged.key, logged.rendering.call_id)


def conversation(key: KeyRecord, response_id: str) -> list[dict[str, Any]]:
    """The items of the conversation that ends with a response, for the next request.

    Raises InvalidRequest if it is not known or has not ended well, and RedisError.
    """
    try:
        logged = find(key, response_id)
    except NotFound as error:
        raise InvalidRequest(
            f"Previous response with id '{response_id[:64]}' not found. Send 'store': true with a"
            " request whose response is needed later.",
            param="previous_response_id",
            code="previous_response_not_found",
        ) from error
    response = response_of(logged)
    if response["status"] not in FINISHED:
        raise InvalidRequest(
            f"Previous response with id '{response_id}' is {response['status']}.",
            param="previous_response_id",
            code="previous_response_not_completed",
        )
    return [*logged.extra["input"], *response["output"]]


def input_items(logged: LoggedCall) -> list[dict[str, Any]]:
    """The items of the input, the first one first, in OpenAI's form: with ids, text as parts."""
    call_id = logged.rendering.call_id
    return [_shown(item, f"{call_id}_in{n}") for n, item in enumerate(logged.extra["input"])]


def _shown(item: Mapping[str, Any], number: str) -> dict[str, Any]:
    kind = item.get("type") or "message"
    shown = {"id": f"{'msg' if kind == 'message' else 'item'}_{number}", **item, "type": kind}
    if kind == "message" and isinstance(content := item.get("content"), str):
        shown["content"] = [{"type": TEXT.get(item["role"], "input_text"), "text": content}]
    return shown


def _renderer(logged: LoggedCall, route: str = "") -> ResponseRenderer:
    renderer = logged.rendering.renderer(route)
    assert isinstance(renderer, ResponseRenderer)
    return renderer
