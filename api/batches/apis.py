"""What differs between batches of OpenAI's API and of Anthropic's: the lines of their results."""

from __future__ import annotations

import uuid
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import orjson

from api.http.line import LineReply

OUTPUT, ERROR = "output", "error"  # the two files that a batch may write

# Why a line did not run -> OpenAI's message.
UNFINISHED = {
    "expired": "This request could not be executed before the completion window expired.",
    "cancelled": "This request could not be executed before the batch was cancelled.",
}


@dataclass(frozen=True, slots=True)
class BatchApi:
    """One API of batches.

    `prefix` begins its ids. `result(custom_id, reply)` returns the file that a result belongs to,
    and its line. `unfinished(custom_id, reason)` returns the line, in the file `unfinished_kind`,
    of a request that did not run. `purpose` is that of the files that a batch writes, and
    `files_listed` whether they are listed with the other files of the key.
    """

    name: str
    prefix: str
    result: Callable[[str, LineReply], tuple[str, bytes]]
    unfinished: Callable[[str, str], bytes]
    unfinished_kind: str
    purpose: str
    files_listed: bool


def _openai(custom_id: str, reply: LineReply) -> tuple[str, bytes]:
    response = {
        "status_code": reply.status,
        "request_id": reply.headers.get("x-request-id", ""),
        "body": orjson.Fragment(reply.body.strip()),
    }
    return OUTPUT if reply.status == 200 else ERROR, _openai_line(custom_id, response, None)


def _openai_unfinished(custom_id: str, reason: str) -> bytes:
    error = {"code": f"batch_{reason}", "message": UNFINISHED[reason]}
    return _openai_line(custom_id, None, error)


def _openai_line(custom_id: str, response: Any, error: Any) -> bytes:
    line = {
        "id": f"batch_req_{uuid.uuid4().hex}",
        "custom_id": custom_id,
        "response": response,
        "error": error,
    }
    return orjson.dumps(line, option=orjson.OPT_APPEND_NEWLINE)


def _anthropic(custom_id: str, reply: LineReply) -> tuple[str, bytes]:
    kind, name = ("succeeded", "message") if reply.status == 200 else ("errored", "error")
    result = {"type": kind, name: orjson.Fragment(reply.body.strip())}
    return OUTPUT, _anthropic_line(custom_id, result)


def _anthropic_unfinished(custom_id: str, reason: str) -> bytes:
    return _anthropic_line(custom_id, {"type": reason.replace("cancelled", "canceled")})


def _anthropic_line(custom_id: str, result: Any) -> bytes:
    line = {"custom_id": custom_id, "result": result}
    return orjson.dumps(line, option=orjson.OPT_APPEND_NEWLINE)


OPENAI = BatchApi("openai", "batch_", _openai, _openai_unfinished, ERROR, "batch_output", True)
ANTHROPIC = BatchApi(
    "anthropic", "msgbatch_", _anthropic, _anthropic_unfinished, OUTPUT, "message_batch", False
)
APIS = {api.name: api for api in (OPENAI, ANTHROPIC)}
