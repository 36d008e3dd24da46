"""Fakes of the service's own parts: a broker that plays a script instead of calling workers."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import orjson

from api.reply import WATCH_SECONDS
from gateway.account.api_keys import KeyRecord
from gateway.broker.pending_call import PendingCall
from gateway.errors import CallCancelled, GatewayError
from gateway.queue.protocol import CHUNKS, AdmissionRequest, CallSpec, Event, Outcome

SILENCE = "silence"  # a step of a script: a wait ends with nothing new

CHOICE = {
    "index": 0,
    "message": {"role": "assistant", "content": "Hello!", "refusal": None},
    "logprobs": None,
    "finish_reason": "stop",
}
USAGE = {"prompt_tokens": 9, "completion_tokens": 2, "total_tokens": 11}
ANSWER = Outcome(answer=orjson.dumps({"choices": [CHOICE], "usage": USAGE}))


def part(content: str, **more: Any) -> bytes:
    """One streamed chunk, as a worker sends it."""
    delta = {"role": "assistant", "content": content}
    choice = {"index": 0, "delta": delta, "logprobs": None, "finish_reason": None}
    return orjson.dumps({"choices": [choice], **more})


LAST_PART = orjson.dumps({"choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]})
USAGE_PART = orjson.dumps({"choices": [], "usage": USAGE})
STREAM = (part("Hel"), part("lo!") + b"\n" + LAST_PART, USAGE_PART, Outcome(last=3))


class Clock:
    """A fake of the `time` module, whose time passes only when a test changes `now`."""

    def __init__(self, now: float = 1_700_000_000.0) -> None:
        self.now = now

    def __call__(self) -> float:
        return self.now

    time = monotonic = __call__


class ScriptedCall(PendingCall):
    """A pending call for which each wait brings the next step of a script.

    A step is a payload of chunks, the outcome, an error, or SILENCE. The short wait before a client
    is watched brings nothing. Waits are noted in whole tenths of a second.
    """

    def __init__(self, call_id: str, budget: float, script: Iterator[Any]) -> None:
        super().__init__(call_id, budget, lambda pending: None)
        self.submitted = True
        self.waited: list[float | None] = []
        self._script = script

    def wait(self, timeout: float | None) -> bool:
        if timeout == WATCH_SECONDS:
            return super().wait(0)
        self.waited.append(timeout and round(timeout, 1))
        if super().wait(0):
            return True
        step = next(self._script)
        if step is SILENCE:
            return False
        if isinstance(step, Outcome):
            self.end(step)
        elif isinstance(step, GatewayError):
            self.fail(step)
        else:
            self.offer(Event(self.call_id, "claim", self.received + 1, CHUNKS, step))
        return True

    def wait_nudged(self, seconds: float, send: Any = None) -> bool:
        return self.wait(seconds)


def admission(key: KeyRecord) -> AdmissionRequest:
    """What a call of this key asks of the submit script if it reserves nothing."""
    return AdmissionRequest(key.public_id, key.hmac, key.version, key.owner)


@dataclass
class Submitted:
    """A call that reached the broker."""

    spec: CallSpec
    body: dict[str, Any]
    admission: AdmissionRequest
    budget: float
    pending: ScriptedCall


class FakeBroker:
    """A fake of `gateway.broker.broker.Broker`: records calls and plays the script to each.

    Without a script, every call succeeds. `submit` raises the exception in `refusal`, if there is
    one.
    """

    def __init__(self, *script: Any) -> None:
        self.web = "web-fake"
        self.draining = False
        self.redis: Any = None
        self.script = script
        self.refusal: Exception | None = None
        self.admission: dict[str, Any] = {}  # what the queue admits of each call
        self.cache = ""  # whether a kept response answers each call
        self.workers: Iterator[bool] = itertools.repeat(True)  # whether one lives, at each look
        self.calls: list[Submitted] = []
        self.left: list[str] = []

    def submit(
        self,
        spec: CallSpec,
        body: bytes,
        admission: AdmissionRequest,
        budget: float,
        logged_request: bytes = b"",
    ) -> PendingCall:
        if self.refusal is not None:
            raise self.refusal
        script = self.script or (STREAM if spec.stream else (ANSWER,))
        pending = ScriptedCall(spec.call_id, budget, iter(script))
        pending.admission, pending.cache = self.admission, self.cache
        pending.account, pending.route = spec.account, spec.targets[0].route
        self.calls.append(Submitted(spec, orjson.loads(body), admission, budget, pending))
        return pending

    def working(self) -> bool:
        return True

    def has_workers(self) -> bool:
        return next(self.workers)

    def leave(self, pending: PendingCall) -> None:
        self.left.append(pending.call_id)

    def abandon(self, pending: PendingCall) -> None:
        pending.fail(CallCancelled())
