"""The rows of the table: what goes wrong, under which setting, and what is allowed then."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from tests.faults import preload
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
    ends: bool = False  # the service is stopped: no call is answered afterwards
    shared: str = ""  # harms no process, and runs on a stack with the other rows of this name
    clocks: tuple[str, ...] = ()  # processes whose wall clock it moves
    slow_names: bool = False  # for workers, names that end in .slow take 5 s to be unknown
    memory: int = 64  # megabytes that a process may hold more of after it
    database: bool = False  # the account is kept in Postgres, not in Redis

    @property
    def group(self) -> str:
        """The rows of one group run on one service, one after the other."""
        return self.shared or self.name

    def missing(self) -> str:
        """What this machine lacks for it; "" where it can run."""
        return preload.MISSING if self.clocks or self.slow_names else ""


ROWS: dict[str, Row] = {}

# The short form: what `make check` runs, and `python -m tests.faults --short`.
SHORT = (
    *("P1-P2", "P5", "P6", "P7", "P10", "P12", "P13", "P14-web-worker"),
    *("R1-1s", "R3", "R5-term", "R8", "R10", "R12", "R15"),
    *("R7-submit", "R7-claim", "R7-finish", "R7-cancel", "U23", "B1"),
    *("U1", "U5", "U8", "U9-once", "U10", "U14", "U16", "U2", "U18-short", "U20"),
    *("U5-net", "U14-net", "U15", "U17-1gb"),
    *("F-refuses", "F-fails", "F-silent", "F-stalls", "F-pings", "F-cuts", "F-resets", "F-errs"),
    *("F-cuts-late", "F-resets-late", "F-stalls-late", "F-errs-late"),
    *("F-locked", "F-long", "F-long-twice", "F-policy", "F-garbled", "F-R8"),
    *("K1", "K5", "K8"),
    *("A1", "A2", "A3", "A4", "A5"),
    *("Q1", "Q2"),
    *("S1-256-2", "S2-web-5", "S2-worker-5", "S2-all-5", "S4"),
)


def row(
    name: str,
    what: str,
    *,
    workers: int = 1,
    env: dict[str, str] | None = None,
    allowed: Allowed | None = None,
    ends: bool = False,
    shared: str = "",
    clocks: tuple[str, ...] = (),
    slow_names: bool = False,
    memory: int = 64,
    database: bool = False,
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
            ends,
            shared,
            clocks,
            slow_names,
            memory,
            database,
        )
        return run

    return enter
