"""local/env_file.py: the lines of a `.env` file."""

from __future__ import annotations

from pathlib import Path

import pytest

from local.env_file import EnvFileError, parse_env, read_env


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
    ],
)
def test_a_line_gives_its_value(line: str, value: str) -> None:
    assert parse_env(line) == {"KEY": value}


def test_comments_and_empty_lines_are_nothing_and_the_last_of_a_name_wins() -> None:
    assert parse_env("# A=1\n\nB=2\r\n  # C=3\nB=4\n") == {"B": "4"}


@pytest.mark.parametrize("line", ["KEY", "1KEY=2", "A KEY=2", "KEY='a", "KEY='a' b"])
def test_another_line_is_an_error_that_names_the_line_and_hides_its_content(line: str) -> None:
    with pytest.raises(EnvFileError, match="line 2") as caught:
        parse_env(f"A=1\n{line}")
    assert "KEY='" not in str(caught.value)


def test_an_absent_file_has_no_settings(tmp_path: Path) -> None:
    assert read_env(tmp_path / ".env") == {}


def test_the_error_of_a_file_names_it(tmp_path: Path) -> None:
    file = tmp_path / ".env"
    file.write_text("nonsense")

    with pytest.raises(EnvFileError, match=f"{file}: line 1"):
        read_env(file)


def test_the_example_is_a_valid_file_that_sets_nothing() -> None:
    example = Path(__file__).parents[3] / ".env.example"

    assert example.exists()
    assert read_env(example) == {}
