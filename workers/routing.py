"""Which attempts a call gets: retries of what cannot have been acted on, and nothing else.

Reads three things of an error, `retryable`, `retry_after` and `should_retry`, never a status.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial

import orjson

from gateway.chat import ChatCall, Part
from gateway.errors import GatewayError
from providers.wire import Provider

BACKOFF_SECONDS = 0.5  # before the first retry; doubles, with jitter


@dataclass(slots=True)
class Attempts:
    """The attempts of one call: how many may be made, and how many were.

    `deadline` is on the monotonic clock; no attempt is waited for past it.
    """

    allowed: int
    deadline: float
    made: int = 0
    sleep: Callable[[float], None] = time.sleep
    seen: bool = False  # may a provider have seen one of them?

    def complete(self, provider: Provider, call: ChatCall) -> Part:
        """The whole answer; raises the last attempt's GatewayError."""
        return self._first_answer(partial(provider.complete, call))

    def embed(self, provider: Provider, call: ChatCall) -> Part:
        """The embeddings; raises the last attempt's GatewayError."""
        return self._first_answer(partial(provider.embed, call.model, call.parameters))

    def _first_answer(self, ask: Callable[[], Part]) -> Part:
        while True:
            self.made += 1
            try:
                return ask()
            except GatewayError as error:
                self._wait_or_raise(error)

    def stream(self, provider: Provider, call: ChatCall) -> Iterator[list[Part]]:
        """The parts as they arrive. Nothing is tried again once a part has been passed on."""
        while True:
            self.made += 1
            started = False
            try:
                for parts in provider.stream(call):
                    started = True
                    yield parts
                return
            except GatewayError as error:
                if started:
                    raise
                self._wait_or_raise(error)

    def _wait_or_raise(self, error: GatewayError) -> None:
        """Wait before the next attempt, or raise where there is none."""
        if self.seen and error.should_retry:
            # True of this attempt, but the caller would repeat them all.
            error.should_retry = False
        self.seen = self.seen or not error.should_retry
        backoff = BACKOFF_SECONDS * 2 ** (self.made - 1) * random.uniform(0.5, 1)
        pause = max(backoff, error.retry_after or 0)
        late = time.monotonic() + pause >= self.deadline
        if not error.retryable or self.made >= self.allowed or late:
            raise error
        self.sleep(pause)


def lines(parts: list[Part]) -> bytes:
    """Parts as they travel: one line of JSON each."""
    return b"\n".join(map(orjson.dumps, parts))
