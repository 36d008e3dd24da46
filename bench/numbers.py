"""Arithmetic of the figures: percentiles, medians, pairs."""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Sequence


def percentile(values: Sequence[float], share: float) -> float | None:
    """The nearest-rank percentile (share 0.5: the median) of unsorted values; None of nothing."""
    if not values:
        return None
    return sorted(values)[max(0, math.ceil(share * len(values)) - 1)]


def minus(one: float | None, other: float | None) -> float | None:
    """The difference, where both are known."""
    return None if one is None or other is None else one - other


def per(total: float | None, count: float) -> float | None:
    """The share of one in a total, where there is any."""
    return None if total is None or not count else total / count


def ratio(pairs: Sequence[tuple[float, float]]) -> float | None:
    """The median of the ratios one/other over pairs measured in turn."""
    shares = [one / other for one, other in pairs if other]
    return statistics.median(shares) if shares else None


def pairs(
    one: Callable[[], float], other: Callable[[], float], times: int
) -> list[tuple[float, float]]:
    """Measure both in turn, so that a slow minute of the machine meets both."""
    return [(one(), other()) for _ in range(times)]


def rounded(value: float | None, digits: int = 3) -> float | None:
    """For the results file: short, and None where nothing was measured."""
    return None if value is None else round(value, digits)
