"""The short form of the fault suite; `make faults` runs all rows, and holds them to their times.

Here each row has `PATIENCE` times as long as its promise says, because other tests run beside it.
What is counted (calls lost, made twice, cut, orphaned) is never more than promised.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from tests.faults.rows import ROWS, SHORT
from tests.faults.run import HEAD, Result, run_group
from tests.support.programs import program

SEED = 5
PATIENCE = 5.0
TABLE = Path(__file__).parents[2] / "docs" / "results" / "faults.md"


@pytest.fixture(scope="module")
def result_of() -> Callable[[str], Result]:
    """A function that gives the result of a row; the first of a group runs the group."""
    results: dict[str, Result] = {}

    def result_of(name: str) -> Result:
        if name not in results:
            group = [ROWS[each] for each in SHORT if ROWS[each].group == ROWS[name].group]
            for result in run_group(group, SEED, patience=PATIENCE):
                results[result.row.name] = result
        return results[name]

    return result_of


@pytest.mark.slow
@pytest.mark.parametrize(
    "name",
    [
        pytest.param(name, marks=pytest.mark.xdist_group(f"faults {ROWS[name].group}"))
        for name in SHORT
    ],
)
def test_no_promise_is_broken_by(result_of: Callable[[str], Result], name: str) -> None:
    result = result_of(name)
    if result.skipped:
        program("cc")  # which is all that a row may lack
    assert result.defects == []


def test_the_documented_table_has_every_row() -> None:
    lines = [line.split(" | ") for line in TABLE.read_text().splitlines() if line.endswith(" |")]
    rows = [line[0].removeprefix("| ") for line in lines if len(line) == len(HEAD)]
    assert rows == ["row", "---", *ROWS]
