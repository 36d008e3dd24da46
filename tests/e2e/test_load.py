"""A small load through the harness of `make load`, as part of every test run: no timings."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.load.arena import LoadArena
from tests.load.rows import ROWS
from tests.load.run import HEAD, table
from tests.support.stack import until

pytestmark = pytest.mark.slow

TABLE = Path(__file__).parents[2] / "docs" / "results" / "load.md"
SEED = "5"
Start = Callable[..., LoadArena]


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    """A function that starts a service with these settings."""
    running: list[LoadArena] = []

    def start(**env: str) -> LoadArena:
        arena = LoadArena(tmp_path, SEED, env, patience=5)
        running.append(arena)
        arena.__enter__()
        return arena

    yield start
    for arena in running:
        arena.__exit__(None, None, None)


def held(arena: LoadArena) -> bool:
    return [bar for bar in arena.bars if not bar.held] == []


@pytest.mark.parametrize(
    "limit",
    [{"QUEUE_LIMIT": "5"}, {"WEB_MAX_IN_FLIGHT": "10"}],
    ids=lambda limit: next(iter(limit)),
)
def test_overload_is_refused_with_a_time_to_come_back(start: Start, limit: dict[str, str]) -> None:
    arena = start(WORKER_CONCURRENCY="5", **limit)
    calls = arena.load(arena.asks(["delay-500", "nonce-stream-5-50"], 200, 1.0), keep=False)
    arena.statuses(calls, [200, 503])
    arena.nothing_broken(calls)
    refused = [call for call in calls if call.status == 503]
    assert held(arena), arena.bars
    assert refused
    assert any(call.answered for call in calls)
    assert all(1 <= int(call.retry_after) <= 120 for call in refused)
    assert {call.code for call in refused} == {"server_is_overloaded"}


def test_kept_connections_serve_answers_and_refusals(start: Start) -> None:
    arena = start(WORKER_CONCURRENCY="5", QUEUE_LIMIT="5")
    calls = arena.load(arena.asks(["delay-50"], 300, 1.0, streams=0), keep=True)
    arena.statuses(calls, [200, 503])
    arena.nothing_broken(calls)
    assert held(arena), arena.bars


def test_who_does_not_read_is_cut_off_and_disturbs_nobody(start: Start) -> None:
    arena = start()
    big = arena.asks(["nonce-stream-400-10-fat-16"], 3, 0.1, streams=1, rate=1024, leave=(20, 20))
    usual = arena.asks(["nonce-stream-20-50"], 30, 1.0, streams=1)
    calls = arena.load([*big, *usual])
    normal = [call for call in calls if not call.slow]
    arena.statuses(normal, [200])
    arena.nothing_broken(normal)
    assert held(arena), arena.bars
    left = min(call.left for call in calls if call.slow)
    log = [record for record in arena.upstream.log() if "fat" in record["model"]]
    assert [record["closed_early"] and record["ended"] < left for record in log] == [True] * 3


def test_those_who_leave_stop_their_calls(start: Start) -> None:
    arena = start()
    calls = arena.load(arena.asks(["delay-5000", "nonce-stream-50-100"], 40, 0.5, leave=(0.1, 1)))
    assert all(call.left for call in calls)
    until(lambda: all(record["ended"] for record in arena.upstream.log()))
    arena.nothing_broken(calls)
    assert held(arena), arena.bars


def test_the_documented_table_has_every_load() -> None:
    head, _ = table([]).splitlines()
    _, _, rest = TABLE.read_text().partition(head)
    rows = rest.partition("\n\n")[0].splitlines()[2:]
    assert [row.split(" | ")[0].removeprefix("| ") for row in rows] == sorted(ROWS)
    assert all(len(row.split(" | ")) == len(HEAD) for row in rows)
