"""Some rows of the fault suite, as part of every test run; `make faults` runs them all."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.faults.rows import ROWS
from tests.faults.run import HEAD, Result, run_rows

SEED = 5
JOBS = 2
# The most telling of each kind; they take 2 minutes on two cores.
CHOSEN = (
    *("P1-P2", "P6", "P9", "P12", "P13", "P14-web-worker"),
    *("R1-1s", "R3", "R5-term", "R8", "R10", "R12", "R15"),
    *("R7-submit", "R7-claim", "R7-finish", "R7-cancel", "U23", "B1"),
    *("U5", "U9-once", "U10", "U14", "U2", "U18-short", "U20"),
    *("U5-net", "U14-net", "U15", "U17-1gb"),
    *("F-fails", "F-silent", "F-cuts-late", "F-errs-late", "F-locked", "F-long", "F-R8"),
    *("K1", "K5"),
)
TABLE = Path(__file__).parents[2] / "docs" / "results" / "faults.md"


@pytest.fixture(scope="module")
def results() -> dict[str, Result]:
    """What came of the chosen rows, by name."""
    made = run_rows([ROWS[name] for name in CHOSEN], SEED, JOBS, lambda result: None)
    return {result.row.name: result for result in made}


@pytest.mark.parametrize("name", CHOSEN)
def test_no_promise_is_broken_by(results: dict[str, Result], name: str) -> None:
    if results[name].skipped:
        pytest.skip(results[name].skipped)
    assert results[name].defects == []


def test_the_documented_table_has_every_row() -> None:
    lines = [line.split(" | ") for line in TABLE.read_text().splitlines() if line.endswith(" |")]
    named = [line[0].removeprefix("| ") for line in lines if len(line) == len(HEAD)]
    assert named == ["row", "---", *ROWS]
