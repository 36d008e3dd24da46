"""How long a refused caller should wait: until the calls that are queued now should have ended.

That is depth × mean time of a call ÷ slots. A call costs no round trip for it: the depth comes with
the refusal, the times with the outcomes that pass through this process, and the slots of all live
workers are read once a second, only while calls wait or are refused.
"""

from __future__ import annotations

from redis import Redis

from gateway.queue import commands
from gateway.queue.lease import live_workers
from gateway.queue.protocol import Outcome

UNKNOWN_SECONDS = 5.0  # to wait where nothing is known yet
LEAST_SECONDS, MOST_SECONDS = 1.0, 120.0
LATELY = 100  # calls over which the mean is taken


class Backlog:
    """What one web process knows of the queue and of the workers."""

    def __init__(self) -> None:
        self.depth = 0  # calls that waited when somebody last looked
        self.slots = 0  # calls that all live workers run at once; 0: unknown
        self.wanted = False  # whether `seconds` was called, or will be, since the last look
        self._mean = 0.0  # seconds
        self._ended = 0

    def ended(self, outcome: Outcome) -> None:
        """Take a call's time on its worker into the mean, if its outcome has it."""
        milliseconds = outcome.timings.get("work")
        if milliseconds is None:
            return
        self._ended = min(self._ended + 1, LATELY)
        self._mean += (milliseconds / 1000 - self._mean) / self._ended

    def look(self, redis: Redis) -> None:
        """Read depth and slots from Redis. Raises RedisError."""
        self.wanted = False
        self.depth = commands.depth(redis)
        # If all workers have gone, expect as many slots when they come back.
        self.slots = sum(each.slots for each in live_workers(redis).values()) or self.slots

    def seconds(self, depth: int | None = None) -> float:
        """Return in how many seconds (1 to 120) `depth` queued calls should have ended.

        Without `depth`, those that were queued at the last look.
        """
        self.wanted = True
        if depth is not None:
            self.depth = depth
        if not self.slots or not self._ended:
            return UNKNOWN_SECONDS
        wait = self.depth * self._mean / self.slots
        return min(max(wait, LEAST_SECONDS), MOST_SECONDS)
