"""Which attempts a call gets at one route: retries of what cannot have been acted on, no others.

Reads two things of an error, `retryable` and `retry_after`, never a status. Who is asked next is
the course's to say: see `workers.course`.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from math import inf

import gevent
import orjson

from gateway.chat import ChatCall, Part
from gateway.errors import GatewayError, UpstreamTimeout
from providers.wire import Provider

BACKOFF_SECONDS = 0.5  # before the first retry; doubles, with jitter


def _nobody_wants_to_know(error: GatewayError) -> None:
    pass


@dataclass(slots=True)
class Attempts:
    """The attempts of one call at one route: how many may be made, and how many were.

    `deadline` is on the monotonic clock; no attempt is waited for past it, nor longer than
    `longest_pause` seconds. A stream that has said nothing after `first_token` seconds is given up.
    `failed` is told of every attempt's error.
    """

    allowed: int
    deadline: float
    made: int = 0
    sleep: Callable[[float], None] = time.sleep
    first_token: float | None = None
    longest_pause: float = inf
    failed: Callable[[GatewayError], None] = _nobody_wants_to_know
    asking: bool = False  # False before the first attempt and while waiting for the next

    def complete(self, provider: Provider, call: ChatCall) -> Part:
        """The whole answer; raises the last attempt's GatewayError."""
        return self._first_answer(partial(provider.complete, call))

    def embed(self, provider: Provider, call: ChatCall) -> Part:
        """The embeddings; raises the last attempt's GatewayError."""
        return self._first_answer(partial(provider.embed, call.model, call.parameters))

    def _first_answer(self, ask: Callable[[], Part]) -> Part:
        while True:
            self._begin()
            try:
                return ask()
            except GatewayError as error:
                self._wait_or_raise(error)

    def stream(self, provider: Provider, call: ChatCall) -> Iterator[list[Part]]:
        """The parts as they arrive, from the first that says something on.

        What comes before it (a role, a filter's verdict) is kept back until then, so that an
        attempt that says nothing leaves no trace. Nothing is tried again after that.
        """
        while True:
            self._begin()
            said = False
            opening: list[Part] = []
            timer = gevent.Timeout.start_new(self.first_token)
            try:
                for parts in provider.stream(call):
                    if not said:
                        opening += parts
                        if not any(map(says_something, parts)):
                            continue
                        said, parts = True, opening
                        timer.close()
                    yield parts
                if not said and opening:
                    timer.close()
                    said = True
                    yield opening
                return
            except gevent.Timeout as timeout:
                if timeout is not timer:
                    raise
                silent = UpstreamTimeout("The provider's answer did not begin in time.")
                self._wait_or_raise(silent)
            except GatewayError as error:
                if said:
                    self.failed(error)
                    raise
                timer.close()  # the pause is not the provider's
                self._wait_or_raise(error)
            finally:
                if not said:
                    timer.close()

    def _begin(self) -> None:
        self.made += 1
        self.asking = True

    def _wait_or_raise(self, error: GatewayError) -> None:
        """Wait before the next attempt, or raise where there is none."""
        self.asking = False
        self.failed(error)
        backoff = BACKOFF_SECONDS * 2 ** (self.made - 1) * random.uniform(0.5, 1)
        pause = max(backoff, error.retry_after or 0)
        late = time.monotonic() + pause >= self.deadline or pause > self.longest_pause
        if not error.retryable or self.made >= self.allowed or late:
            raise error
        self.sleep(pause)


def says_something(part: Part) -> bool:
    """Whether a part of a stream holds more than its opening: a token, a call, an end."""
    for choice in part["choices"]:
        delta = choice.get("delta") or {}
        if delta.get("content") or choice.get("finish_reason"):  # nearly always
            return True
        if any(value for name, value in delta.items() if name != "role"):
            return True
    return False


def lines(parts: list[Part]) -> bytes:
    """Parts as they travel: one line of JSON each."""
    return b"\n".join(map(orjson.dumps, parts))
