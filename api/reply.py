"""One call's answer on its way to the client, in whatever dialect: whole, or as events."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Protocol, cast

from flask import Response

from api.http.disconnect import DisconnectWatcher
from gateway.broker.broker import Broker
from gateway.broker.pending_call import PendingCall
from gateway.errors import GatewayError
from gateway.logs import where
from gateway.queue.protocol import Target, answerer

log = logging.getLogger(__name__)

WATCH_SECONDS = 0.2  # before a waiting client's connection is watched: most answers are faster
HEADERS_SECONDS = 5.0  # of silence before a stream's headers go out
COMMENT_SECONDS = 15.0  # of silence between two comments: Heroku's router allows 55
BLANK_SECONDS = 15.0  # of silence between two blanks before an unstreamed reply

COMMENT = b": keep-alive\n\n"


class Renderer(Protocol):
    """What one whole answer looks like to the client: made for one call, used once.

    A worker sends it as JSON (see gateway/chat.py).
    """

    def whole(self, answer: bytes) -> bytes:
        """The body of an unstreamed answer."""
        ...

    def whole_error(self, error: GatewayError) -> bytes:
        """The body of an error, where the status is spent."""
        ...


class StreamRenderer(Renderer, Protocol):
    """A renderer of calls that may be streamed as well: their parts come as lines of JSON."""

    def events(self, payload: bytes) -> bytes:
        """The events of one payload of a stream: none, one or many."""
        ...

    def end(self) -> bytes:
        """The last events of a stream that ended well."""
        ...

    def error(self, error: GatewayError) -> bytes:
        """The last events of a stream that failed after it began."""
        ...


class Reply:
    """Waits for one call's answer and gives it to the client, who may leave at any moment.

    `make(model)` makes the renderer, once it is known which model answers: `target` is the one
    that was asked first, and `route` who has answered ("": not known yet, or that one). Only who
    makes a StreamRenderer may ask for `streamed`.
    """

    def __init__(
        self,
        broker: Broker,
        pending: PendingCall,
        make: Callable[[str], Renderer],
        target: Target,
        environ: Mapping[str, Any],
    ) -> None:
        self.route = ""
        self._broker, self._call, self._make, self._target = broker, pending, make, target
        self._rendering: Renderer | None = None
        self._connection = environ.get("gunicorn.socket")
        self._watcher: DisconnectWatcher | None = None

    def whole(self, heartbeat: float) -> Response:
        """The unstreamed answer; after `heartbeat` seconds (0: never) it begins with blanks."""
        try:
            arrived = self._wait(heartbeat or None)
        except BaseException:
            self._close()
            raise
        if not arrived:
            response = Response(self._blanks_then_answer(), content_type="application/json")
            response.call_on_close(self._close)
            return response
        self._close()
        outcome = self._call.outcome
        assert outcome is not None
        if outcome.error is not None:
            raise outcome.error
        self.route = outcome.route
        return Response(self._renderer().whole(outcome.answer), content_type="application/json")

    def streamed(self) -> Response:
        """Server-sent events. A failure before the first one keeps its HTTP status."""
        try:
            self._wait(HEADERS_SECONDS)
            payloads = self._parts()
            outcome = self._call.outcome
            if outcome is not None and outcome.error is not None and not payloads:
                raise outcome.error
        except BaseException:
            self._close()
            raise
        self._watch()
        response = Response(self._events(payloads), content_type="text/event-stream")
        response.headers["Cache-Control"] = "no-cache"
        response.headers["X-Accel-Buffering"] = "no"  # nginx would hold events back
        # Not a `finally` in the generator: one that was never begun would not run it.
        response.call_on_close(self._close)
        return response

    def _renderer(self) -> Renderer:
        if self._rendering is None:
            model = self.route.partition("/")[2] or self._target.upstream_model
            self._rendering = self._make(model)
        return self._rendering

    def _stream_renderer(self) -> StreamRenderer:
        # calls.answer() asks for one. An isinstance() of a protocol would look at every method, for
        # every event.
        return cast("StreamRenderer", self._renderer())

    def _parts(self) -> list[bytes]:
        payloads = self._call.parts()
        if payloads and self._rendering is None:
            self.route, payloads[0] = answerer(payloads[0])
            self._renderer()
        return payloads

    def _wait(self, seconds: float | None) -> bool:
        """Wait for something to send; a client is watched for only once it has to wait itself."""
        if self._call.wait(WATCH_SECONDS):
            return True
        self._watch()
        return self._call.wait(seconds and seconds - WATCH_SECONDS)

    def _watch(self) -> None:
        if self._watcher is None:
            broker, pending = self._broker, self._call
            self._watcher = DisconnectWatcher(self._connection, lambda: broker.abandon(pending))

    def _blanks_then_answer(self) -> Iterator[bytes]:
        # Blanks are legal before JSON. The status is spent: a failure is an error object under 200,
        # since breaking the reply off would make clients send the call again.
        yield b" "
        while not self._call.wait(BLANK_SECONDS):
            yield b" "
        outcome = self._call.outcome
        assert outcome is not None
        error = outcome.error
        self.route = outcome.route
        renderer = self._renderer()
        if error is None:
            try:
                yield renderer.whole(outcome.answer)
                return
            except Exception as fault:
                error = _told(fault)
        yield renderer.whole_error(error)

    def _events(self, payloads: list[bytes]) -> Iterator[bytes]:
        if not payloads and self._call.outcome is None:
            yield COMMENT
        while True:
            if payloads:
                try:
                    events = b"".join(map(self._stream_renderer().events, payloads))
                except Exception as fault:
                    # A stream that just breaks off would look like a whole answer.
                    yield self._stream_renderer().error(_told(fault))
                    return
                yield events
            elif self._call.outcome is not None:
                break
            elif not self._call.wait_nudged(COMMENT_SECONDS):
                yield COMMENT
            payloads = self._parts()
        yield self._last_events(self._call.outcome.error)

    def _last_events(self, error: GatewayError | None) -> bytes:
        renderer = self._stream_renderer()
        try:
            return renderer.end() if error is None else renderer.error(error)
        except Exception as fault:
            return renderer.error(_told(fault))

    def _close(self) -> None:
        if self._watcher is not None:
            self._watcher.stop()
        self._broker.leave(self._call)


def _told(fault: Exception) -> GatewayError:
    """The error for a fault of a renderer. Its text may quote the answer, which no log may have."""
    log.error("reply: %s at %s", type(fault).__name__, where(fault))
    return GatewayError(should_retry=False)
