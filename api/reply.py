"""Sends one call's result to the client, whole or as server-sent events, in any API's format."""

from __future__ import annotations

import logging
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping
from typing import Any, ClassVar

from flask import Response
from gevent.socket import socket as Socket

from api.http import sse
from api.http.application import FinalResponse
from api.http.disconnect import DisconnectWatcher
from gateway.broker.broker import Broker
from gateway.broker.pending_call import PendingCall
from gateway.errors import GatewayError
from gateway.logs import log_fault
from gateway.queue.protocol import decode_head
from gateway.stalls import give_turn

log = logging.getLogger(__name__)

WATCH_SECONDS = 0.2  # at least, until a waiting client is watched: most calls are faster
HEADERS_SECONDS = 5.0  # of silence before a stream's headers go out
COMMENT_SECONDS = 15.0  # of silence between two comments: Heroku's router allows 55
WORKERS_SECONDS = 1.0  # between two looks for workers before a response begins
BLANK_SECONDS = 15.0  # of silence between two blanks before an unstreamed reply


RENDERERS: dict[str, type[Renderer]] = {}


class Renderer(ABC):
    """What the result of one call looks like in one API. Each call has its own renderer.

    Workers send results as JSON (see gateway/chat.py). An API whose calls are never streamed
    implements the first two methods only. `api` is the name under which RENDERERS has the class:
    its objects are made from the call's id, the model's name, `created`, `prompt_tokens` and
    options, and then depend on nothing else. With `full_names` the model's name is the one in the
    request, or the id of the substitute that answers; otherwise it is the provider's.
    """

    api: ClassVar[str] = ""
    full_names: ClassVar[bool] = False
    completed_at = 0  # Unix seconds, before the last method is called; 0: now

    def __init_subclass__(cls) -> None:
        if cls.api:
            RENDERERS[cls.api] = cls

    @abstractmethod
    def whole(self, result: bytes) -> bytes:
        """The body of an unstreamed response."""

    @abstractmethod
    def whole_error(self, error: GatewayError) -> bytes:
        """The body of an error whose status has been sent already."""

    def queued(self) -> bytes:
        """The body for a caller that does not wait, if the API has one for it."""
        raise NotImplementedError

    def first(self) -> bytes:
        """The events of a stream that begins before its result does, if the API has such events.

        They are the same whatever target answers: `events` then goes on in another renderer of the
        call, whose `first` was called as well.
        """
        raise NotImplementedError

    def events(self, payload: bytes) -> bytes:
        """The events of one payload of a stream: lines of JSON, one for each chunk."""
        raise NotImplementedError

    def end(self) -> bytes:
        """The last events of a stream that ended well."""
        raise NotImplementedError

    def error(self, error: GatewayError) -> bytes:
        """The last events of a stream that failed after it began."""
        raise NotImplementedError


class Reply:
    """Waits for one call's result and sends it to the client, who may leave at any moment.

    `make(route)` returns the renderer, once it is known which target answers. `route` is that of
    the target that answered ("": not known yet, or the first), and `dropped` names the parameters
    that this target was not sent.
    """

    def __init__(
        self,
        broker: Broker,
        pending: PendingCall,
        make: Callable[[str], Renderer],
        environ: Mapping[str, Any],
    ) -> None:
        self.route, self.dropped = "", list[str]()
        self._broker, self._call, self._make = broker, pending, make
        self._rendering: Renderer | None = None
        connection: Any = environ.get("gunicorn.socket")
        # The system's socket, which never blocks, where gunicorn sends a stream in chunks over it.
        self._socket: Any = None
        if type(connection) is Socket and environ.get("SERVER_PROTOCOL") == "HTTP/1.1":
            self._socket = connection._sock
        self._connection = connection
        self._watcher: DisconnectWatcher | None = None
        self._unsent = b""  # the rest of the first payload that waits
        self._first: bytes | None = None  # what is sent before the result begins

    def whole(self, heartbeat: float) -> Response:
        """The unstreamed response; after `heartbeat` seconds (0: never) it begins with blanks.

        Raises the GatewayError of a call that fails before.
        """
        try:
            arrived = self._wait(heartbeat or None) or self._wait_for_workers()
            body = self._body() if arrived else b""
        except BaseException:
            self._close()
            raise
        if not arrived:
            response = Response(self._blanks_then_body(), content_type="application/json")
            response.call_on_close(self._close)
            return response
        self._close()
        return FinalResponse(body, content_type="application/json")

    def streamed(self, at_once: bool = False) -> Response:
        """The response as server-sent events.

        Raises the GatewayError of a call that fails before the first one. With `at_once` that comes
        as soon as the call is queued.
        """
        payloads: list[bytes] = []
        try:
            if at_once:
                self._call.until_accepted()
            else:
                self._wait(HEADERS_SECONDS) or self._wait_for_workers()
                payloads = self._parts()
            # Its result may be here before the reply of the queue that it is accepted.
            queued = self._call.submitted or self._call.claim
            outcome, begins = self._call.outcome, at_once and queued
            if outcome is not None and outcome.error is not None and not (payloads or begins):
                raise outcome.error
            if at_once:
                self._first = self._make("").first()
        except BaseException:
            self._close()
            raise
        self._watch()
        response = Response(self._events(payloads), content_type="text/event-stream")
        response.headers["Cache-Control"] = "no-cache"
        response.headers["X-Accel-Buffering"] = "no"  # nginx would hold events back
        # Not a `finally` in the generator, which does not run if the generator never started.
        response.call_on_close(self._close)
        return response

    def _renderer(self) -> Renderer:
        if self._rendering is None:
            self._rendering = self._make(self.route)
            if self._first is not None:
                self._rendering.first()
        self._rendering.completed_at = self._call.ended_at
        return self._rendering

    def _parts(self) -> list[bytes]:
        payloads = self._call.parts()
        if payloads and self._rendering is None:
            self._call.first_sent = time.monotonic()
            self.route, self.dropped, payloads[0] = decode_head(payloads[0])
            self._renderer()
        return payloads

    def _wait(self, seconds: float | None) -> bool:
        """Wait for something to send; watch the client only once it has waited for a moment."""
        began = time.monotonic()
        if self._call.wait_nudged(WATCH_SECONDS):
            return True
        self._watch()
        return self._call.wait(seconds and max(began + seconds - time.monotonic(), 0.0))

    def _wait_for_workers(self) -> bool:
        """Wait while no worker could start the call; return whether there is something to send.

        A response that has begun has the status 200, whatever becomes of the call.
        """
        while not self._call.worker and not self._broker.has_workers():
            if self._call.wait(WORKERS_SECONDS):
                return True
        return False

    def _watch(self) -> None:
        if self._watcher is None:
            broker, pending = self._broker, self._call
            self._watcher = DisconnectWatcher(self._connection, lambda: broker.abandon(pending))

    def _body(self) -> bytes:
        """The body of the unstreamed response; raises the error of a call that has failed.

        Leave the call after this, not before. Until it is left, its worker reads no other large
        response, so this process holds few of them.
        """
        outcome = self._call.outcome
        assert outcome is not None
        self.route = outcome.route
        if outcome.error is not None:
            raise outcome.error
        self.dropped = outcome.dropped
        give_turn(len(outcome.answer))
        return self._renderer().whole(outcome.answer)

    def _blanks_then_body(self) -> Iterator[bytes]:
        # Blanks are legal before JSON. The status has been sent, so a failure becomes an error
        # object with status 200: clients would repeat a call whose response breaks off.
        yield b" "
        while not self._call.wait(BLANK_SECONDS):
            yield b" "
        try:
            body = self._body()
        except Exception as fault:
            error = fault if isinstance(fault, GatewayError) else self._internal_error(fault)
            body = self._renderer().whole_error(self._named(error))
        self._close()
        yield body

    def _events(self, payloads: list[bytes]) -> Iterator[bytes]:
        if self._first:
            yield self._first
        elif not payloads and self._call.outcome is None:
            yield sse.COMMENT
        payloads = payloads or self._parts()  # a call that has ended by now has more
        while True:
            if payloads:
                try:
                    events = b"".join(map(self._renderer().events, payloads))
                except Exception as fault:
                    # A stream that just stops looks complete to many clients.
                    yield self._renderer().error(self._named(self._internal_error(fault)))
                    return
                yield events
            elif self._call.outcome is not None:
                break
            elif not self._call.wait_nudged(COMMENT_SECONDS, self._send_at_once):
                yield sse.COMMENT
            sent = bool(self._unsent)
            if sent:  # the payload counts as held until its rest is sent
                self._connection.sendall(self._unsent)
                self._unsent = b""
            payloads = self._parts()[sent:] or self._parts()
        yield self._last_events(self._call.outcome.error)

    def _send_at_once(self, payload: bytes) -> bool:
        """Send a payload's events from the greenlet that has read it; return whether all are sent.

        To wake the request, and to pass its events through werkzeug and gunicorn, took 45 % of the
        web process' CPU for a token: 17 % of that of all processes. The head of the response has
        been sent: what follows is a chunk. What is left of one goes out before the request's own.
        """
        if self._socket is None or self._rendering is None:
            return False
        try:
            events = self._rendering.events(payload)
        except Exception:
            return False  # `_events` reports it
        if not events:
            return True
        chunk = b"%X\r\n%b\r\n" % (len(events), events)
        try:
            sent = self._socket.send(chunk)
        except OSError:
            sent = 0
        self._unsent = chunk[sent:]
        return not self._unsent

    def _last_events(self, error: GatewayError | None) -> bytes:
        renderer = self._renderer()
        try:
            return renderer.end() if error is None else renderer.error(self._named(error))
        except Exception as fault:
            return renderer.error(self._named(self._internal_error(fault)))

    def _named(self, error: GatewayError) -> GatewayError:
        """The error with the id of the request, which goes into its body."""
        error.request_id = self._call.account.get("request_id", "")
        return error

    def _internal_error(self, fault: Exception) -> GatewayError:
        """The error for an exception of a renderer, whose text may quote the result."""
        log_fault(log, fault, "reply to call %s", self._call.call_id)
        self._call.fault = GatewayError(should_retry=False)
        return self._call.fault

    def _close(self) -> None:
        if self._watcher is not None:
            self._watcher.stop()
        self._broker.leave(self._call)
