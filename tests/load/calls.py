"""What a load is made of and what came of it; `run` has it made in another process."""

from __future__ import annotations

import pickle
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path

from tests.faults.client import Seen


@dataclass(frozen=True)
class Ask:
    """One call to make. Times are in seconds."""

    nonce: str
    model: str
    stream: bool
    at: float = 0.0  # after the load began
    leave_after: float = 0.0  # 0: the client stays
    rate: int = 0  # bytes it reads a second; 0: as they come
    image: int = 0  # bytes of the image that the body carries
    deadline: float = 60.0


@dataclass
class Call(Seen):
    """One call as its client saw it."""

    first: float = 0.0  # seconds until its first token, or its answer
    gaps: list[float] = field(default_factory=list)  # seconds between arrivals of tokens
    refused_tcp: bool = False
    slow: bool = False


@dataclass(frozen=True)
class Load:
    """Calls to one address; with `keep`, over connections that are used again."""

    port: int
    key: str
    asks: list[Ask]
    keep: bool = False


@dataclass(frozen=True)
class Result:
    """What came of a load."""

    calls: list[Call]
    cpu: float  # share of a core that the clients took while they loaded
    late: float  # seconds by which a call began too late, at most: the clients were too slow


def run(load: Load) -> Result:
    """Make a load in a process of its own."""
    done = subprocess.run(
        [sys.executable, "-m", "tests.load.client"],
        cwd=Path(__file__).parents[2],
        input=pickle.dumps(load),
        stdout=subprocess.PIPE,
        check=True,
    )
    result: Result = pickle.loads(done.stdout)
    return result
