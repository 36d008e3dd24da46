"""The function that RQ's job records name; RQ's own workers are refused."""

from __future__ import annotations

from typing import NoReturn


def run(call_id: str) -> NoReturn:
    """Raise RuntimeError, for a stock `rq worker` that runs a call.

    Calls need the claim, the outbox and the leases of this service's own worker.
    """
    raise RuntimeError(f"call {call_id}: start the workers with `python -m workers`")
