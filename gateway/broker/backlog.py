"""How long a refused caller should wait: until what is queued now should have been worked off.

That is depth × mean time of a call ÷ slots. Nothing is asked of Redis for a call: the depth comes
with the refusal itself, the times with the outcomes that pass through this process, and the slots
of all live workers are read once a second, only while calls have to wait or are refused.
"""

from __future__ import annotations

from redis import Redis

from gateway.queue import commands
from gateway.queue.protocol import Outcome

UNKNOWN_SECONDS = 5.0  # to wait where nothing is known yet
LEAST_SECONDS, MOST_SECONDS = 1.0, 120.0
LATELY = 100  # calls that the mean remembers


class Backlog:
    """What one web process knows of the queue and of those who work it off."""

    def __init__(self) -> None:
        self.depth = 0  # calls that waited when somebody last looked
        self.slots = 0  # calls that all live workers run at once; 0: not known
        self.wanted = False  # has it been used, or is it likely to be, since the last look?
        self._mean = 0.0  # seconds
        self._ended = 0

    def ended(self, outcome: Outcome) -> None:
        """Take in what a call took on its worker, where its outcome says so."""
        milliseconds = outcome.timings.get("work")
        if milliseconds is None:
            return
        self._ended = min(self._ended + 1, LATELY)
        self._mean += (milliseconds / 1000 - self._mean) / self._ended

    def look(self, redis: Redis) -> None:
        """Ask Redis for depth and slots. Raises RedisError."""
        self.wanted = False
        self.depth = commands.depth(redis)
        # Where all workers have gone, those that come back will be as the last ones were.
        self.slots = sum(commands.live_slots(redis)) or self.slots

    def seconds(self, depth: int | None = None) -> float:
        """Until `depth` queued calls (None: those of the last look) are worked off, 1 to 120."""
        self.wanted = True
        if depth is not None:
            self.depth = depth
        if not self.slots or not self._ended:
            return UNKNOWN_SECONDS
        wait = self.depth * self._mean / self.slots
        return min(max(wait, LEAST_SECONDS), MOST_SECONDS)
