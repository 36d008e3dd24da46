"""Some rows of the fault suite, as part of every test run; `make faults` runs them all."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.faults.rows import ROWS
from tests.faults.run import HEAD, run_rows

SEED = 5
CHOSEN = ("P6", "R7-claim", "R10", "U23")
TABLE = Path(__file__).parents[2] / "docs" / "reliability.md"


@pytest.mark.parametrize("name", CHOSEN)
def test_no_promise_is_broken_by(name: str) -> None:
    [result] = run_rows([ROWS[name]], SEED, 1, lambda result: None)
    assert result.defects == []


def test_the_documented_table_has_every_row() -> None:
    lines = [line.split(" | ") for line in TABLE.read_text().splitlines() if line.endswith(" |")]
    named = [line[0].removeprefix("| ") for line in lines if len(line) == len(HEAD)]
    assert named == ["row", "---", *ROWS]
