"""Shares the places of one process between API keys, so that no key shuts the others out."""

from __future__ import annotations

# A lone key gets 7 of 8 places. Each of k keys that take all they get has 7 / (7k + 1) of them,
# and 1 / (7k + 1) stay free for those that come next.
GREED = 7


class Places:
    """Counts the places that each API key holds, of `total`.

    A key may hold up to GREED times as many places as are free, so its share shrinks as others
    come. Nothing is taken away from a key: it gets no further place until it has freed some.
    """

    def __init__(self, total: int) -> None:
        self.free = total
        self._held: dict[str, int] = {}

    def take(self, key: str) -> bool:
        """Take a place for a call of this key; return whether it gets one."""
        held = self._held.get(key, 0)
        if held >= GREED * self.free:
            return False
        self.free -= 1
        self._held[key] = held + 1
        return True

    def give_back(self, key: str) -> None:
        """Free a place that the key holds."""
        self.free += 1
        held = self._held.pop(key) - 1
        if held:
            self._held[key] = held
