"""Server-sent events for the console's pages that keep themselves up to date."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator

import gevent
from flask import Response, g, stream_with_context
from redis.exceptions import RedisError

from api.console import session
from api.http import sse
from api.services import services
from gateway.account.ledger import LedgerUnavailable
from gateway.errors import Overloaded

LONGEST = 600.0  # seconds of one response; browsers come back, and are signed in or not
CHECK_SECONDS = 15.0  # between two looks at the session; a comment is sent then
RETRY_SECONDS = 5


def stream(look: Callable[[], bytes | None], every: float) -> Response:
    """A response with an event whenever `look`, which is called every so many seconds, returns one.

    It ends when the session does or the process drains. Raises Overloaded if the key has too many.
    """
    key, readers = g.public_id, services().readers
    if not readers.take(key):
        raise Overloaded(retry_after=RETRY_SECONDS)
    response = Response(stream_with_context(_events(look, every)), mimetype="text/event-stream")
    response.call_on_close(lambda: readers.give_back(key))
    response.headers["Cache-Control"] = "no-store"
    response.headers["X-Accel-Buffering"] = "no"
    return response


def _events(look: Callable[[], bytes | None], every: float) -> Iterator[bytes]:
    broker = services().broker
    end = time.monotonic() + LONGEST
    checked = time.monotonic()
    yield sse.COMMENT
    while not broker.draining and time.monotonic() < end:
        try:
            event = look()
        except (RedisError, LedgerUnavailable):
            event = sse.event(b"{}", "unavailable")
        if time.monotonic() - checked > CHECK_SECONDS:
            checked = time.monotonic()
            if session.current() is None:
                return
            event = event or sse.COMMENT
        if event is not None:
            yield event
        gevent.sleep(every)
