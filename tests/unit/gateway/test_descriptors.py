"""gateway/descriptors.py, in processes with few descriptors."""

from __future__ import annotations

import resource
import subprocess
import sys

from gateway import descriptors

RAISE = """
import resource
resource.setrlimit(resource.RLIMIT_NOFILE, (64, 128))
from gateway import descriptors
print(descriptors.raise_limit(), descriptors.limit(), descriptors.spare(8), descriptors.spare(1000))
"""
EXHAUST = """
import resource, os
from gateway import descriptors
resource.setrlimit(resource.RLIMIT_NOFILE, (64, 64))
print(descriptors.exhausted())
files = []
try:
    while True:
        files.append(os.open("/", os.O_RDONLY))
except OSError:
    print(descriptors.exhausted())
os.close(files.pop())
print(descriptors.exhausted())
"""


def run(program: str) -> list[str]:
    result = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    return result.stdout.split()


def test_the_soft_limit_is_raised_to_the_hard_one() -> None:
    assert run(RAISE) == ["128", "128", "56", "1"]


def test_a_process_knows_when_it_has_no_descriptor_left() -> None:
    assert run(EXHAUST) == ["False", "True", "False"]


def test_a_limit_that_the_system_does_not_allow_leaves_the_old_one(monkeypatch) -> None:
    def refuse(*_: object) -> None:
        raise ValueError

    monkeypatch.setattr(resource, "setrlimit", refuse)
    assert descriptors.raise_limit() == descriptors.limit()
