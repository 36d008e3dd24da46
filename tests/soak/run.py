"""One soak: warm up, let the crowd call, look at what is held, and say what is too much."""

from __future__ import annotations

import random
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.soak import sampler
from tests.soak.faults import FAULTS, until_well
from tests.soak.samples import Sample, defects, left_over, look
from tests.soak.service import SampledStack
from tests.soak.traffic import USERS, Crowd, burst

MARKS = (1_000, 2_000, 4_000, 10_000, 30_000)  # LiteLLM's
BETWEEN = 2_500  # calls, at most, from one look to the next
WARM_UP = 1_000  # calls
BURST = 2 * USERS  # calls whose clients have left are not over for the provider
CALM_LOOK_SECONDS = 0.7  # idle, a process collects its garbage twice a second
CALM_SECONDS = 10.0  # at most, until what calls leave behind has gone
LIVES_SECONDS = 150.0  # longest life of a key that a call leaves behind, and some
ROUNDS = 12  # least looks of a soak by the clock
ROUND_SECONDS = 300.0  # longest time between two of its faults

Tell = Callable[[str], None]


@dataclass
class Soak:
    """What came of it. `grown` names the types of objects there are most more of since the
    warm-up, or, with a trace, the lines of code that hold most more bytes."""

    samples: list[Sample] = field(default_factory=list)
    defects: list[str] = field(default_factory=list)
    counts: dict[str, int] = field(default_factory=dict)
    grown: dict[str, list[tuple[str, int]]] = field(default_factory=dict)
    logs: Path | None = None  # kept where there are defects


class Watch:
    """Looks at a running stack again and again, and compares with its first look after warm-up."""

    def __init__(self, stack: SampledStack, soak: Soak, tell: Tell, *, healthy: bool) -> None:
        self.stack, self.soak = stack, soak
        self._tell, self._healthy = tell, healthy
        self._since = time.monotonic()
        self._base: Sample | None = None
        self._start = self._look("start", 0)
        self._note(self._start)

    def look(self, when: str, calls: int) -> None:
        """Take a sample; the first is what the others are compared with."""
        sample = self._calm(when, calls)
        self.soak.defects += self._defects(sample)
        self._base = self._base or sample
        self._note(sample)

    def _note(self, sample: Sample) -> None:
        self.soak.samples.append(sample)
        self._tell(" | ".join(sample.cells()))

    def look_last(self, calls: int) -> None:
        """Take the last sample once all lives have ended: it is to be as it was at the start."""
        end = time.monotonic() + LIVES_SECONDS
        while True:
            sample = self._look("end", calls)
            if not left_over(self._start, sample) or time.monotonic() > end:
                break
            time.sleep(1)
        self.soak.defects += left_over(self._start, sample)
        self.look("end", calls)

    def _calm(self, when: str, calls: int) -> Sample:
        """The first sample without a defect that is like the one before, or the last in time."""
        end = time.monotonic() + CALM_SECONDS
        before = None
        while True:
            time.sleep(CALM_LOOK_SECONDS)
            sample = self._look(when, calls)
            held = sample.waiting, sample.web.greenlets, sample.worker.greenlets
            calm = held == before and not sample.waiting and not self._defects(sample)
            if calm or time.monotonic() > end:
                return sample
            before = held

    def _defects(self, sample: Sample) -> list[str]:
        # What a killed worker ran for callers who had left is found when its deadline has passed.
        leaks = [f"{sample.when}: {leak}" for leak in sample.leaks] if self._healthy else []
        return leaks + defects(self._base or sample, sample, 1 + len(self.stack.workers))

    def _look(self, when: str, calls: int) -> Sample:
        stack = self.stack
        sockets = stack.socket(stack.web), stack.socket(stack.workers[0])
        minutes = (time.monotonic() - self._since) / 60
        return look(when, calls, minutes, *sockets, stack.redis)


@contextmanager
def started(soak: Soak, workers: int = 1, trace: bool = False) -> Iterator[SampledStack]:
    """A service in a folder of its own, which stays where something goes wrong."""
    folder = Path(tempfile.mkdtemp(prefix="soak-"))
    with SampledStack(folder, workers=workers, trace=trace) as stack:
        yield stack
    if soak.defects:
        soak.logs = folder
    else:
        shutil.rmtree(folder)


def soak_calls(
    calls: int, seed: int, tell: Tell, *, trace: bool = False, to_the_end: bool = True
) -> Soak:
    """So many calls, with a look at each of MARKS and between them.

    Not `to_the_end`, it does not wait for what ends by itself, within two minutes.
    """
    soak = Soak()
    with started(soak, trace=trace) as stack, _crowd(stack, seed, healthy=True) as crowd:
        watch = Watch(stack, soak, tell, healthy=True)
        before = _warm_up(stack, crowd, watch, WARM_UP, trace)
        for mark in stops(calls):
            crowd.call(mark - (crowd.ended - WARM_UP))
            watch.look(f"{mark:,}", mark)
        if to_the_end:
            watch.look_last(calls)
        _conclude(soak, crowd, stack, before, trace)
    return soak


def stops(calls: int) -> list[int]:
    """After how many calls to look."""
    between = range(BETWEEN, calls, BETWEEN)
    return sorted({calls, *(mark for mark in (*MARKS, *between) if mark < calls)})


def soak_minutes(minutes: float, seed: int, tell: Tell, *, trace: bool = False) -> Soak:
    """Rounds until the time is over, each with one fault at a random moment and a look after it.

    A second worker is there to be killed; the first is the one that is looked at.
    """
    soak, rng = Soak(), random.Random(f"faults {seed}")
    seconds = min(ROUND_SECONDS, minutes * 60 / ROUNDS)
    with started(soak, 2, trace) as stack, _crowd(stack, seed, healthy=False) as crowd:
        watch = Watch(stack, soak, tell, healthy=False)
        before = _warm_up(stack, crowd, watch, WARM_UP, trace)
        end = time.monotonic() + minutes * 60
        while time.monotonic() < end:
            fault = rng.choice(FAULTS)
            moment = rng.uniform(0.1, 0.6) * seconds

            def one_round(fault: Any = fault, moment: float = moment) -> None:
                over = time.monotonic() + seconds
                time.sleep(moment)
                fault(stack)
                time.sleep(max(0.0, over - time.monotonic()))

            crowd.call_during(one_round)
            until_well(stack)
            watch.look(fault.__name__.replace("_", " "), crowd.ended - WARM_UP)
        watch.look_last(crowd.ended - WARM_UP)
        _conclude(soak, crowd, stack, before, trace)
    return soak


def _crowd(stack: SampledStack, seed: int, *, healthy: bool) -> Crowd:
    return Crowd(stack.port, stack.key, random.Random(seed), healthy=healthy)


def _warm_up(
    stack: SampledStack, crowd: Crowd, watch: Watch, calls: int, trace: bool
) -> dict[str, dict[str, int]]:
    crowd.call(calls)
    burst(stack.port, stack.key, BURST)
    _held(
        stack, trace
    )  # asked for a trace, a process needs much memory: that belongs to the warm-up
    watch.look("warm", 0)
    return _held(stack, trace)


def _held(stack: SampledStack, trace: bool) -> dict[str, dict[str, int]]:
    what = sampler.TRACE if trace else sampler.TYPES
    sockets = {"web": stack.socket(stack.web), "worker": stack.socket(stack.workers[0])}
    return {name: sampler.ask(path, what) for name, path in sockets.items()}


def _conclude(
    soak: Soak, crowd: Crowd, stack: SampledStack, before: dict[str, dict[str, int]], trace: bool
) -> None:
    for name, now in _held(stack, trace).items():
        more = {what: count - before[name].get(what, 0) for what, count in now.items()}
        soak.grown[name] = sorted(more.items(), key=lambda row: -row[1])[:10]
    soak.defects += crowd.defects
    soak.counts = dict(sorted(crowd.counts.items()))
    if "Traceback" in stack.logs():
        soak.defects.append("a traceback in the logs")
