"""The judge of the account in the fault suite: what it takes for a defect, and what not."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from tests.faults.account import booked, cost
from tests.faults.client import Seen

MODEL = "fake/nonce-stream-2-10"
GOOD = Seen("n1", MODEL, True, status=200, text="n1 t0 t1 ", reasons=1, done=True, call_id="c1")
GONE = replace(GOOD, text="n1 t0 ", reasons=0, done=False, left=900.5)
REFUSED = replace(GOOD, status=503, text="", reasons=0, code="queue_unavailable", call_id="")
USAGE = {"prompt_tokens": 3, "completion_tokens": 3, "total_tokens": 6}


def provider(usage: dict[str, int] | None = USAGE) -> dict[str, Any]:
    body = {"messages": [{"role": "user", "content": "n1"}]}
    return {"body": body, "ended": 901.0, "model": "nonce-stream-2-10", "usage": usage}


def record(tokens: tuple[int, int] = (3, 3), **fields: Any) -> dict[str, Any]:
    return {
        "id": "c1",
        "request_id": "n1",
        "status": "completed",
        "error_code": None,
        "usage_source": "provider",
        "tokens_prompt": tokens[0],
        "tokens_completion": tokens[1],
        "total_cost": cost(MODEL, *tokens) / 1e9,
        **fields,
    }


ESTIMATED = {"usage_source": "estimated", "status": "cancelled"}


def test_a_call_that_is_booked_as_it_was_counted_is_right() -> None:
    result = booked([GOOD], [provider()], [record()])
    assert (result.defects, result.records, result.counted, result.tokens) == ([], 1, 1, 6)
    assert result.nano == 5667  # 3 * 123.4567 + 3 * 1765.4321 = 5666.6664


@pytest.mark.parametrize(
    ("seen", "log", "records", "what"),
    [
        (GOOD, [provider()], [], "not booked"),
        (GOOD, [provider()], [record(), record(id="c2")], "booked 2 times"),
        (GOOD, [provider()], [record((3, 2))], "booked (3, 2) tokens"),
        (GOOD, [provider()], [record(status="failed")], "answered, and booked as failed"),
        (GOOD, [provider()], [record(id="c9")], "the response named c1"),
        (GOOD, [provider()], [record(total_cost=0.000005668)], "cost 5668"),
        (GOOD, [provider()], [record(usage_source="estimated")], "its usage is estimated"),
        (GOOD, [provider()], [record(status="running")], "has the status running"),
        (GONE, [provider(None)], [record((3, 90), **ESTIMATED)], "estimated at"),
        (GONE, [provider(None)], [record((3, 0), **ESTIMATED)], "for nothing"),
        (REFUSED, [], [record(status="failed", usage_source="estimated")], "was not called"),
    ],
)
def test_a_call_that_is_booked_wrong_is_a_defect(
    seen: Seen, log: list[dict[str, Any]], records: list[dict[str, Any]], what: str
) -> None:
    assert any(what in defect.what for defect in booked([seen], log, records).defects)


@pytest.mark.parametrize(
    ("seen", "log", "records"),
    [
        (REFUSED, [], []),
        (GONE, [provider(None)], [record((3, 2), **ESTIMATED)]),
        (GONE, [provider()], [record((3, 2), **ESTIMATED)]),  # counted, and not read any more
        (GOOD, [provider(), provider(None)], [record()]),  # a second attempt
        (GOOD, [provider()], [record(), record(request_id="other")]),
        (REFUSED, [], [record((5, 0), status="lost", usage_source="estimated")]),
    ],
)
def test_what_may_happen_is_no_defect(
    seen: Seen, log: list[dict[str, Any]], records: list[dict[str, Any]]
) -> None:
    assert booked([seen], log, records).defects == []
