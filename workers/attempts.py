"""Which attempts a call gets at one route: retries of what cannot have been acted on, no others.

Reads two things of an error, `retryable` and `retry_after`, never a status. Who is asked next is
the course's to say: see `workers.failover`.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from itertools import chain
from math import inf

import gevent
import orjson

from gateway import memory
from gateway.catalogue.file import ModelRow
from gateway.chat import ChatCall, Chunk, fold, says_something
from gateway.errors import GatewayError, UpstreamTimeout
from providers.base import Provider

BACKOFF_SECONDS = 0.5  # before the first retry; doubles, with jitter
SILENT_SECONDS = 30.0  # a provider of whole answers may be at work for as long as this


def _nobody_wants_to_know(attempts: Attempts, error: GatewayError) -> None:
    pass


@dataclass(slots=True)
class Attempts:
    """The attempts of one call at one route: how many may be made, and how many were.

    Times are on the monotonic clock: no attempt is waited for past `deadline`, none is made after
    `retry_until`, and one that has said nothing by `answer_by`, or a stream that has said nothing
    after `first_token` seconds, is given up. `failed` is told of every attempt's error.
    """

    allowed: int
    deadline: float
    made: int = 0
    sleep: Callable[[float], None] = time.sleep
    first_token: float | None = None
    retry_until: float = inf
    answer_by: float = inf
    counts_after: float = 0.0  # seconds of silence after which a given up attempt is the route's
    failed: Callable[[Attempts, GatewayError], None] = _nobody_wants_to_know
    asking: bool = False  # False before the first attempt and while waiting for the next
    began: float = 0.0  # when the latest attempt did
    gave_up: bool = False  # on the latest, which might have answered later

    def complete(self, provider: Provider, call: ChatCall) -> Chunk:
        """The whole answer; raises the last attempt's GatewayError."""
        if provider.streams_only:
            # Its first byte, a ping perhaps, says nothing: the first token is to be waited for.
            return fold(chain.from_iterable(self.stream(provider, call)))
        return self._first_answer(partial(provider.complete, call))

    def embed(self, provider: Provider, call: ChatCall) -> Chunk:
        """The embeddings; raises the last attempt's GatewayError."""
        return self._first_answer(partial(provider.embed, call.model, call.parameters))

    def telling(self) -> bool:
        """Whether a failure of the latest attempt tells something of the route.

        One that was given up for want of time does only if it had time enough.
        """
        return not self.gave_up or self.age() >= self.counts_after

    def age(self) -> float:
        """Seconds since the latest attempt began."""
        return time.monotonic() - self.began

    def _first_answer(self, ask: Callable[[], Chunk]) -> Chunk:
        while True:
            timer = self._begin(None)
            try:
                return ask()
            except gevent.Timeout as timeout:
                self._wait_or_raise(self._given_up(timeout, timer))
            except GatewayError as error:
                timer.close()  # the pause is not the provider's
                self._wait_or_raise(error)
            finally:
                timer.close()

    def stream(self, provider: Provider, call: ChatCall) -> Iterator[list[Chunk]]:
        """The parts as they arrive, from the first that says something on.

        What comes before it (a role, a filter's verdict) is kept back until then, so that an
        attempt that says nothing leaves no trace. Nothing is tried again after that.
        """
        while True:
            said = False
            opening: list[Chunk] = []
            timer = self._begin(self.first_token)
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
                self._wait_or_raise(self._given_up(timeout, timer))
            except GatewayError as error:
                if said:
                    self.failed(self, error)
                    raise
                timer.close()
                self._wait_or_raise(error)
            finally:
                if not said:
                    timer.close()

    def _begin(self, patience: float | None) -> gevent.Timeout:
        self.made += 1
        self.asking, self.gave_up = True, False
        self.began = time.monotonic()
        if self.answer_by != inf:
            left = max(self.answer_by - self.began, 0.001)
            patience = left if patience is None else min(patience, left)
        return gevent.Timeout.start_new(patience)

    def _given_up(self, timeout: gevent.Timeout, timer: gevent.Timeout) -> GatewayError:
        """The failure of an attempt whose time is over; somebody else's timeout goes on."""
        if timeout is not timer:
            raise timeout
        self.gave_up = True
        return UpstreamTimeout("The provider's answer did not begin in time.")

    def _wait_or_raise(self, error: GatewayError) -> None:
        """Wait before the next attempt, or raise where there is none."""
        self.asking = False
        self.failed(self, error)
        backoff = BACKOFF_SECONDS * 2 ** (self.made - 1) * random.uniform(0.5, 1)
        pause = max(backoff, error.retry_after or 0)
        late = time.monotonic() + pause >= min(self.deadline, self.retry_until)
        if not error.retryable or self.made >= self.allowed or late:
            raise error
        memory.release(error)
        self.sleep(pause)


@dataclass(frozen=True, slots=True)
class Limits:
    """What holds for models whose row says nothing else: further attempts at one route, and
    seconds to a stream's first token, `patience` where another model can be asked."""

    retries: int = 2
    first_token: float | None = None
    patience: float = 10.0

    def hurry(self, attempts: Attempts, row: ModelRow, stream: bool) -> None:
        """Leave time for those who can be asked after this route.

        Retries and silences together get the patience. A whole answer is silent until it is
        written: it gets half of the time that is left, in which others can still write theirs.
        """
        now = time.monotonic()
        half = max(attempts.deadline - now, 0) / 2
        patience = row.timeouts.get("first_token", self.patience)
        attempts.retry_until = now + min(patience, half)
        attempts.answer_by = attempts.retry_until if stream else now + half
        # Callers who name fallbacks of their own, or hardly any time, open no breaker for others.
        attempts.counts_after = inf
        if row.fallbacks:
            attempts.counts_after = 0.9 * patience if stream else SILENT_SECONDS


def lines(parts: list[Chunk]) -> bytes:
    """Parts as they travel: one line of JSON each."""
    return b"\n".join(map(orjson.dumps, parts))
