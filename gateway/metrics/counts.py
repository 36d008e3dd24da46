"""Counts in memory, and how they are added to those in Redis: once, whatever reply is lost."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable, Mapping

from gateway.metrics.families import Family
from gateway.queue import keys, scripts
from gateway.queue.clients import Command

SEPARATOR = "\t"
SUM = "sum"  # in place of a bucket's number, the sum of a histogram

Key = tuple[Family, tuple[str, ...]]  # with the values of its labels


class Counts:
    """What was counted since the last flush, in the units of each family. For one thread."""

    def __init__(self) -> None:
        self._counters: dict[Key, int] = {}
        self._histograms: dict[Key, list[int]] = {}  # the buckets, and the sum

    def add(self, family: Family, labels: tuple[str, ...] = (), amount: int = 1) -> None:
        """Add to a counter."""
        key = (family, labels)
        self._counters[key] = self._counters.get(key, 0) + amount

    def observe(self, family: Family, labels: tuple[str, ...], value: int) -> None:
        """Add a value to a histogram."""
        key = (family, labels)
        row = self._histograms.get(key)
        if row is None:
            row = self._histograms[key] = [0] * (len(family.bounds) + 2)
        row[bisect_left(family.bounds, value)] += 1
        row[-1] += value

    def take(self) -> dict[str, int]:
        """Return the amounts by the names of their fields in Redis, and begin anew."""
        amounts = {
            SEPARATOR.join((family.name, *labels)): amount
            for (family, labels), amount in self._counters.items()
        }
        for (family, labels), row in self._histograms.items():
            start = SEPARATOR.join((family.name, *labels))
            names = (*map(str, range(len(row) - 1)), SUM)
            amounts.update(
                (f"{start}{SEPARATOR}{name}", amount)
                for name, amount in zip(names, row, strict=True)
                if amount
            )
        self._counters, self._histograms = {}, {}
        return amounts


class Recent:
    """Figures of slots of a few seconds, for what happens now: see live.py."""

    def __init__(self) -> None:
        self._slots: dict[int, dict[str, int]] = {}

    def add(self, ms: float, amounts: Iterable[tuple[str, int]]) -> None:
        """Add amounts to the figures of a moment, in milliseconds since 1970."""
        slot = self._slots.setdefault(int(ms / 1000 // keys.RECENT_SLOT_SECONDS), {})
        for name, amount in amounts:
            if amount:
                slot[name] = slot.get(name, 0) + amount

    def take(self) -> dict[int, dict[str, int]]:
        """Return the figures of each slot, and begin anew."""
        slots, self._slots = self._slots, {}
        return slots


def count_command(
    mark: str,
    seconds: int,
    value: str | bytes,
    expected: str | bytes | None,
    amounts: Mapping[str, int],
    recent: Mapping[int, Mapping[str, int]],
) -> Command:
    """Return the command that adds amounts to those in Redis, and sets a key, the mark.

    It does so only if the mark has the `expected` value (None: any), and not if it has the new
    `value`: then it did before. The mark lives for `seconds` (0: for ever). The reply is 1 if the
    amounts are counted, and 0 if the mark has another value.
    """
    hashes = {keys.METRICS: (0, amounts)} | {
        keys.recent(slot): (keys.RECENT_SECONDS, figures) for slot, figures in recent.items()
    }
    args: list[str | bytes | int] = [value, "*" if expected is None else expected, seconds]
    for ttl, figures in hashes.values():
        args += [ttl, len(figures)]
        for name, amount in figures.items():
            args += [name, amount]
    return scripts.COUNT.command([mark, *hashes], args)
