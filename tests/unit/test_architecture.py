"""Rules that import-linter cannot check; its own are in pyproject.toml."""

from __future__ import annotations

import ast
import socket
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]

# The launcher hands its whole environment on to the processes that it starts.
MAY_READ_ENVIRONMENT = ("gateway/settings.py", "local/run.py")
NOT_OURS = ("tests", "bench", "docs", "venv", "build")


def sources() -> list[str]:
    """Every file of the service, by its path from the root."""
    paths = (path.relative_to(ROOT) for path in ROOT.rglob("*.py"))
    return sorted(
        path.as_posix()
        for path in paths
        if path.parts[0] not in NOT_OURS and not path.parts[0].startswith(".")
    )


def parsed(path: str) -> ast.Module:
    return ast.parse((ROOT / path).read_text("utf-8"), path)


def reads_environment(tree: ast.Module) -> bool:
    wanted = {"environ", "environb", "getenv", "getenvb", "putenv"}
    return any(
        isinstance(node, ast.Attribute)
        and node.attr in wanted
        and isinstance(node.value, ast.Name)
        and node.value.id == "os"
        or isinstance(node, ast.ImportFrom)
        and node.module == "os"
        and not wanted.isdisjoint(alias.name for alias in node.names)
        for node in ast.walk(tree)
    )


@pytest.mark.parametrize("path", sources())
def test_only_the_settings_read_the_environment(path):
    assert not reads_environment(parsed(path)) or path in MAY_READ_ENVIRONMENT


@pytest.mark.parametrize(
    "line",
    ["import os\nos.environ['A']", "import os\nos.getenv('A')", "from os import environ as e"],
)
def test_a_look_at_the_environment_is_noticed(line):
    assert reads_environment(ast.parse(line))


@pytest.mark.parametrize("family", [socket.AF_INET, socket.AF_INET6])
@pytest.mark.parametrize("method", ["connect", "connect_ex"])
def test_no_test_reaches_another_machine(family, method):
    address = "192.0.2.1" if family == socket.AF_INET else "2001:db8::1"
    with socket.socket(family) as connection, pytest.raises(pytest.fail.Exception):
        getattr(connection, method)((address, 80))


def test_a_name_is_no_way_around_that():
    with socket.socket() as connection, pytest.raises(pytest.fail.Exception):
        connection.connect(("example.com", 80))
