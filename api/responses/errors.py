"""Errors in the terms of OpenAI's Responses API."""

from __future__ import annotations

import re
from typing import Any

from flask import Response

from api.http import errors
from api.responses.response import OWN_NAMES
from gateway.errors import GatewayError

FIRST_NAME = re.compile(r"\w+", re.ASCII)


def render(error: GatewayError) -> Response:
    """The error as OpenAI sends it, with the names of a Responses request."""
    return errors.openai(renamed(error))


def body(error: GatewayError) -> bytes:
    """The error in OpenAI's envelope, as JSON, with the names of a Responses request."""
    return errors.body(renamed(error))


def renamed(error: GatewayError) -> GatewayError:
    """The error with the names of the caller's request in place of chat's.

    A path into the chat messages becomes `input`: the item it came from is no longer known.
    """
    first = FIRST_NAME.match(error.param or "")
    if error.param is None or first is None or first[0] not in OWN_NAMES:
        return error
    param = OWN_NAMES[first[0]]
    if first[0] != "messages":
        param += error.param[first.end() :]
    message = error.message.replace(f"'{error.param}'", f"'{param}'")
    renamed = GatewayError.from_dict({**error.to_dict(), "param": param, "message": message})
    renamed.request_id = error.request_id
    return renamed


def failure(error: GatewayError) -> dict[str, Any]:
    """The `error` of a failed response; OpenAI has only a few codes for it."""
    code = "server_error"
    if error.status == 429:
        code = "rate_limit_exceeded"
    elif error.status < 500:
        code = "invalid_prompt"
    return {"code": code, "message": error.message}
