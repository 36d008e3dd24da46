"""gateway/memory.py: full collections when there is time for them."""

from __future__ import annotations

import gc
import platform
import subprocess
import sys
import weakref
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from gateway import memory
from gateway.memory import Collector

ROOT = Path(__file__).parents[3]


class Knot:
    """Garbage that only a collection finds."""

    def __init__(self) -> None:
        self.itself = self


@pytest.fixture
def old_garbage() -> Iterator[Callable[[], bool]]:
    """A settled process with garbage that small collections have passed over: is it still there?"""
    before = gc.get_threshold()
    memory.settle()
    knot = Knot()
    gc.collect(1)
    gc.collect(1)
    alive = weakref.ref(knot)
    del knot
    yield lambda: alive() is not None
    gc.unfreeze()
    gc.collect()
    gc.freeze()  # as it was: see tests/conftest.py
    gc.set_threshold(*before)


def test_a_process_without_calls_collects(old_garbage):
    Collector().tick(busy=False)
    assert not old_garbage()


def test_it_collects_young_garbage_after_calls(old_garbage, monkeypatch):
    monkeypatch.setattr(memory, "GIVE_BACK_SECONDS", -1)
    collector = Collector()
    collector.tick(busy=False)
    knot = Knot()
    young = weakref.ref(knot)
    del knot
    collector.tick(busy=False)
    assert young() is not None
    collector.tick(busy=True)
    collector.tick(busy=False)
    assert young() is None


def test_a_busy_process_does_not(old_garbage):
    Collector().tick(busy=True)
    assert old_garbage()


def test_a_busy_process_does_when_it_is_overdue(old_garbage, monkeypatch):
    collector = Collector()
    monkeypatch.setattr(memory, "OVERDUE_SECONDS", -1)
    collector.tick(busy=True)
    assert not old_garbage()


def test_python_makes_none_by_itself_in_a_process_that_serves(old_garbage):
    made = [Knot() for _ in range(20 * memory.YOUNG_OBJECTS * memory.MIDDLE)]
    assert len(made) and old_garbage()


def test_a_process_that_has_not_settled_is_left_to_python(old_garbage):
    gc.set_threshold(700, 10, 10)
    Collector().tick(busy=False)
    assert old_garbage()


HOLES = """
import gc
from gateway import memory
memory.settle()
def pages():
    return int(open("/proc/self/statm").read().split()[1])
def blocks():
    made = []
    for number in range(20):
        made.append(b"x" * 4_000_000)
        kept.append(bytes(40_000))
kept, before = [], pages()
for _ in range(5):
    blocks()
gc.collect(1)
memory.Collector().tick(busy=False)
print((pages() - before) * 4096)
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="another C library")
def test_a_process_without_calls_gives_what_was_freed_back() -> None:
    done = subprocess.run([sys.executable, "-c", HOLES], cwd=ROOT, capture_output=True, check=True)
    assert int(done.stdout) < 20_000_000


def test_memory_is_given_back_after_calls_and_not_all_the_time(
    old_garbage: Callable[[], bool], monkeypatch: pytest.MonkeyPatch
) -> None:
    given: list[None] = []
    monkeypatch.setattr(memory, "give_back", lambda: given.append(None))
    collector = Collector()
    seen = []
    for busy, later in ((True, 0), (False, 0), (True, 0), (False, 0), (False, 10), (False, 20)):
        monkeypatch.setattr(memory, "GIVE_BACK_SECONDS", 600 - 100 * later)
        collector.tick(busy)
        seen.append(len(given))
    assert seen == [0, 1, 1, 1, 2, 2]


def test_an_error_that_is_released_keeps_nothing_of_where_it_came_from() -> None:
    def fail() -> None:
        knot = Knot()
        seen.append(weakref.ref(knot))
        knot.itself = None  # type: ignore[assignment]
        try:
            raise KeyError("inner")
        except KeyError as inner:
            kept = inner  # a frame that keeps its own exception, as urllib3's do
            raise ValueError("outer") from kept

    seen: list[weakref.ref[Knot]] = []
    gc.disable()
    try:
        try:
            fail()
        except ValueError as error:
            outer = error
        assert seen[0]() is not None
        memory.release(outer)
        assert seen[0]() is None
        assert (outer.args, outer.__traceback__, outer.__cause__) == (("outer",), None, None)
    finally:
        gc.enable()
