"""Several ways to the same models: the keys of a provider, or the deployments of a model.

A call takes the least busy way. A way in trouble rests, and the call goes on with another at once,
because nothing of its response has come. Each worker knows only the calls that it makes itself.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from gateway import memory
from gateway.chat import ChatCall, Chunk
from gateway.errors import (
    GatewayError,
    ModelNotFound,
    UpstreamAuth,
    UpstreamQuotaExceeded,
    UpstreamThrottled,
    code_of,
)
from providers.base import IGNORE, OnHead, Provider

log = logging.getLogger(__name__)

SHORT_REST = 5.0  # seconds; where the provider names no time
LONG_REST = 60.0  # seconds; until an operator may have mended it

Trouble = Callable[[GatewayError], float]


@dataclass(slots=True)
class Load:
    """The running calls of one way, and when its rest ends on the monotonic clock."""

    busy: int = 0
    rests_until: float = 0.0


@dataclass(frozen=True, slots=True, eq=False)
class Way:
    """One way: `name` is for the log, `prepare` makes a call what this way takes."""

    name: str
    provider: Provider
    weight: float = 1.0
    load: Load = field(default_factory=Load)
    prepare: Callable[[ChatCall], ChatCall] = lambda call: call


def trouble_of_a_key(error: GatewayError) -> float:
    """Seconds that a key rests after this error; 0 if the error is not about the key."""
    if isinstance(error, UpstreamAuth | UpstreamQuotaExceeded):
        return LONG_REST
    return error.retry_after or SHORT_REST if isinstance(error, UpstreamThrottled) else 0.0


def trouble_of_a_deployment(error: GatewayError) -> float:
    """Seconds that a deployment rests after this error; 0 if the call may have been acted on."""
    if isinstance(error, UpstreamAuth | UpstreamQuotaExceeded | ModelNotFound):
        return LONG_REST
    return error.retry_after or SHORT_REST if error.retryable else 0.0


class Pool:
    """A provider that spreads its calls over several ways.

    `trouble` gives the seconds for which a way rests after an error, 0 for other errors.
    """

    def __init__(
        self,
        ways: Sequence[Way],
        trouble: Trouble,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.streams_only = ways[0].provider.streams_only
        self._ways, self._trouble, self._clock = ways, trouble, clock

    def complete(self, call: ChatCall, on_head: OnHead = IGNORE) -> Chunk:
        """Return the whole response; raises a GatewayError."""
        return self._whole(lambda way: way.provider.complete(way.prepare(call), on_head))

    def count_tokens(self, call: ChatCall) -> Chunk:
        """Return the tokens of a prompt, as Provider.count_tokens says; raises a GatewayError."""
        return self._whole(lambda way: way.provider.count_tokens(way.prepare(call)))

    def embed(self, model: str, parameters: Mapping[str, Any], on_head: OnHead = IGNORE) -> Chunk:
        """Return the embeddings of an input, as Provider.embed says; raises a GatewayError."""

        def embed(way: Way) -> Chunk:
            call = way.prepare(ChatCall(model, parameters))
            return way.provider.embed(call.model, call.parameters, on_head)

        return self._whole(embed)

    def stream(self, call: ChatCall) -> Iterator[list[Chunk]]:
        """Yield the response as it arrives; raises a GatewayError."""
        tried: list[Way] = []
        while True:
            way, began = self._take(tried), False
            try:
                for chunks in way.provider.stream(way.prepare(call)):
                    began = True
                    yield chunks
                return
            except GatewayError as error:
                if not self._moves_on(way, error, tried) or began:
                    raise
                memory.release(error)
            finally:
                way.load.busy -= 1

    def _whole(self, use: Callable[[Way], Chunk]) -> Chunk:
        tried: list[Way] = []
        while True:
            way = self._take(tried)
            try:
                return use(way)
            except GatewayError as error:
                if not self._moves_on(way, error, tried):
                    raise
                memory.release(error)
            finally:
                way.load.busy -= 1

    def _take(self, tried: list[Way]) -> Way:
        """The least busy way that does not rest; if all do, the one that rests for the least."""
        ways = self._rested(tried)
        if ways:
            way = min(ways, key=lambda each: (each.load.busy + 1) / each.weight)
        else:
            way = min(self._ways, key=lambda each: each.load.rests_until)
        way.load.busy += 1
        tried.append(way)
        return way

    def _moves_on(self, way: Way, error: GatewayError, tried: list[Way]) -> bool:
        """Whether another way can take the call after this error."""
        seconds = self._trouble(error)
        if seconds:
            way.load.rests_until = self._clock() + seconds
            fields = {
                "host": error.host,
                "status": error.upstream_status or None,
                "error": code_of(error),
                "cause": error.cause,
            }
            log.warning("%s rests for %.0f seconds", way.name, seconds, extra={"fields": fields})
        return bool(seconds) and bool(self._rested(tried))

    def _rested(self, tried: list[Way]) -> list[Way]:
        now = self._clock()
        return [way for way in self._ways if way not in tried and way.load.rests_until <= now]
