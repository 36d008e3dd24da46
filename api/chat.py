"""POST /chat/completions."""

from __future__ import annotations

import math
import re
import uuid
from collections.abc import Iterator, Mapping
from typing import Any

import orjson
from flask import Blueprint, Response, current_app, request
from werkzeug.datastructures import Headers

from api import errors
from api.auth import keyed
from api.body import read_json
from api.completion import COMMENT, Frames, Identity, whole
from api.disconnect import DisconnectWatcher
from api.exchange import Exchange
from api.waiter import Waiter
from gateway import policy, validation
from gateway.catalogue import Catalogue
from gateway.channel import Plan
from gateway.keys import KeyRecord
from gateway.settings import Settings

chat = Blueprint("chat", __name__)

WATCH_SECONDS = 0.2  # before a waiting client's connection is watched: most answers are faster
HEADERS_SECONDS = 5.0  # of silence before a stream's headers go out
COMMENT_SECONDS = 15.0  # of silence between two comments: Heroku's router allows 55
BLANK_SECONDS = 15.0  # of silence between two blanks before an unstreamed reply
IGNORED_NAMES = 20
# gunicorn answers 500 to a header with bytes that it refuses: only names like this go into one.
IGNORED_NAME = re.compile(r"[\w.-]{1,64}", re.ASCII)


@chat.post("/chat/completions")
@keyed
def create(key: KeyRecord) -> Response:
    """Answer a chat completion, whole or as server-sent events."""
    settings: Settings = current_app.extensions["settings"]
    catalogue: Catalogue = current_app.extensions["catalogue"]
    exchange: Exchange = current_app.extensions["exchange"]

    data = read_json(request.environ, settings.max_body_bytes, settings.body_timeout)
    model = validation.model_name(data)
    route = catalogue.route(model)
    asked = validation.chat_request(data, route.provider.extra_parameters)
    parameters, dropped = policy.apply(route.model.parameters, asked.parameters)
    plan = Plan(
        call_id=uuid.uuid4().hex,
        web=exchange.web,
        stream=asked.stream,
        model=model,
        provider=route.provider.name,
        upstream_model=route.upstream_model,
        max_output_tokens=route.model.output,
    )
    budget = _budget(request.headers, settings.total_deadline, asked.stream)
    waiter = exchange.submit(plan, orjson.dumps(parameters), key, budget)
    identity = Identity(plan.call_id, plan.upstream_model)
    reply = Reply(exchange, waiter, identity, request.environ)
    if asked.stream:
        response = reply.streamed(asked.include_usage)
    else:
        response = reply.whole(settings.sync_heartbeat)
    ignored = [name for name in (*asked.ignored, *dropped) if IGNORED_NAME.fullmatch(name)]
    if ignored:
        response.headers["X-Ignored-Parameters"] = ", ".join(ignored[:IGNORED_NAMES])
    return response


class Reply:
    """Waits for one call's answer and gives it to the client, who may leave at any moment."""

    def __init__(
        self, exchange: Exchange, waiter: Waiter, identity: Identity, environ: Mapping[str, Any]
    ) -> None:
        self._exchange, self._waiter, self._identity = exchange, waiter, identity
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
        outcome = self._waiter.outcome
        assert outcome is not None
        if outcome.error is not None:
            raise outcome.error
        return Response(whole(self._identity, outcome.answer), content_type="application/json")

    def streamed(self, include_usage: bool) -> Response:
        """Server-sent events. A failure before the first one keeps its HTTP status."""
        try:
            self._wait(HEADERS_SECONDS)
            payloads = self._waiter.parts()
            outcome = self._waiter.outcome
            if outcome is not None and outcome.error is not None and not payloads:
                raise outcome.error
        except BaseException:
            self._close()
            raise
        self._watch()
        frames = Frames(self._identity, include_usage)
        response = Response(self._events(frames, payloads), content_type="text/event-stream")
        response.headers["Cache-Control"] = "no-cache"
        response.headers["X-Accel-Buffering"] = "no"  # nginx would hold events back
        # Not a `finally` in the generator: one that was never begun would not run it.
        response.call_on_close(self._close)
        return response

    def _wait(self, seconds: float | None) -> bool:
        """Wait for something to send; a client is watched for only once it has to wait itself."""
        if self._waiter.wait(WATCH_SECONDS):
            return True
        self._watch()
        return self._waiter.wait(seconds and seconds - WATCH_SECONDS)

    def _watch(self) -> None:
        if self._watcher is None:
            exchange, waiter = self._exchange, self._waiter
            self._watcher = DisconnectWatcher(self._connection, lambda: exchange.abandon(waiter))

    def _blanks_then_answer(self) -> Iterator[bytes]:
        # Blanks are legal before JSON. The status is spent: a failure is an error object under 200,
        # since breaking the reply off would make clients send the call again.
        yield b" "
        while not self._waiter.wait(BLANK_SECONDS):
            yield b" "
        outcome = self._waiter.outcome
        assert outcome is not None
        error = outcome.error
        yield errors.body(error) if error else whole(self._identity, outcome.answer)

    def _events(self, frames: Frames, payloads: list[bytes]) -> Iterator[bytes]:
        if not payloads and self._waiter.outcome is None:
            yield COMMENT
        while True:
            if payloads:
                yield b"".join(map(frames.events, payloads))
            elif self._waiter.outcome is not None:
                break
            elif not self._waiter.wait(COMMENT_SECONDS):
                yield COMMENT
            payloads = self._waiter.parts()
        error = self._waiter.outcome.error
        yield frames.error(error) if error is not None else frames.end()

    def _close(self) -> None:
        if self._watcher is not None:
            self._watcher.stop()
        self._exchange.leave(self._waiter)


def _budget(headers: Headers, longest: float, stream: bool) -> float:
    """Seconds the call may live: the service's deadline, or less where the client waits less.

    `x-stainless-read-timeout` is what OpenAI's clients send. It is the longest silence they bear:
    for an unstreamed answer that is the whole wait, for a stream it is not.
    """
    names = ("X-Request-Timeout",) if stream else ("X-Request-Timeout", "x-stainless-read-timeout")
    for name in names:
        try:
            seconds = float(headers.get(name, ""))
        except ValueError:
            continue
        if math.isfinite(seconds) and seconds > 0:
            return min(seconds, longest)
    return longest
