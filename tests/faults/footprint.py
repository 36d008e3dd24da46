"""What a process and its children hold: memory and file descriptors, from Linux's /proc."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

PROC = Path("/proc")
RESET_PEAK = "5"  # proc(5), clear_refs


@dataclass(frozen=True)
class Footprint:
    """Bytes of memory, the most there were since the last look, and open file descriptors."""

    memory: int
    peak: int
    descriptors: int


def of(pid: int, beside: Iterable[int] = ()) -> Footprint:
    """What a process and its children hold now.

    Connections to these ports are not counted. The peak is counted anew from this call on.
    """
    uncounted = _sockets_to(frozenset(beside))
    memory = peak = descriptors = 0
    for each in _tree(pid):
        with contextlib.suppress(OSError):  # it has ended
            status = _status(each)
            memory += status["VmRSS"]
            peak += status["VmHWM"]
            descriptors += sum(name not in uncounted for name in _descriptors(each))
            (PROC / str(each) / "clear_refs").write_text(RESET_PEAK)
    return Footprint(memory, peak, descriptors)


def _tree(pid: int) -> Iterator[int]:
    yield pid
    with contextlib.suppress(OSError):
        for child in (PROC / f"{pid}/task/{pid}/children").read_text().split():
            yield from _tree(int(child))


def _status(pid: int) -> dict[str, int]:
    """The sizes in /proc/PID/status, in bytes."""
    sizes = {}
    for line in (PROC / str(pid) / "status").read_text().splitlines():
        name, _, value = line.partition(":")
        if value.endswith(" kB"):
            sizes[name] = int(value.removesuffix(" kB")) * 1024
    return sizes


def _descriptors(pid: int) -> Iterator[str]:
    for entry in os.scandir(PROC / str(pid) / "fd"):
        with contextlib.suppress(OSError):
            yield os.readlink(entry.path)


def _sockets_to(ports: frozenset[int]) -> frozenset[str]:
    """The names, as descriptors have them, of all sockets connected to one of these ports."""
    names = set()
    for line in (PROC / "net/tcp").read_text().splitlines()[1:]:
        fields = line.split()
        if int(fields[2].rpartition(":")[2], 16) in ports:
            names.add(f"socket:[{fields[9]}]")
    return frozenset(names)
