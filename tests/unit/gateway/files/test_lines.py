"""Lines of files that arrive in pieces."""

from __future__ import annotations

import pytest

from gateway.files.lines import lines

TEXT = b'{"a": 1}\r\n\n  \n{"b": 2}\n' + b"c" * 30 + b"\n{}"
LINES = [(1, b'{"a": 1}'), (4, b'{"b": 2}'), (5, None), (6, b"{}")]


@pytest.mark.parametrize("size", [1, 2, 3, 7, 11, 1000])
def test_lines_do_not_depend_on_pieces(size):
    pieces = [TEXT[start : start + size] for start in range(0, len(TEXT), size)]
    assert list(lines(pieces, longest=20)) == LINES


def test_a_line_of_the_greatest_length_is_whole():
    assert list(lines([b"a" * 20 + b"\n"], longest=20)) == [(1, b"a" * 20)]


def test_the_last_line_may_be_too_long():
    assert list(lines([b"a\n", b"b" * 21], longest=20)) == [(1, b"a"), (2, None)]


@pytest.mark.parametrize("pieces", [[], [b""], [b"\n"], [b" \r\n"]])
def test_an_empty_file_has_no_lines(pieces):
    assert list(lines(pieces, longest=20)) == []


def test_a_long_line_is_not_held():
    def endless():
        for _ in range(1000):
            yield b"a" * 100_000

    assert list(lines(endless(), longest=20)) == [(1, None)]
