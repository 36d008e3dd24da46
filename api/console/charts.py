"""Charts as numbers for templates, which draw them as SVG: stacked bars over time, and lines."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

WIDTH, HEIGHT = 960, 200  # which the page stretches
SERIES = 6  # that have a color of their own; the rest are one
OTHERS = "others"
FAILED = "failed"
LABELS = 12  # below the bars, at most
STEPS = (1, 1.2, 1.6, 2, 2.4, 3.2, 4, 6, 8, 10)  # in which the highest values are
GAP = 0.25  # of a bar's place


@dataclass(frozen=True, slots=True)
class Bar:
    """A rectangle of a series, which has a class of the style sheet, and what it says."""

    x: float
    y: float
    width: float
    height: float
    kind: str
    title: str


@dataclass(frozen=True, slots=True)
class Chart:
    """What a template draws. `ticks` are the texts of lines that are equally far apart, from 0 on,
    and `labels` those below the bars: one for `every` so many, and "" for the others."""

    bars: tuple[Bar, ...]
    ticks: tuple[str, ...]
    labels: tuple[str, ...]
    every: int
    names: tuple[tuple[str, str], ...]  # classes and names of the series
    width: int = WIDTH
    height: int = HEIGHT


def stacked(
    labels: Sequence[str],
    series: Mapping[str, Sequence[float]],
    text: Callable[[float], str],
) -> Chart:
    """A bar for each label, in which the series stand on each other, the largest at the bottom.

    `series` has a value for each label; those beyond the largest SERIES are summed up.
    """
    merged = _largest(series, len(labels))
    totals = [sum(values[at] for values in merged.values()) for at in range(len(labels))]
    top = _round_up(max(totals, default=0.0) or 1.0)
    place = WIDTH / max(len(labels), 1)
    scale = HEIGHT / top
    bars = []
    for at, label in enumerate(labels):
        base = float(HEIGHT)
        for number, (name, values) in enumerate(merged.items()):
            height = values[at] * scale
            if height <= 0:
                continue
            base -= height
            x = place * (at + GAP / 2)
            title = (
                f"{label}: {name} {text(values[at])}" if name else f"{label}: {text(values[at])}"
            )
            bars.append(Bar(x, base, place * (1 - GAP), height, _kind(number, name), title))
    every = max(1, math.ceil(len(labels) / LABELS))
    shown = ("" if at % every else label for at, label in enumerate(labels))
    names = tuple((_kind(number, name), name) for number, name in enumerate(merged) if name)
    return Chart(tuple(bars), ticks(top, text), tuple(shown), every, names)


def ticks(top: float, text: Callable[[float], str]) -> tuple[str, ...]:
    """The texts of the lines of a chart whose highest value is `top`, from the lowest on."""
    steps = (top * share / 4 for share in range(5))
    return tuple(text(value) if value else "0" for value in steps)


def _largest(series: Mapping[str, Sequence[float]], length: int) -> dict[str, Sequence[float]]:
    by_size = sorted(series, key=lambda name: -sum(series[name]))
    kept = {name: series[name] for name in by_size[:SERIES]}
    rest = [series[name] for name in by_size[SERIES:]]
    if rest:
        kept[OTHERS] = [sum(values[at] for values in rest) for at in range(length)]
    return kept


def _kind(number: int, name: str) -> str:
    return "bad" if name == FAILED else f"s{SERIES if name == OTHERS else number}"


def _round_up(value: float) -> float:
    """The next of these times a power of ten: their quarters are short."""
    power = 10.0 ** math.floor(math.log10(value))
    return next(step * power for step in STEPS if step * power >= value * 0.999)
