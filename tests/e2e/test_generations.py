"""A call in the account while it runs and after its caller has left, with real processes."""

from __future__ import annotations

from typing import Any

import requests

from tests.support.stack import PATIENCE_SECONDS, Stack, events, until


def generation(stack: Stack, call_id: str) -> dict[str, Any]:
    response = requests.get(
        f"{stack.url}/generations/{call_id}", headers=stack.headers(), timeout=PATIENCE_SECONDS
    )
    assert response.status_code == 200, response.text
    return response.json()["data"]


def ended(stack: Stack, call_id: str) -> dict[str, Any]:
    """The call once its record is in the ledger."""
    last: list[dict[str, Any]] = []

    def look() -> bool:
        last[:] = [generation(stack, call_id)]
        return last[0]["settled_at"] is not None

    until(look, what=f"a record: {last}")
    return last[0]


def test_a_caller_who_left_can_ask_what_its_call_has_used(stack: Stack) -> None:
    response = stack.open_stream("fake/slow-60")
    call_id = response.headers["X-Generation-Id"]
    assert next(events(response))
    running = generation(stack, call_id)
    assert (running["status"], running["streamed"]) == ("running", True)
    assert running["total_cost"] is None
    response.close()
    call = ended(stack, call_id)
    assert (call["status"], call["cancelled"]) == ("cancelled", True)
    assert call["usage_source"] == "estimated"
    assert call["tokens_completion"] > 0
    assert call["total_cost"] > 0


def test_a_call_that_failed_says_why_each_attempt_did(stack: Stack) -> None:
    response = stack.ask("fake/once-503", "a text for this test alone")
    assert response.status_code == 200
    call = ended(stack, response.headers["X-Generation-Id"])
    assert call["id"] in response.json()["id"]
    assert [each["status"] for each in call["provider_responses"]] == [503, 200]
    assert call["usage_source"] == "provider"
    used = response.json()["usage"]
    assert (call["tokens_prompt"], call["tokens_completion"]) == (
        used["prompt_tokens"],
        used["completion_tokens"],
    )
