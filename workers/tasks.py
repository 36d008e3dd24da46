"""One call, from its claim to its outcome."""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, NoReturn

import orjson

from gateway import lifecycle
from gateway.catalogue import Catalogue
from gateway.channel import Outcome, Plan, ProtocolError, Target, name_answerer
from gateway.chat import ChatCall
from gateway.errors import (
    GatewayError,
    JobLost,
    ModelNotFound,
    ProviderNotConfigured,
    UpstreamAuth,
)
from gateway.logs import where
from providers.wire import Provider
from workers.outbox import Sender
from workers.pace import Pace
from workers.routing import Attempts, lines

log = logging.getLogger(__name__)


def run(call_id: str) -> NoReturn:
    """The name under which calls stand in RQ's job records.

    A stock `rq worker` that comes here is told what runs these jobs: they need the claim, the
    outbox and the leases of this service's own worker.
    """
    raise RuntimeError(f"call {call_id}: start the workers with `python -m workers`")


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
    """A call and the target that is being asked."""

    plan: Plan
    body: bytes
    target: Target


class CallRunner:
    """Runs claimed calls against the providers; never raises for one."""

    def __init__(
        self, providers: Mapping[str, Provider], retries: int, catalogue: Catalogue
    ) -> None:
        self._providers = providers
        self._retries = retries
        self._catalogue = catalogue
        self._pace = Pace()

    def run(self, claimed: Claimed, plan: Plan, body: bytes, sender: Sender) -> Outcome:
        """Ask the targets in turn, send the parts of a stream, and say how the call ended.

        Everything but a StopCall or a timeout thrown into it becomes part of the outcome.
        """
        attempts = Attempts(1 + self._retries, claimed.claimed_at + claimed.budget)
        answer, error, usage = b"", None, None
        asking = Asking(plan, body, plan.targets[0])
        try:
            answer, usage = self._answer(asking, sender, attempts)
        except GatewayError as failure:
            error = failure
            # The operator's to mend, and the caller is told nothing of it.
            level = logging.ERROR if isinstance(error, UpstreamAuth) else logging.INFO
            log.log(level, "call %s: %s by %s", plan.call_id, error.code, asking.target.provider)
        except StopCall as stop:
            error = stop.error
        except Exception as fault:
            # Not log.exception: a traceback's last line may quote the prompt or the answer.
            log.error("call %s: %s at %s", plan.call_id, type(fault).__name__, where(fault))
            error = GatewayError()
        return Outcome(
            last=sender.number,
            error=error,
            answer=answer,
            route=asking.target.route,
            attempts=attempts.made,
            usage=usage,
            timings={"work": int((time.monotonic() - claimed.claimed_at) * 1000)},
        )

    def _answer(
        self, asking: Asking, sender: Sender, attempts: Attempts
    ) -> tuple[bytes, dict[str, Any] | None]:
        """The answer of the first target whose provider still has the model."""
        for target in asking.plan.targets:
            asking.target = target
            try:
                return self._ask(asking, sender, attempts)
            except ModelNotFound as error:
                refusal = lifecycle.gone(error, self._catalogue.find(target.model))
                if sender.number:  # the caller has part of this one's answer
                    break
                log.info("call %s: %s is gone", asking.plan.call_id, target.route)
        raise refusal

    def _ask(
        self, asking: Asking, sender: Sender, attempts: Attempts
    ) -> tuple[bytes, dict[str, Any] | None]:
        plan, target = asking.plan, asking.target
        provider = self._providers.get(target.provider)
        if provider is None:
            raise ProviderNotConfigured(
                f"This worker has no provider '{target.provider}': its configuration is not that "
                "of the web process."
            )
        call = self._call(asking)
        if not plan.stream:
            ask = attempts.embed if plan.kind == "embeddings" else attempts.complete
            part = ask(provider, call)
            return orjson.dumps(part), part.get("usage")
        usage = None
        naming = target is not plan.targets[0]
        with self._pace as pace:
            for parts in attempts.stream(provider, call):
                sent = lines(parts)
                sender.send(name_answerer(target.route, sent) if naming else sent)
                naming = False
                for part in parts:
                    usage = part.get("usage") or usage
                pace.pause()
        return b"", usage

    def _call(self, asking: Asking) -> ChatCall:
        """The call as its target takes it; raises InvalidRequest for what that refuses."""
        plan, target = asking.plan, asking.target
        asked = plan.targets[0].model
        parameters, _ = self._catalogue.fit(target.model, orjson.loads(asking.body), asked)
        return ChatCall(
            target.upstream_model,
            parameters,
            plan.stream,
            target.max_output_tokens,
            self._catalogue.find(target.model).thinking,
        )


def opened(payload: bytes | None, call_id: str) -> tuple[Plan, bytes]:
    """Plan and body of a claimed call; raises JobLost where there are none that can be read."""
    if payload is None:
        raise JobLost
    try:
        return Plan.decode(payload)
    except ProtocolError:
        log.error("call %s: the record in Redis is not one of ours", call_id)
        raise JobLost from None
