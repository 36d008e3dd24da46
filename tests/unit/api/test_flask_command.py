"""The `flask` command as operators run it: a process of its own that ends without a word more."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[3]


def flask(*words: str, redis_url: str, **environ: str) -> subprocess.CompletedProcess[str]:
    environ |= {"PATH": os.environ["PATH"], "KEY_PEPPER": "p" * 40, "REDIS_URL": redis_url}
    return subprocess.run(
        [sys.executable, "-m", "flask", *words],
        cwd=ROOT,
        env=environ,
        capture_output=True,
        text=True,
        timeout=60,
    )


@pytest.mark.parametrize(
    "words",
    [
        ("--help",),
        ("routes",),
        ("check-config",),
        ("keys", "--help"),
        ("keys", "create", "me"),
        ("keys", "list"),
        ("db", "upgrade"),
    ],
    ids=" ".join,
)
def test_a_command_that_succeeds_writes_nothing_to_stderr(words, redis, redis_url):
    result = flask(*words, redis_url=redis_url)
    assert (result.returncode, result.stderr) == (0, "")


def test_a_command_that_fails_writes_one_line_to_stderr(redis, redis_url):
    result = flask("keys", "revoke", "nobody", redis_url=redis_url)
    assert (result.returncode, result.stderr) == (1, "Error: there is no key nobody\n")


def test_the_tables_of_a_database_are_made_once(redis, redis_url, tmp_path):
    url = f"sqlite:///{tmp_path}/account.db"
    first = flask("db", "upgrade", redis_url=redis_url, DATABASE_URL=url)
    again = flask("db", "upgrade", redis_url=redis_url, DATABASE_URL=url)
    assert (first.returncode, first.stderr, again.stderr) == (0, "", "")
    assert first.stdout.startswith("The tables have revision ") and ", before none" in first.stdout
    assert again.stdout == first.stdout.replace(", before none", "")


def test_a_database_that_is_away_fails_the_upgrade(redis, redis_url, tmp_path):
    url = f"postgres://user:secret@/db?host={tmp_path}"
    result = flask("db", "upgrade", redis_url=redis_url, DATABASE_URL=url)
    assert result.returncode == 1 and "secret" not in result.stderr
    assert result.stderr.startswith("Error: the database does not answer: ")
