"""Joins what the clients saw, what the provider counted and what the account holds of calls."""

from __future__ import annotations

import math
import time
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from decimal import ROUND_HALF_UP, Decimal
from typing import Any

from gateway.tokens import TOKENS_PER_SECOND
from tests.faults.client import Seen
from tests.faults.reconciler import Defect, nonce_of

# USD for a million tokens of prompt and completion, as in stack.MODELS, by the model's beginning.
PRICES = {
    "fake/": (Decimal("0.1234567"), Decimal("1.7654321")),
    "claude/": (Decimal("3.1000001"), Decimal("15.7")),
}
NANO = Decimal(1_000_000_000)
ENDS = ("completed", "failed", "cancelled", "lost")
# Tokens by which an estimate may exceed what the provider would have counted: a nonce is one delta
# and counts by its characters, a prompt as well.
ESTIMATE_SLACK = 12
# The web process estimates what a lost worker sent by its bytes, and the first chunks have more of
# them besides their text.
LOST_SLACK = 24

Generation = Mapping[str, Any]
Counted = Mapping[str, Any]


@dataclass(frozen=True)
class Booked:
    """What the account of some calls says; `nano` is in 1e-9 USD."""

    defects: Sequence[Defect]
    records: int
    counted: int  # calls whose tokens the provider counted
    estimated: int
    tokens: int
    nano: int

    def __str__(self) -> str:
        return (
            f"{self.records} records: {self.counted} counted by the provider, {self.estimated} "
            f"estimated; {self.tokens} tokens, {self.nano / 10**9:.9f} USD"
        )


def booked(
    seen: Iterable[Seen], log: Sequence[Counted], generations: Iterable[Generation]
) -> Booked:
    """Compare the account of these calls with the provider's log.

    `generations` are all calls of the account as `GET /generations` shows them; those of other
    clients are left out. A call is known by its nonce, which is its request id.
    """
    calls = {each.nonce: each for each in seen}
    counts: dict[str, list[Counted]] = defaultdict(list)
    for record in log:
        counts[nonce_of(record)].append(record)
    records: dict[str, list[Generation]] = defaultdict(list)
    for generation in generations:
        records[generation["request_id"] or ""].append(generation)
    defects = [
        Defect("promise", f"{nonce} ({each.model}): {what}")
        for nonce, each in calls.items()
        for what in _of_call(each, counts[nonce], records[nonce])
    ]
    own = [record for nonce in calls for record in records[nonce]]
    return Booked(
        defects,
        len(own),
        sum(record["usage_source"] == "provider" for record in own),
        sum(record["usage_source"] == "estimated" for record in own),
        sum(sum(_tokens(record)) for record in own),
        sum(_nano(record) for record in own),
    )


def _of_call(
    each: Seen, provider: Sequence[Counted], records: Sequence[Generation]
) -> Iterable[str]:
    """What is wrong with the account of one call."""
    if len(records) > 1:
        yield f"booked {len(records)} times"
        return
    if not records:
        # A call that was refused, or that Redis never saw, has no record.
        if provider or each.answered:
            yield "not booked, and the provider was called"
        return
    record = records[0]
    if each.call_id not in ("", record["id"]):
        yield f"the response named {each.call_id}, and the record {record['id']}"
    if record["status"] not in ENDS:
        yield f"has the status {record['status']}"
    if each.answered and record["status"] != "completed":
        yield f"answered, and booked as {record['status']} {record['error_code']}"
    # Nobody knows what the provider counted for a lost worker.
    lost_runs = sum(run["error"] == "worker_lost" for run in record.get("provider_responses", ()))
    reported = [call["usage"] for call in provider[lost_runs:] if call["usage"]]
    tokens = _tokens(record)
    if record["usage_source"] == "provider":
        expected = tuple(
            sum(usage[name] for usage in reported)
            for name in ("prompt_tokens", "completion_tokens")
        )
        if tokens != expected:
            yield f"booked {tokens} tokens, and the provider counted {expected}"
    elif record["status"] == "completed":
        yield f"completed, and its usage is {record['usage_source']}"
    elif sum(tokens) > _most(each, provider, record["status"] == "lost"):
        yield f"estimated at {tokens} tokens"
    # Where the worker is lost and the client has left, nobody knows what was written.
    unknown = record["usage_source"] == "provider" or (record["status"] == "lost" and each.left)
    if each.text and not tokens[1] and not unknown:
        yield "the client got text for nothing"
    if not provider and sum(tokens) and record["status"] != "lost":  # then nobody knows
        yield f"booked {tokens} tokens, and the provider was not called"
    # A lost call's prompt and output are rounded by themselves: the prompt when it was reserved.
    if abs(_nano(record) - cost(each.model, *tokens)) > (record["status"] == "lost"):
        yield f"cost {_nano(record)} for {tokens} tokens, and not {cost(each.model, *tokens)}"


def cost(model: str, prompt: int, completion: int) -> int:
    """The cost of a call in 1e-9 USD, rounded half up."""
    prices = next(each for beginning, each in PRICES.items() if model.startswith(beginning))
    usd = (prices[0] * prompt + prices[1] * completion) / 1_000_000
    return int((usd * NANO).quantize(Decimal(1), ROUND_HALF_UP))


def _most(each: Seen, provider: Sequence[Counted], lost: bool) -> int:
    """The tokens of an estimate at most: those of the whole answer, once for each attempt."""
    slack = LOST_SLACK if lost else ESTIMATE_SLACK
    if not each.stream:  # nobody sees what is written: it is estimated by the time
        slack += sum(
            math.ceil(((call["ended"] or time.time()) - call["started"] + 1) * TOKENS_PER_SECOND)
            for call in provider
        )
    return max(len(provider), lost) * (len(each.wanted.split()) + slack)


def _tokens(record: Generation) -> tuple[int, int]:
    return record["tokens_prompt"] or 0, record["tokens_completion"] or 0


def _nano(record: Generation) -> int:
    return round(record["total_cost"] * 10**9)
