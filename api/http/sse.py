"""The framing of server-sent events: the only place that knows what they look like on the wire.

Source: html.spec.whatwg.org, "Server-sent events".
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import orjson

# An unnamed event is DATA, one line, END. Renderers of many tokens join the three themselves, which
# saves a call and a copy for each.
DATA = b"data: "
END = b"\n\n"

DONE = DATA + b"[DONE]" + END  # OpenAI's last event of a chat completion
COMMENT = b": keep-alive" + END  # clients ignore it


def event(data: bytes, name: str = "") -> bytes:
    """One event; `data` is JSON on one line. An event without a name has no `event` field."""
    head = b"event: " + name.encode() + b"\n" if name else b""
    return head + DATA + data + END


def typed_events(objects: Iterable[Mapping[str, Any]]) -> bytes:
    """One event for each object, named after the object's `type`."""
    return b"".join(
        b"event: " + each["type"].encode() + b"\ndata: " + orjson.dumps(each) + b"\n\n"
        for each in objects
    )
