"""What RQ's job records name as the function of a call."""

from __future__ import annotations

from typing import NoReturn


def run(call_id: str) -> NoReturn:
    """The name under which calls stand in RQ's job records.

    A stock `rq worker` that comes here is told what runs these jobs: they need the claim, the
    outbox and the leases of this service's own worker.
    """
    raise RuntimeError(f"call {call_id}: start the workers with `python -m workers`")
