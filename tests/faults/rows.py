"""The rows of the table: what goes wrong, under which setting, and what is allowed then."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from tests.faults import clock
from tests.faults.arena import Arena
from tests.faults.reconciler import Allowed


@dataclass(frozen=True)
class Row:
    """One fault: `run` makes load and fault; what all rows promise is checked after it."""

    name: str
    what: str
    run: Callable[[Arena], None]
    workers: int = 1
    env: dict[str, str] = field(default_factory=dict)
    allowed: Allowed = field(default_factory=Allowed)
    short: bool = False  # part of the short form
    ends: bool = False  # the service is stopped: no call is answered afterwards
    shared: str = ""  # harms no process, and runs on a stack with the other rows of this name
    clocks: tuple[str, ...] = ()  # processes whose wall clock it moves
    memory: int = 64  # megabytes that a process may hold more of after it

    def missing(self) -> str:
        """What this machine lacks for it; "" where it can run."""
        return clock.MISSING if self.clocks else ""


ROWS: dict[str, Row] = {}


def row(
    name: str,
    what: str,
    *,
    workers: int = 1,
    env: dict[str, str] | None = None,
    allowed: Allowed | None = None,
    short: bool = False,
    ends: bool = False,
    shared: str = "",
    clocks: tuple[str, ...] = (),
    memory: int = 64,
) -> Callable[[Callable[[Arena], None]], Callable[[Arena], None]]:
    """Enter a scenario into ROWS."""

    def enter(run: Callable[[Arena], None]) -> Callable[[Arena], None]:
        assert name not in ROWS, name
        ROWS[name] = Row(
            name,
            what,
            run,
            workers,
            env or {},
            allowed or Allowed(),
            short,
            ends,
            shared,
            clocks,
            memory,
        )
        return run

    return enter
