"""The `flask` command as operators run it: a process of its own that ends without a word more."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[3]


def flask(*words: str, redis_url: str) -> subprocess.CompletedProcess[str]:
    environ = {"PATH": os.environ["PATH"], "KEY_PEPPER": "p" * 40, "REDIS_URL": redis_url}
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
    ],
    ids=" ".join,
)
def test_a_command_that_succeeds_writes_nothing_to_stderr(words, redis, redis_url):
    result = flask(*words, redis_url=redis_url)
    assert (result.returncode, result.stderr) == (0, "")


def test_a_command_that_fails_writes_one_line_to_stderr(redis, redis_url):
    result = flask("keys", "revoke", "nobody", redis_url=redis_url)
    assert (result.returncode, result.stderr) == (1, "Error: there is no key nobody\n")
