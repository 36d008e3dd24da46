"""A call that a runner has ended: its outcome and its bill."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from gateway.account.usage import Usage
from gateway.queue.protocol import Outcome
from workers.bill import Bill
from workers.failover import SKIPPED


@dataclass
class Ended:
    """The outcome, whose fields it has, with what the bill says."""

    outcome: Outcome
    bill: Bill

    def __getattr__(self, name: str) -> Any:
        return getattr(self.outcome, name)

    @property
    def usage(self) -> Usage | None:
        return None if self.bill.source == "none" else self.bill.usage

    @property
    def estimated(self) -> bool:
        return self.bill.source == "estimated"

    @property
    def attempts(self) -> int:
        """The attempts that were made."""
        return sum(
            each["code"] not in (SKIPPED, "provider_not_configured") for each in self.bill.attempts
        )

    @property
    def failures(self) -> list[dict[str, str]]:
        return [
            {"route": f"{each['provider_name']}/{each['model']}", "code": each["code"]}
            for each in self.bill.attempts
            if each["code"]
        ]
