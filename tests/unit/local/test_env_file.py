"""local/env_file.py: the lines of a `.env` file."""

from __future__ import annotations

from pathlib import Path

import pytest

from local.env_file import EnvFileError, read_env


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / ".env"


@pytest.mark.parametrize(
    ("line", "value"),
    [
        ("KEY=sk-123", "sk-123"),
        ("  KEY = sk-123  ", "sk-123"),
        ("export KEY=sk-123", "sk-123"),
        ("KEY=", ""),
        ("KEY=a=b=", "a=b="),
        ("KEY=a#b", "a#b"),
        ("KEY=a # why", "a"),
        ("KEY= # nothing", ""),
        ("KEY='a # b'", "a # b"),
        ('KEY="a b" # why', "a b"),
        ("KEY='$HOME'", "$HOME"),
        ("KEY=$HOME", "$HOME"),
        ("KEY=${HOME}", "${HOME}"),
    ],
)
def test_a_line_gives_its_value_as_it_stands(file: Path, line: str, value: str) -> None:
    file.write_text(line)
    assert read_env(file) == {"KEY": value}


def test_comments_and_empty_lines_are_nothing_and_the_last_of_a_name_wins(file: Path) -> None:
    file.write_text("# A=1\n\nB=2\r\n  # C=3\nB=4\n")
    assert read_env(file) == {"B": "4"}


@pytest.mark.parametrize("line", ["KEY", "A KEY=2", "KEY='a", "KEY='a' b"])
@pytest.mark.parametrize(("before", "number"), [("A=1\n", 2), ("A=1\n\n# why\n\n", 5)])
def test_another_line_is_an_error_that_names_file_and_line_and_hides_the_content(
    file: Path, line: str, before: str, number: int
) -> None:
    file.write_text(f"{before}{line}\nB=2\n")
    with pytest.raises(EnvFileError, match=f"{file}: line {number} is not KEY=VALUE") as caught:
        read_env(file)
    assert "KEY='" not in str(caught.value)


def test_an_absent_file_has_no_settings(file: Path) -> None:
    assert read_env(file) == {}


def test_the_example_is_a_valid_file_that_sets_nothing() -> None:
    example = Path(__file__).parents[3] / ".env.example"

    assert example.exists()
    assert read_env(example) == {}
