"""bench: percentiles, pairs, tables and the guard's comparison."""

from __future__ import annotations

import json

import pytest

from bench import bars, guard, inside, measure, numbers, table
from bench.__main__ import _chosen
from bench.plan import CELLS, Plan
from bench.processes import procfile


@pytest.mark.parametrize(
    ("values", "share", "expected"),
    [
        ([], 0.5, None),
        ([7.0], 0.99, 7.0),
        ([3.0, 1.0, 2.0], 0.5, 2.0),
        ([4.0, 3.0, 2.0, 1.0], 0.5, 2.0),
        (list(range(1, 101)), 0.99, 99),
        (list(range(1, 201)), 0.99, 198),
        ([1.0, 2.0], 0.0, 1.0),
        ([1.0, 2.0], 1.0, 2.0),
    ],
)
def test_a_percentile_is_a_value_that_was_measured(values, share, expected):
    assert numbers.percentile(values, share) == expected


def test_pairs_are_measured_in_turn():
    order = []

    def measured(name: str, value: float) -> float:
        order.append(name)
        return value

    pairs = numbers.pairs(lambda: measured("ours", 2.0), lambda: measured("other", 4.0), 3)

    assert order == ["ours", "other"] * 3
    assert numbers.ratio(pairs) == 0.5


def test_a_ratio_is_the_median_and_passes_over_what_did_not_serve():
    assert numbers.ratio([(1, 1), (8, 2), (2, 1), (5, 0)]) == 2
    assert numbers.ratio([(5, 0)]) is None


def test_differences_and_shares_of_what_is_not_known_are_not_known():
    assert numbers.minus(None, 1) is None
    assert numbers.minus(3, 1) == 2
    assert numbers.per(10, 0) is None
    assert numbers.per(None, 4) is None
    assert numbers.per(10, 4) == 2.5


def test_what_streams_add_is_taken_from_the_upstreams_own_cell():
    direct = [{"streams": 10, "first_p50": 1, "first_p99": 2, "token_p50": 0.1, "token_p99": 0.2}]
    ours = [{"streams": 10, "first_p50": 4, "first_p99": 7, "token_p50": 1.1, "token_p99": None}]

    measure.add_differences(ours, direct)

    assert ours[0]["added_first_p50"] == 3
    assert ours[0]["added_first_p99"] == 5
    assert ours[0]["added_token_p50"] == 1.0
    assert ours[0]["added_token_p99"] is None


COMMITTED = {
    "call": {"evalsha": 3, "round trip": 6},
    "stream": {"evalsha": 19, "round trip": 37},
    "connections": 8,
    "ratio_to_bare": 0.7,
    "cpu_to_bare": {"call": 1.0, "token": 0.8},
}


def test_the_guard_is_silent_about_what_is_no_worse():
    found = {**COMMITTED, "call": {"evalsha": 2}, "ratio_to_bare": 0.36, "connections": 7}
    found["cpu_to_bare"] = {}  # where it cannot be measured

    assert guard.compare(COMMITTED, COMMITTED) == []
    assert guard.compare(found, COMMITTED) == []


@pytest.mark.parametrize(
    ("worse", "told"),
    [
        ({"call": {"evalsha": 4, "round trip": 6}}, "a call takes 4 × evalsha, and 3 are"),
        ({"call": {"publish": 1}}, "a call takes 1 × publish, and 0 are"),
        ({"stream": {"round trip": 38}}, "a stream takes 38 × round trip, and 37 are"),
        ({"connections": 9}, "9 Redis connections"),
        ({"ratio_to_bare": 0.34}, "0.34 of the bare proxy's calls/s, and 0.35 (half"),
        ({"cpu_to_bare": {"call": 1.6}}, "a call takes 1.60 of the bare proxy's CPU, and 1.50 "),
        ({"cpu_to_bare": {"token": 1.3}}, "a token takes 1.30 of the bare proxy's CPU, and 1.20 "),
    ],
)
def test_the_guard_tells_each_thing_that_is_worse(worse, told):
    [problem] = guard.compare({**COMMITTED, **worse}, COMMITTED)

    assert problem.startswith(told)


def test_the_guard_commits_the_highest_counts_and_the_median_ratio():
    other = {**COMMITTED, "call": {"evalsha": 2, "get": 1}, "ratio_to_bare": 0.9}
    third = {**COMMITTED, "connections": 7, "ratio_to_bare": 0.8}
    other["cpu_to_bare"] = {"call": 1.2, "token": 0.9}
    third["cpu_to_bare"] = {"call": 1.1, "token": 0.7}

    assert guard.highest([COMMITTED, other, third]) == {
        "call": {"evalsha": 3, "get": 1, "round trip": 6},
        "stream": COMMITTED["stream"],
        "connections": 8,
        "ratio_to_bare": 0.8,
        "cpu_to_bare": {"call": 1.1, "token": 0.8},
    }


def test_what_an_idle_service_does_is_no_part_of_a_call():
    counts = {"reads": 1_290, "commands": {"evalsha": 603, "set": 90, "xread": 199}}
    idle = {"reads": 40, "commands": {"set": 40, "evalsha": 4}}

    whole = guard.whole(counts, idle, seconds=8, calls=200)

    assert whole == {"round trip": 6, "evalsha": 3, "xread": 1}


def test_counts_per_call_include_what_scripts_call():
    counts = {"reads": 1_200, "commands": {"evalsha": 600, "hset": 800}}

    assert inside.per_call(counts, 200) == {
        "round_trips": 6,
        "commands": 7,
        "by_name": {"evalsha": 3, "hset": 4},
    }


@pytest.mark.parametrize(
    ("value", "expected"),
    [(None, "–"), (0, "0"), (3.0, "3"), (1.234, "1.23"), (12.34, "12.3"), (12345.6, "12,346")],
)
def test_numbers_are_short(value, expected):
    assert table.number(value) == expected


CELL = {
    "delay": 0,
    "connections": 64,
    "calls": 100,
    "rps": 50.0,
    "p50": 1.0,
    "p99": 2.0,
    "failed": 0,
    "timeouts": 3,
    "cpu_ms": {"web": 0.5},
}
STREAM = {
    "streams": 10,
    "whole": 9,
    "broken": 1,
    "problems": ["order"],
    "first_p50": 1.0,
    "first_p99": 2.0,
    "token_p50": 0.5,
    "token_p99": 0.75,
    "gap": 21.5,
}


def record() -> dict:
    machine = {"cores": 2, "load_before": 0.1, "python": "3.11.7", "system": "Linux"}
    head = {"title": "one", "version": "1.0", "processes": 2}
    one = {**head, "status": "served", "idle_mb": 100.0, "frontier": [CELL], "streams": [STREAM]}
    one["ratio"] = {"connections": 64, "delay": 0, "pairs": [[2, 1]], "median": 2.0}
    one["cpu_ratio"] = {"token": {"pairs": [[40, 50], [42, 60]], "median": 0.75}}
    two = {**head, "title": "two", "status": "not installed"}
    three = {**head, "title": "three", "status": "did not serve", "reason": "first call: timeout"}
    return {
        "made": "2026-01-02T03:04:05+00:00",
        "quick": True,
        "machine": machine,
        "upstream": "nginx",
        "redis": "redis",
        "load": "wrk",
        "seconds": 5.0,
        "repeats": 3,
        "targets": {"one": one, "two": two, "three": three},
    }


def test_the_table_names_what_is_missing_and_what_did_not_serve():
    text = table.text(json.loads(json.dumps(record())))

    assert "50 (2) 3 timeouts" in text
    assert "| one 1.0 [2]: a token" in text and "| 41   | 55   | 0.75" in text
    assert "not installed" in text
    assert "did not serve first call: timeout" in text
    assert "1 (order)" in text
    assert "no figures to quote" in text
    rows = [line for line in text.splitlines() if line.startswith("|")]
    assert all(line.endswith("|") for line in rows)


def test_bars_are_told_of_what_was_measured_alone():
    found = record()
    found["targets"]["litellm"] = {"ratio": {"median": 6.0}}
    found["targets"]["portkey"] = {"ratio": {"median": 1.0}}
    found["targets"]["bare"] = {"ratio": {"median": None}}
    found["inside"] = {"redis": [{"connections": 64, "round_trips": 4.0}]}

    assert bars.rows(found) == [
        ("calls/s at 64 connections / LiteLLM's", 6.0, "≥ 5", True),
        ("the same / Portkey's", 1.0, "≥ 1.25", False),
        ("Redis round trips a call at 64 connections", 4.0, "≤ 4", True),
    ]


def test_rows_of_a_table_have_one_width():
    lines = table.table(["a", "long head"], [["longer", "b"], ["c", "d"]]).splitlines()

    assert len({len(line) for line in lines}) == 1
    assert lines[1].startswith("|--------|")


def test_what_is_chosen_is_known_and_keeps_its_order():
    assert _chosen("", CELLS) == CELLS
    assert _chosen("streams, latency", CELLS) == ("latency", "streams")
    with pytest.raises(SystemExit, match="unknown: nothing"):
        _chosen("nothing", CELLS)


def test_a_quick_plan_says_so():
    assert Plan().short().quick
    assert not Plan().quick


def test_commands_come_from_the_procfile():
    assert procfile("web")[1:] == ["-m", "gunicorn", "wsgi:app"]
    assert procfile("worker")[1:] == ["-m", "workers"]
    with pytest.raises(LookupError):
        procfile("nothing")
