"""The rows of the table: which load, under which settings."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from tests.load.arena import LoadArena

Scenario = Callable[[LoadArena], None]


@dataclass(frozen=True)
class Row:
    """One load: `run` makes it and holds what it measures to bars."""

    name: str
    what: str
    run: Scenario
    env: dict[str, str] = field(default_factory=dict)


ROWS: dict[str, Row] = {}


def row(name: str, what: str, **env: str) -> Callable[[Scenario], Scenario]:
    """Enter a scenario into ROWS; `env` goes to web and worker."""

    def enter(run: Scenario) -> Scenario:
        assert name not in ROWS, name
        ROWS[name] = Row(name, what, run, env)
        return run

    return enter
