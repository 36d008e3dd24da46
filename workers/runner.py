"""One call, from its claim to its outcome."""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import orjson

from gateway import memory
from gateway.catalogue.catalogue import Catalogue
from gateway.catalogue.file import ModelRow
from gateway.chat import ChatCall
from gateway.errors import (
    GatewayError,
    JobLost,
    ModelNotFound,
    ProviderNotConfigured,
    UpstreamAuth,
)
from gateway.logs import where
from gateway.queue.protocol import CallSpec, Outcome, ProtocolError, name_answerer
from providers.base import Provider
from providers.http.connection import may_have_left
from workers.attempts import Attempts, Limits, lines
from workers.breaker import Breakers
from workers.coalesce import Coalescer
from workers.failover import Failover
from workers.outbox import Sender
from workers.usage import Written

log = logging.getLogger(__name__)


class StopCall(BaseException):
    """Thrown into a running call to end it; no `except Exception` on the way may swallow it."""

    def __init__(self, error: GatewayError) -> None:
        self.error = error
        super().__init__()


@dataclass(frozen=True, slots=True)
class Claimed:
    """A call that this worker has started: `budget` is its time left in seconds; a payload of
    None means that Redis lost the body."""

    call_id: str
    web: str
    claim: str
    budget: float
    payload: bytes | None
    claimed_at: float = field(default_factory=time.monotonic)


@dataclass(slots=True)
class Asking:
    """A call and who is asked for its answer."""

    spec: CallSpec
    body: bytes
    failover: Failover
    deadline: float  # on the monotonic clock
    attempts: int = 0  # made so far, at all targets
    written: Written = field(default_factory=Written)
    usage: dict[str, Any] | None = None


class CallRunner:
    """Runs claimed calls against the providers; never raises for one.

    `providers` has each provider by its name, and under a catalogue row's id one with that row's
    timeouts where it has any.
    """

    def __init__(
        self,
        providers: Mapping[str, Provider],
        limits: Limits,
        catalogue: Catalogue,
        breakers: Breakers | None = None,
    ) -> None:
        self._providers = providers
        self._limits = limits
        self._catalogue = catalogue
        self._breakers = breakers or Breakers()
        self._coalescer = Coalescer()

    def run(self, claimed: Claimed, spec: CallSpec, body: bytes, sender: Sender) -> Outcome:
        """Ask the targets in turn, send the parts of a stream, and say how the call ended.

        Whatever ends the call, a StopCall thrown into it included, becomes part of the outcome.
        """
        failover = Failover(spec.targets, self._catalogue.find)
        asking = Asking(spec, body, failover, claimed.claimed_at + claimed.budget)
        answer, error = b"", None
        try:
            answer = self._answer(asking, sender)
        except GatewayError as failure:
            error = failure
            memory.release(failure)
        except StopCall as stop:
            error = stop.error
            memory.release(stop)
        except Exception as fault:
            # Not log.exception: a traceback's last line may quote the prompt or the answer.
            log.error("call %s: %s at %s", spec.call_id, type(fault).__name__, where(fault))
            error = GatewayError(should_retry=False)  # the provider may have been called
            memory.release(fault)
        return Outcome(
            last=sender.number,
            error=error,
            answer=answer,
            route=failover.target.route,
            attempts=asking.attempts,
            usage=asking.usage,
            timings={"work": int((time.monotonic() - claimed.claimed_at) * 1000)},
            failures=failover.failures,
        )

    def _answer(self, asking: Asking, sender: Sender) -> bytes:
        """The answer of the first target that gives one; raises what the caller is told."""
        failover = asking.failover
        while True:
            target = failover.target
            try:
                answer = self._ask(asking, sender)
            except GatewayError as error:
                # A refused key is the operator's to mend, and the caller is told nothing of it.
                level = logging.ERROR if isinstance(error, UpstreamAuth) else logging.INFO
                route = target.route
                log.log(level, "call %s: %s by %s", asking.spec.call_id, error.code, route)
                failover.move_on(error, began=sender.number > 0)
            else:
                if answer is not None:
                    return answer

    def _ask(self, asking: Asking, sender: Sender) -> bytes | None:
        """One target's answer; None where its breaker is open and the next is to be asked."""
        spec, failover, breakers = asking.spec, asking.failover, self._breakers
        route = failover.target.route
        row, provider = self._who(failover)
        call = self._call(asking, row)
        # Last, because what it lets through as a probe must be sent.
        blocked = bool(breakers.troubled) and breakers.blocks(route)
        if blocked and not failover.alone():
            failover.skip()
            return None
        attempts = self._attempts(asking, row, blocked)
        try:
            if spec.stream:
                answer = self._stream(asking, sender, attempts, provider, call)
            else:
                ask = attempts.embed if spec.kind == "embeddings" else attempts.complete
                part = ask(provider, call)
                answer = orjson.dumps(part)
                asking.usage = part.get("usage")
            if breakers.troubled:
                breakers.answered(route, attempts.age())
            return answer
        except StopCall:
            if attempts.asking and may_have_left():
                asking.usage = asking.written.used(asking.body)
            raise
        finally:
            asking.attempts += attempts.made

    def _stream(
        self,
        asking: Asking,
        sender: Sender,
        attempts: Attempts,
        provider: Provider,
        call: ChatCall,
    ) -> bytes:
        written, first = asking.written, True
        with self._coalescer as coalescer:
            for parts in attempts.stream(provider, call):
                sent = lines(parts)
                if first:
                    first, sent = False, self._begun(asking.failover, attempts, sent)
                sender.send(sent)
                written.add(parts)
                coalescer.pause()
        asking.usage = written.counted
        return b""

    def _begun(self, failover: Failover, attempts: Attempts, sent: bytes) -> bytes:
        """The first lines of a stream, as they are to be sent."""
        route = failover.target.route
        if self._breakers.troubled:
            self._breakers.began(route, attempts.age())
        return name_answerer(route, sent) if failover.at else sent

    def _who(self, failover: Failover) -> tuple[ModelRow, Provider]:
        """Model and provider of the target; raises ProviderNotConfigured."""
        target = failover.target
        try:
            row = self._catalogue.find(target.model)
            return row, self._providers[row.id if row.timeouts else target.provider]
        except (ModelNotFound, KeyError):
            failure = ProviderNotConfigured(
                f"This worker has no provider '{target.provider}' for the model '{target.model}': "
                "its configuration is not that of the web process."
            )
            failover.note(failure)
            raise failure from None

    def _attempts(self, asking: Asking, row: ModelRow, blocked: bool) -> Attempts:
        failover, limits = asking.failover, self._limits
        retries = limits.retries if row.retries is None else row.retries
        attempts = Attempts(
            1 if blocked or failover.last_chance else 1 + retries,
            asking.deadline,
            first_token=row.timeouts.get("first_token", limits.first_token),
            failed=partial(self._failed, failover),
        )
        if not failover.alone():
            limits.hurry(attempts, row, asking.spec.stream)
        return attempts

    def _failed(self, failover: Failover, attempts: Attempts, error: GatewayError) -> None:
        route = failover.target.route
        failover.note(error)
        if attempts.telling():
            self._breakers.failed(route, error, attempts.age())
        if self._breakers.is_open(route) and not failover.alone():
            attempts.allowed = attempts.made  # it has become one that calls keep away from

    def _call(self, asking: Asking, row: ModelRow) -> ChatCall:
        """The call as its target takes it; raises InvalidRequest for what that refuses."""
        spec, target = asking.spec, asking.failover.target
        asked = spec.targets[0].model
        parameters, _ = self._catalogue.fit(target.model, orjson.loads(asking.body), asked)
        return ChatCall(
            target.upstream_model, parameters, spec.stream, target.max_output_tokens, row.thinking
        )


def opened(payload: bytes | None, call_id: str) -> tuple[CallSpec, bytes]:
    """CallSpec and body of a claimed call; raises JobLost where there are none that can be read."""
    if payload is None:
        raise JobLost
    try:
        return CallSpec.decode(payload)
    except ProtocolError:
        log.error("call %s: the record in Redis is not one of ours", call_id)
        raise JobLost from None
