"""A short soak, as part of every test run; `make soak` makes 30,000 calls."""

from __future__ import annotations

import pytest

from tests.soak.run import soak_calls

pytestmark = pytest.mark.slow

CALLS = 500


def test_a_crowd_of_callers_leaves_nothing_behind() -> None:
    soak = soak_calls(CALLS, seed=5, tell=lambda line: None, to_the_end=False)
    memory_aside = [defect for defect in soak.defects if "MB, at most" not in defect]
    assert memory_aside == []
    assert {kind.split()[0] for kind in soak.counts} == {
        *("whole", "stream", "endpoint", "failing", "leaving", "bad")
    }
