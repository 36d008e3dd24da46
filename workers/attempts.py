"""The attempts of a call at one target: only what cannot have been acted on is tried again.

Two fields of an error decide, `retryable` and `retry_after`, never a status. Which target is called
next is decided in `workers.failover`.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from math import inf
from typing import Any

import gevent
import orjson

from gateway import memory
from gateway.catalogue.file import ModelRow
from gateway.chat import ChatCall, Chunk, fold, says_something
from gateway.errors import GatewayError, UpstreamBadResponse, UpstreamTimeout
from gateway.timeouts import Timeouts
from providers.base import Provider
from workers.usage import last_count

BACKOFF_SECONDS = 0.5  # before the first retry; doubles, with jitter
WORKING_SECONDS = 30.0  # a whole response may take this long without anything being wrong


def _ignore(*_: object) -> None:
    pass


@dataclass(slots=True)
class Attempts:
    """The attempts of one call at one target: how many are allowed, and how the latest went.

    Times are on the monotonic clock. No retry begins after `deadline` or `retry_until`. An attempt
    without a response by `answer_by`, or a stream without a token after `first_token` seconds (0:
    no limit), is given up. `on_failure` is called with each failed attempt's error, `on_begin` when
    one begins to be answered: at the first token of a stream, or the head of a whole response.
    """

    allowed: int
    deadline: float
    first_token: float = 0.0
    retry_until: float = inf
    answer_by: float = inf
    counts_after: float = 0.0  # seconds after which giving up shows that the target fails
    on_failure: Callable[[Attempts, GatewayError], None] = _ignore
    on_begin: Callable[[Attempts], None] = _ignore
    sleep: Callable[[float], None] = gevent.sleep
    count: int = 0
    running: bool = False  # False before the first attempt and between two
    began: float = 0.0  # when the latest attempt did
    gave_up: bool = False  # on the latest, which might have been answered later
    failed: bool = False  # the latest, and `on_failure` was called
    # What the provider counted of the latest, if it ended before its first token.
    counted: dict[str, Any] | None = None

    def complete(
        self, provider: Provider, call: ChatCall, on_chunks: Callable[[list[Chunk]], None] = _ignore
    ) -> Chunk:
        """Return the whole response; raises the last attempt's GatewayError.

        `on_chunks` is called with those of a provider that only streams, as they arrive.
        """
        if provider.streams_only:
            # Its first byte may be a ping: only the first token shows that it has begun.
            return fold(_passed(self.stream(provider, call), on_chunks))
        return self._whole(lambda: provider.complete(call, self._begun))

    def embed(self, provider: Provider, call: ChatCall) -> Chunk:
        """Return the embeddings; raises the last attempt's GatewayError."""
        return self._whole(lambda: provider.embed(call.model, call.parameters, self._begun))

    def count_tokens(self, provider: Provider, call: ChatCall) -> Chunk:
        """The tokens of the call's prompt; raises the last attempt's GatewayError."""
        return self._whole(lambda: provider.count_tokens(call))

    def stream(self, provider: Provider, call: ChatCall) -> Iterator[list[Chunk]]:
        """Yield the chunks of a stream as they arrive, from the first that holds a token on.

        Chunks before it (a role, the verdict of a filter) are kept back until then, so that a
        failed attempt leaves no trace. Nothing is tried again after that.
        """
        return self._run(lambda: provider.stream(call), says_something, self.first_token)

    def failure_counts(self) -> bool:
        """Return whether the latest attempt's failure shows that the target fails.

        An attempt that was given up does only if it had time enough.
        """
        return not self.gave_up or self.age() >= self.counts_after

    def age(self) -> float:
        """Return the seconds since the latest attempt began."""
        return time.monotonic() - self.began

    def _whole(self, request: Callable[[], Chunk]) -> Chunk:
        def one() -> Iterator[list[Chunk]]:
            yield [request()]

        # A whole response has no first token: `answer_by` and the provider's timeouts bound it.
        ((response,),) = self._run(one, lambda chunk: True, 0.0)
        return response

    def _run(
        self,
        request: Callable[[], Iterator[list[Chunk]]],
        begins: Callable[[Chunk], bool],
        first_token: float,
    ) -> Iterator[list[Chunk]]:
        """Yield the chunks of the first attempt that succeeds.

        `begins` returns whether a chunk is more than an opening.
        """
        while True:
            begun = False
            opening: list[Chunk] = []
            timer = self._begin(first_token)
            try:
                for chunks in request():
                    if not begun:
                        opening += chunks
                        if not any(map(begins, chunks)):
                            continue
                        begun, chunks = True, opening
                        timer.close()
                        self._begun()
                    yield chunks
                if not begun and opening:
                    begun = True
                    timer.close()
                    self._begun()
                    yield opening
                return
            except gevent.Timeout as timeout:
                if timeout is not timer:
                    raise
                self.gave_up = True
                error: GatewayError = UpstreamTimeout(
                    "The provider's answer did not begin in time."
                )
            except GatewayError as failure:
                error = failure
            except RecursionError:  # JSON that nests deeper than Python can walk
                error = UpstreamBadResponse()
            finally:
                timer.close()
                if opening and not begun:
                    self.counted = last_count(opening)
            self._pause_or_raise(error, final=begun)

    def _begun(self) -> None:
        self.on_begin(self)

    def _begin(self, first_token: float) -> gevent.Timeout:
        self.count += 1
        self.running, self.gave_up, self.failed, self.counted = True, False, False, None
        self.began = time.monotonic()
        seconds = first_token or None
        if self.answer_by != inf:
            left = max(self.answer_by - self.began, 0.001)
            seconds = left if seconds is None else min(seconds, left)
        return gevent.Timeout.start_new(seconds)

    def _pause_or_raise(self, error: GatewayError, final: bool) -> None:
        """Wait until the next attempt is due; raises the error where there is none."""
        self.running, self.failed = final, True
        self.on_failure(self, error)
        backoff = BACKOFF_SECONDS * 2 ** (self.count - 1) * random.uniform(0.5, 1)
        pause = max(backoff, error.retry_after or 0)
        late = time.monotonic() + pause >= min(self.deadline, self.retry_until)
        if final or not error.retryable or self.count >= self.allowed or late:
            raise error
        memory.release(error)
        self.sleep(pause)


@dataclass(frozen=True, slots=True)
class Limits:
    """The limits of calls for models whose row sets none.

    `retries` are further attempts at one target. `patience` replaces the timeout for the first
    token, in seconds, where another target can be called.
    """

    retries: int = 2
    timeouts: Timeouts = Timeouts()
    patience: float = 10.0

    def attempts(
        self,
        row: ModelRow,
        deadline: float,
        on_failure: Callable[[Attempts, GatewayError], None] = _ignore,
        once: bool = False,
        on_begin: Callable[[Attempts], None] = _ignore,
    ) -> Attempts:
        """Return the attempts at a model; only one if `once`."""
        retries = self.retries if row.retries is None else row.retries
        first_token = row.timeouts.first_token or self.timeouts.first_token
        allowed = 1 if once else 1 + retries
        return Attempts(allowed, deadline, first_token, on_failure=on_failure, on_begin=on_begin)

    def hurry(self, attempts: Attempts, row: ModelRow, stream: bool) -> None:
        """Leave time for the targets that can be called after this one.

        Retries and silences together get the patience. A whole response is silent until it is
        written: it gets half of the time that is left, so that another can still write theirs.
        """
        now = time.monotonic()
        half = max(attempts.deadline - now, 0) / 2
        patience = row.timeouts.first_token or self.patience
        attempts.retry_until = now + min(patience, half)
        attempts.answer_by = attempts.retry_until if stream else now + half
        # Callers who name fallbacks of their own, or hardly any time, open no breaker for others.
        attempts.counts_after = inf
        if row.fallbacks:
            attempts.counts_after = 0.9 * patience if stream else WORKING_SECONDS


def _passed(
    stream: Iterator[list[Chunk]], on_chunks: Callable[[list[Chunk]], None]
) -> Iterator[Chunk]:
    for chunks in stream:
        on_chunks(chunks)
        yield from chunks


def lines(chunks: list[Chunk]) -> bytes:
    """Return chunks as they travel: one line of JSON each. Raises orjson.JSONEncodeError."""
    return b"\n".join(map(orjson.dumps, chunks))
