"""What a soak counts as a leak, without a service."""

from __future__ import annotations

from dataclasses import replace

import pytest

from tests.soak.run import stops
from tests.soak.samples import HEAD, Inside, Sample, defects, left_over, prefixes, slope, slopes

AT_REST = Inside(rss_mb=60.0, fds=20, greenlets=6, objects=3_000)
BASE = Sample("warm", 0, 0.1, AT_REST, AT_REST, 2.0, 12, 0, {"gw:key": 1, "rq:worker": 1})


@pytest.mark.parametrize("name", ["web", "worker"])
@pytest.mark.parametrize(
    ("field", "most", "words"),
    [
        ("rss_mb", 100.0, "MB"),
        ("fds", 28, "file descriptors"),
        ("greenlets", 6, "greenlets"),
        ("objects", 8_000, "objects"),
    ],
)
def test_a_process_may_grow_so_far_and_no_further(name, field, most, words):
    def grown(value):
        return replace(BASE, when="later", **{name: replace(AT_REST, **{field: value})})

    assert defects(BASE, grown(most), 2) == []
    [defect] = defects(BASE, grown(most + 1), 2)
    assert defect.startswith(f"later: {name}: ")
    assert words in defect


def test_connections_to_redis_are_bounded_by_process():
    assert defects(BASE, replace(BASE, connections=16), 2) == []
    assert defects(BASE, replace(BASE, connections=17), 2) != []
    assert defects(BASE, replace(BASE, connections=17), 3) == []


def test_a_key_that_was_not_there_at_the_start_is_left_over():
    end = replace(BASE, keys={**BASE.keys, "gw:outcome": 2, "rq:worker": 2})
    assert left_over(BASE, end) == [
        "Redis at the end: 2 keys gw:outcome:* too many",
        "Redis at the end: 1 keys rq:worker:* too many",
    ]


def test_what_the_first_call_makes_for_good_is_not_left_over():
    end = replace(BASE, keys={**BASE.keys, "gw:inbox": 1, "rq:queues": 1})
    assert left_over(BASE, end) == []
    assert left_over(BASE, replace(end, keys={**end.keys, "gw:inbox": 2})) != []


def test_redis_may_not_keep_memory_nor_calls():
    assert left_over(BASE, replace(BASE, redis_mb=4.0)) == []
    assert left_over(BASE, replace(BASE, redis_mb=4.1)) != []
    assert left_over(BASE, replace(BASE, leaks=("rq:wip:infer: 1 calls",))) != []


def test_keys_are_counted_by_their_first_two_parts():
    names = ["rq:job:a", "rq:job:b", "rq:queues", "gw:cancel:worker-1"]
    assert prefixes(names) == {"rq:job": 2, "rq:queues": 1, "gw:cancel": 1}


def test_the_slope_is_that_of_the_line_that_fits_best():
    assert slope([(0, 1), (1, 3), (2, 5)]) == pytest.approx(2)
    assert slope([(0, 0), (1, 1), (2, 0), (3, 1)]) == pytest.approx(0.2)
    assert slope([(4, 1), (4, 3)]) == slope([]) == 0


def test_memory_is_judged_by_the_second_half_of_the_calls():
    def sample(calls, mb):
        return replace(BASE, calls=calls, web=replace(AT_REST, rss_mb=mb))

    settled = [sample(0, 60), sample(1_000, 80), sample(5_000, 90), sample(10_000, 91)]
    assert slopes(settled) == (pytest.approx(0.2), 0)


def test_a_soak_looks_at_the_marks_at_its_end_and_between():
    assert stops(500) == [500]
    assert stops(5_000) == [1_000, 2_000, 2_500, 4_000, 5_000]
    assert stops(30_000)[-2:] == [27_500, 30_000]


def test_a_row_of_the_table_has_a_cell_for_each_column():
    assert len(BASE.cells()) == len(HEAD)
