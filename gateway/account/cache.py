"""The exact cache: which responses are kept, under which names, and in which form.

Nothing is kept unless the caller, or the key's default, wants it. Names are HMACs, so that nobody
who reads Redis' keys learns or guesses a prompt.
"""

from __future__ import annotations

import hashlib
import hmac
import re
from collections.abc import Sequence
from dataclasses import dataclass, field

import orjson

from gateway.errors import InvalidRequest

DEFAULT_SECONDS = 300  # an entry lives where neither caller nor key says how long
MAX_SECONDS = 86_400
ENTRY_BYTES = 1_000_000  # longer responses are not kept
VERSION = 1  # of an entry's form

HEADER = "X-Cache"
OPTIONS = re.compile(r"(on|off)(?:\s*[;,]\s*ttl=(\d{1,9}))?", re.ASCII | re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Entry:
    """A response that is kept: what the worker sent, and what the call cost in 1e-9 USD.

    `payload` is the whole response, or the chunks of a stream, as lines. `dropped` names the
    parameters that the model was not sent.
    """

    payload: bytes
    nano: int = 0
    dropped: list[str] = field(default_factory=list)

    def encode(self) -> bytes:
        """The value in Redis."""
        head = {"v": VERSION, "nano": self.nano, "dropped": self.dropped}
        return b"%b\n%b" % (orjson.dumps(head), self.payload)

    @staticmethod
    def decode(value: bytes) -> Entry | None:
        """The entry; None for one of another release."""
        line, _, payload = value.partition(b"\n")
        try:
            head = orjson.loads(line)
            if head["v"] != VERSION:
                return None
            return Entry(payload, int(head["nano"]), list(head["dropped"]))
        except (ValueError, KeyError, TypeError):
            return None


def seconds(header: str | None, default: int | None) -> int:
    """Return how long the response to a request may be kept; 0: neither kept nor looked for.

    `header` is that of the request: "on" or "off", and maybe "; ttl=60". `default` is the key's.
    Raises InvalidRequest.
    """
    if header is None:
        return min(default or 0, MAX_SECONDS)
    match = OPTIONS.fullmatch(header.strip())
    if match is None:
        raise InvalidRequest(
            "Invalid X-Cache header: expected 'on', 'on; ttl=SECONDS' or 'off'.",
            param=HEADER,
            code="invalid_value",
        )
    if match[1].lower() == "off":
        return 0
    return min(int(match[2]) if match[2] else default or DEFAULT_SECONDS, MAX_SECONDS)


def name(pepper: str, scope: str, request: Sequence[object], body: bytes) -> str:
    """Return the name of the response to a request: the same for the same request alone.

    `scope` is the key, or the owner whose keys share responses. `request` is what the response
    depends on besides `body`, as JSON values.
    """
    text = b"cache\0%b\n%b" % (orjson.dumps([scope, *request]), body)
    return hmac.new(pepper.encode(), text, hashlib.sha256).hexdigest()


def without_cost(payload: bytes) -> bytes:
    """Return the payload of a response that is used again: a cost in its usage becomes 0."""
    return b"\n".join(
        _without_cost(line) if b'"cost":' in line and line.startswith(b"{") else line
        for line in payload.split(b"\n")
    )


def _without_cost(line: bytes) -> bytes:
    response = orjson.loads(line)
    usage = response.get("usage") or {}
    if "cost" in usage:
        usage["cost"] = 0
        usage.pop("cost_details", None)
    return orjson.dumps(response)
