"""How much is measured, and what can be chosen."""

from __future__ import annotations

from dataclasses import dataclass, replace

CELLS = ("latency", "frontier", "streams", "ratios", "full", "inside", "scaling", "far")


@dataclass(frozen=True)
class Plan:
    """Sizes of a run; `cells` are the parts to take, of CELLS."""

    seconds: float = 5.0  # of a cell of unstreamed calls
    stream_seconds: float = 5.0  # of a cell of streams, after its connections' first ones
    connections: tuple[int, ...] = (1, 16, 64, 256)
    delays: tuple[int, ...] = (0, 20, 500)
    streams: tuple[int, ...] = (1, 10, 100, 256, 512)
    repeats: int = 3
    memory_calls: int = 30_000
    in_flight: int = 1_000
    webs: tuple[int, ...] = (1, 2)
    workers: tuple[int, ...] = (1, 2, 4)
    cells: tuple[str, ...] = CELLS
    quick: bool = False

    def short(self) -> Plan:
        """The same with small cells: to see that all works, not for figures."""
        return replace(
            self,
            seconds=2.0,
            stream_seconds=1.3,
            connections=(1, 64, 256),
            delays=(0, 500),
            streams=(1, 10, 256),
            repeats=1,
            memory_calls=2_000,
            webs=(1,),
            workers=(1, 2),
            quick=True,
        )
