"""bench: its load generator against its own Python upstream."""

from __future__ import annotations

import sys

import pytest

from bench import frames, load
from bench.client import Endpoint, Load
from bench.processes import Child, clean_env, cpu_seconds, free_port, status, tree, wait_until_open

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def upstream(tmp_path_factory):
    folder, port = tmp_path_factory.mktemp("upstream"), free_port()
    command = [sys.executable, "-m", "bench.python_upstream", str(port)]
    child = Child(command, clean_env(folder), folder / "log")
    try:
        wait_until_open(port, child, "/count")
        yield Endpoint(port)
    finally:
        child.stop()


def test_calls_are_made_over_kept_connections_and_checked(upstream, monkeypatch):
    monkeypatch.setattr(load, "WRK", None)

    cell = load.calls(upstream, connections=3, delay=20, seconds=0.2)

    assert (cell.failed, cell.timeouts) == (0, 0)
    assert cell.calls >= 6
    assert cell.p50 is not None and cell.p50 >= 20


def test_each_slot_asks_as_often_as_it_may(upstream):
    exchanges = Load(upstream, upstream.request("wait=0"), 4, most=3, keep=False).run()

    assert sorted(exchange.slot for exchange in exchanges) == sorted([0, 1, 2, 3] * 3)
    assert {exchange.error for exchange in exchanges} == {""}


def test_each_slot_asks_as_often_as_it_has_to(upstream):
    exchanges = Load(upstream, upstream.request("wait=50"), 2, seconds=0.01, least=3).run()

    assert sorted(exchange.slot for exchange in exchanges) == sorted([0, 1] * 3)


def test_every_frame_of_a_stream_is_seen(upstream):
    request = upstream.request("words=5 every=10", stream=True)

    exchanges = Load(upstream, request, 3, most=2, spread=0.02).run()

    found = [frames.stream(exchange.pieces, 5) for exchange in exchanges]
    assert [one.problem for one in found] == [""] * 6
    assert all(0 <= delay < 5 for one in found for delay in one.delays)


def test_tokens_are_counted_while_all_streams_are_open(upstream, monkeypatch):
    monkeypatch.setattr(load, "OPENING_SECONDS", 0.1)
    looks = []

    count = load.tokens(upstream, 3, 0.4, lambda: looks.append(None))

    assert len(looks) == 2
    assert 0 < count < 3 * 64


def test_a_call_is_given_up_after_its_patience(upstream):
    request = upstream.request("wait=5000")

    [exchange] = Load(upstream, request, 1, most=1, patience=0.2).run()

    assert exchange.error == "timeout"


def test_a_server_that_is_away_is_not_asked_in_a_tight_loop():
    away = Endpoint(free_port())

    exchanges = Load(away, away.request("wait=0"), 1, seconds=0.5).run()

    assert {exchange.error for exchange in exchanges} == {"ConnectionRefusedError"}
    assert len(exchanges) <= 4
    assert load.check(away) == "ConnectionRefusedError"
    assert status(away.port, "/") == 0


def test_a_child_is_measured_with_its_children_and_ends_with_them(tmp_path):
    script = "import subprocess, sys; subprocess.run([sys.executable, '-c', 'input()'])"
    child = Child([sys.executable, "-c", script], clean_env(tmp_path), tmp_path / "log")
    try:
        assert cpu_seconds([child.pid]) is None or child.pid in tree(child.pid)
    finally:
        child.stop()
    assert child.ended
    assert tree(child.pid) == []
