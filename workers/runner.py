"""One call, from its claim to its outcome."""

from __future__ import annotations

import logging
import re
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial

import orjson

from gateway import memory
from gateway.catalogue.catalogue import Catalogue
from gateway.catalogue.file import CUSTOM_TOOLS, LONG_TOOL_NAMES
from gateway.catalogue.target import UNKNOWN
from gateway.chat import ChatCall, Chunk
from gateway.errors import (
    GatewayError,
    ProviderNotConfigured,
    StopCall,
    UpstreamBadResponse,
    WorkerLost,
)
from gateway.logs import log_fault
from gateway.queue.protocol import CallSpec, Outcome, encode_head
from gateway.stalls import give_turn
from gateway.tokens import TOKENS_PER_SECOND
from gateway.tracing import Tracing
from providers.base import Provider
from providers.http.budget import Budget
from workers.attempts import Attempts, Limits, lines
from workers.bill import Bill
from workers.breaker import Breakers
from workers.call_log import log_failure, log_skip
from workers.claims import Claimed
from workers.coalesce import Coalescer
from workers.custom_tools import CustomTools
from workers.failover import Failover
from workers.outbox import Sender
from workers.tool_names import ToolNames, has_odd_names
from workers.tracing import CallTrace
from workers.usage import CallUsage

log = logging.getLogger(__name__)

NEEDS_CUSTOM_TOOLS = re.compile(rb'"(?:custom|allowed_tools)"').search


@dataclass(slots=True)
class Call:
    """A running call: what it asks for, and all that changes until it ends."""

    spec: CallSpec
    body: bytes
    sender: Sender
    deadline: float  # on the monotonic clock
    failover: Failover
    bill: Bill
    cap: int = 0  # tokens of output, of all choices together; 0: none
    attempts: Attempts | None = None  # at the target that was called last
    dropped: list[str] = field(default_factory=list)  # parameters that the target is not sent
    usage: CallUsage = field(default_factory=CallUsage)  # of the latest attempt
    trace: CallTrace | None = None


class CallRunner:
    """Runs claimed calls against the providers.

    `providers` holds each provider by its name, and by the id of a catalogue row one with the
    timeouts or the deployments of that row if it has any.
    """

    def __init__(
        self,
        providers: Mapping[str, Provider],
        limits: Limits,
        catalogue: Catalogue,
        breakers: Breakers | None = None,
        budget: Budget | None = None,
        tracing: Tracing | None = None,
    ) -> None:
        self._providers = providers
        self._limits = limits
        self._catalogue = catalogue
        self._breakers = breakers or Breakers()
        self._budget = budget or Budget()
        self._coalescer = Coalescer()
        self._tracing = tracing

    def run(
        self,
        claimed: Claimed,
        spec: CallSpec,
        body: bytes,
        sender: Sender,
        bill: Bill | None = None,
    ) -> Outcome:
        """Call the targets in turn, send the chunks of a stream, and return the outcome.

        What the call has used is noted in `bill`. Raises nothing: whatever ends the call, a
        StopCall included, becomes part of the outcome.
        """
        bill = bill or Bill()
        deadline = claimed.claimed_at + claimed.budget
        failover = Failover(tuple(map(self._catalogue.with_row, spec.targets)), bill)
        if claimed.runs_again:
            failover.note(WorkerLost(), claimed.admission["lost_ms"] / 1000)
        # Embeddings and counts have no output.
        cap = claimed.admission.get("cap", 0) if spec.kind == "chat" else 0
        call = Call(spec, body, sender, deadline, failover, bill, cap)
        if self._tracing is not None:
            call.trace = CallTrace(self._tracing, claimed, spec)
        answer, error, sent = b"", None, True
        try:
            answer = self._answer(call)
        except GatewayError as failure:
            error = failure
            memory.release(failure)
        except StopCall as stop:
            error, sent = stop.error, stop.request_sent
            memory.release(stop)
        except Exception as fault:
            log_fault(log, fault, "call %s", spec.call_id)
            error = GatewayError(should_retry=False)  # the provider may have been called
            sent = bool(call.usage.deltas or call.usage.counted)
            memory.release(fault)
        self._note_end(call, error)
        if error is not None and sent and call.attempts is not None and call.attempts.running:
            self._charge(call, self._unseen(call, call.attempts))
        bill.target = failover.target
        if call.attempts is not None:
            bill.began = call.attempts.began
            call.attempts = None  # it knows the call, and together they would keep the body
        if call.trace is not None:
            call.trace.end(bill, error)
        return Outcome(
            last=sender.number,
            error=error,
            answer=answer,
            route=failover.target.route,
            timings={"work": int((time.monotonic() - claimed.claimed_at) * 1000)},
            dropped=call.dropped,
        )

    def _answer(self, call: Call) -> bytes:
        """Return the response of the first target that gives one; raises the caller's error."""
        while True:
            try:
                answer = self._call_target(call)
            except GatewayError as error:
                call.failover.move_on(error, began=call.sender.number > 0)
            else:
                if answer is not None:
                    return answer

    def _call_target(self, call: Call) -> bytes | None:
        """Return the current target's response; None if its breaker is open and another is next."""
        spec, failover, breakers = call.spec, call.failover, self._breakers
        target = failover.target
        provider = self._provider(call)
        params = orjson.loads(call.body)
        give_turn(len(call.body))  # what follows, until it is sent, takes as long again
        params, call.dropped = target.fit(params, failover.targets[0], spec.optional, call.cap)
        # What is changed in tools and their calls, and undone in the response.
        changes: list[CustomTools | ToolNames] = []
        # In this order: a body of 19 MB takes 10 ms to search.
        if CUSTOM_TOOLS not in target.row.accepts and NEEDS_CUSTOM_TOOLS(call.body):
            changes.append(CustomTools(params))
        if has_odd_names(call.body):
            params = changes[-1].params if changes else params
            changes.append(ToolNames(params, LONG_TOOL_NAMES in target.row.accepts))
        request = ChatCall(
            target.upstream_model,
            changes[-1].params if changes else params,
            spec.stream,
            target.row.max_output_tokens,
            target.row.thinking,
            target.row.system_turns,
            call.dropped,
            call.bill.upstream,
        )
        # Last, because a call that it lets through as a probe must be made.
        if breakers.troubled and not failover.alone() and breakers.blocks(target.route, spec.key):
            log_skip(spec, target)
            failover.skip()
            return None
        attempts = call.attempts = self._attempts(call)
        call.bill.upstream.clear()
        call.usage.clear()
        send = self._stream if spec.stream else self._whole
        return send(call, attempts, provider, request, changes)

    def _whole(
        self,
        call: Call,
        attempts: Attempts,
        provider: Provider,
        request: ChatCall,
        changes: Sequence[CustomTools | ToolNames],
    ) -> bytes:
        kind = call.spec.kind
        if kind == "count_tokens":
            response = attempts.count_tokens(provider, request)
        elif kind == "embeddings":
            response = attempts.embed(provider, request)
        else:
            response = attempts.complete(provider, request, lambda each: call.usage.add(each))
        if kind != "count_tokens":
            call.usage.add_whole(response)
        if call.spec.cost:
            self._show_cost(call, [response])
        if kind == "chat":
            for change in reversed(changes):
                response = change.whole(response)
        try:
            answer = orjson.dumps(response)
        except orjson.JSONEncodeError:
            raise self._unwritable(call, attempts) from None
        self._charge(call)
        self._budget.hold(call.spec.call_id, len(answer))
        return answer

    def _stream(
        self,
        call: Call,
        attempts: Attempts,
        provider: Provider,
        request: ChatCall,
        changes: Sequence[CustomTools | ToolNames],
    ) -> bytes:
        sender, usage, first, with_cost = call.sender, call.usage, True, call.spec.cost
        with self._coalescer as coalescer:
            for chunks in attempts.stream(provider, request):
                usage.add(chunks)
                if with_cost:
                    self._show_cost(call, chunks)
                for change in reversed(changes):
                    chunks = change.streamed(chunks)
                try:
                    payload = lines(chunks)
                except orjson.JSONEncodeError:
                    raise self._unwritable(call, attempts) from None
                if first:
                    first, payload = False, self._first_payload(call, payload)
                sender.send(payload)
                coalescer.pause()
        self._charge(call)
        return b""

    def _show_cost(self, call: Call, chunks: list[Chunk]) -> None:
        """Put the cost into the usage of a response, or of chunks that have one."""
        for chunk in chunks:
            if usage := chunk.get("usage"):
                upstream = usage.get("cost")
                usage["cost"] = call.bill.cost(call.failover.target, usage)
                if type(upstream) in (int, float):
                    usage["cost_details"] = {"upstream_inference_cost": upstream}

    def _unseen(self, call: Call, attempts: Attempts) -> int:
        """Estimate the output of an attempt whose answer would have come whole, when it is stopped.

        The provider has written for as long as it ran, and no more than the call has reserved.
        """
        spec = call.spec
        if spec.stream or spec.kind != "chat" or self._provider(call).streams_only:
            return 0
        most: int = spec.account.get("output_tokens", 0)
        most = min(most, call.cap) if call.cap else most
        return min(int(attempts.age() * TOKENS_PER_SECOND), most)

    def _charge(self, call: Call, unseen: int = 0) -> None:
        """Note what the attempt that runs has used, by the provider's count or by an estimate.

        `unseen` is how many tokens it has written that nobody has seen.
        """
        attempts, usage, spec = call.attempts, call.usage, call.spec
        if attempts is not None:
            attempts.running = False  # nothing of it is charged again
            usage.counted = usage.counted or attempts.counted
        if spec.kind != "count_tokens":  # costs nothing
            estimate = spec.account.get("prompt_tokens", 0)
            call.bill.add(call.failover.target, usage.so_far(call.body, estimate, unseen))

    def _note_end(self, call: Call, error: GatewayError | None) -> None:
        """Note how the last attempt ended, if it has not failed before."""
        attempts = call.attempts
        if attempts is not None and attempts.count and not attempts.failed:
            call.bill.note(call.failover.target, error, attempts.age())
            call.bill.note_response(call.usage.end)

    def _first_payload(self, call: Call, chunks: bytes) -> bytes:
        failover = call.failover
        if not failover.position and not call.dropped:
            return chunks
        return encode_head(failover.target.route, call.dropped, chunks)

    def _provider(self, call: Call) -> Provider:
        """Return the provider of the current target; raises ProviderNotConfigured."""
        target = call.failover.target
        row = target.row
        provider = self._providers.get(row.id) or self._providers.get(target.provider)
        if provider is None or target.row is UNKNOWN:
            error = ProviderNotConfigured(
                f"This worker has no provider '{target.provider}' for the model '{target.model}': "
                "its configuration is not that of the web process."
            )
            call.failover.note(error)
            log_failure(call.spec, target, error, "", 0, 0.0)
            raise error
        if call.trace is None:
            return provider
        return call.trace.traced(provider, target, self._catalogue.host(target.provider))

    def _attempts(self, call: Call) -> Attempts:
        failover, row = call.failover, call.failover.target.row
        attempts = self._limits.attempts(
            row,
            call.deadline,
            partial(self._failed, call),
            failover.last_chance,
            partial(self._begun, call),
        )
        if not failover.alone():
            self._limits.hurry(attempts, row, call.spec.stream)
        return attempts

    def _failed(self, call: Call, attempts: Attempts, error: GatewayError) -> None:
        failover, key = call.failover, call.spec.key
        target = failover.target
        route, age = target.route, attempts.age()
        failover.note(error, age)
        host = self._catalogue.host(target.provider)
        log_failure(call.spec, target, error, host, attempts.count, age)
        if not call.sender.number:
            # Nobody got anything of this attempt: only what its provider has counted is charged.
            if usage := call.usage.counted or attempts.counted:
                call.bill.add(failover.target, usage)
            call.usage.clear()
            attempts.running = False
        if attempts.failure_counts():
            self._breakers.failed(route, error, age, key)
        if self._breakers.is_open(route, key) and not failover.alone():
            attempts.allowed = attempts.count  # its breaker has opened: no more of it

    def _unwritable(self, call: Call, attempts: Attempts) -> UpstreamBadResponse:
        """Return the error of a response that cannot be written as JSON, after counting it.

        A provider may nest deeper than we can write, and its numbers may add up to too much.
        """
        error = UpstreamBadResponse()
        attempts.failed = True
        self._failed(call, attempts, error)
        return error

    def _begun(self, call: Call, attempts: Attempts) -> None:
        if call.spec.stream:
            call.bill.first_token = time.monotonic()
        if self._breakers.troubled:
            self._breakers.answered(call.failover.target.route, attempts.age())
