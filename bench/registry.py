"""Everything that can be measured, by name, in the order of the table."""

from __future__ import annotations

import functools
from dataclasses import dataclass

from bench import peers, targets
from bench.targets import Start


@dataclass(frozen=True)
class Target:
    """One row of the table."""

    title: str
    version: str
    processes: int
    start: Start
    peer: bool = False
    most_connections: int = 1_000_000  # it is not asked for more
    streams: bool = True
    compare_cpu: bool = False

    def installed(self, name: str) -> bool:
        return not self.peer or peers.installed(name)


def _peer(name: str) -> Target:
    module = peers.PEERS[name]
    start = functools.partial(module.start, home=peers.HOME / name)
    return Target(module.TITLE, module.VERSION, module.PROCESSES, start, peer=True)


TARGETS: dict[str, Target] = {
    "direct": Target("the upstream itself", "", 0, targets.direct),
    "ours": Target("this service, 1 web + 1 worker", "", 2, targets.Ours()),
    "bare": Target("bare Flask + requests", "", 2, targets.bare, compare_cpu=True),
    "stock": Target(
        "stock RQ, 1 web + 2 workers", "", 3, targets.stock, most_connections=64, streams=False
    ),
    **{name: _peer(name) for name in peers.PEERS},
}
