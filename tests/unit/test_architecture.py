"""Which part may know which: the map of the house, and its enforcement.

A file may import the standard library and what every matching row names, with all that is below.
"""

from __future__ import annotations

import ast
import fnmatch
import socket
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]

MAY_IMPORT = {
    # The two processes' entries
    "wsgi.py": "app gateway gevent",
    "gunicorn.conf.py": "gateway gevent gunicorn",
    "app.py": "api gateway flask",
    # The HTTP face: neither workers nor providers, whose tasks are enqueued by dotted name
    "api/*": "api gateway flask werkzeug click gevent redis orjson",
    "api/gunicorn_worker.py": "gunicorn",
    # The worker process: no Flask, api or app
    "workers/*": "workers providers gateway gevent redis rq orjson",
    # Upstream dialects: they see two modules of the gateway, and one of them speaks HTTP
    "providers/*": "providers gateway.chat gateway.errors orjson",
    "providers/transport.py": "requests urllib3",
    "providers/connection.py": "urllib3",
    # What both processes share: no Flask, no HTTP client
    "gateway/*": "gateway gevent redis orjson",
    "gateway/dispatch.py": "rq",
    "gateway/validation*.py": "pydantic pydantic_core typing_extensions",
    # `make prices`
    "tools/*": "gateway genai_prices",
    # `make run`
    "local/*": "local gateway redis",
    "local/model_server.py": "xllamacpp",
}
# The launcher hands its whole environment on to the processes that it starts.
MAY_READ_ENVIRONMENT = ("gateway/settings.py", "local/run.py")
MOST_LINES = 300
MAY_BE_LONGER = ("gateway/errors.py",)  # one tree of small classes, which stays in one place
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


def imported(tree: ast.Module) -> set[str]:
    """The full names of all that is imported anywhere in a file; "." for what is relative."""
    names: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            module = node.module if node.level == 0 else "."
            names |= {f"{module}.{alias.name}" for alias in node.names}
    return names


def allowed(path: str) -> list[str]:
    rows = [names for pattern, names in MAY_IMPORT.items() if fnmatch.fnmatch(path, pattern)]
    return " ".join(rows).split()


def forbidden(path: str, names: set[str]) -> list[str]:
    """Those of the names that this file may not import."""
    permitted = (*sys.stdlib_module_names, *allowed(path))
    return sorted(
        name
        for name in names
        if not any(name == known or name.startswith(f"{known}.") for known in permitted)
    )


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
def test_a_file_imports_only_what_the_map_allows(path):
    assert allowed(path), f"{path} has no place on the map"
    assert forbidden(path, imported(parsed(path))) == []


@pytest.mark.parametrize("path", sources())
def test_only_the_settings_read_the_environment(path):
    assert not reads_environment(parsed(path)) or path in MAY_READ_ENVIRONMENT


@pytest.mark.parametrize("path", sources())
def test_no_file_is_longer_than_300_lines(path):
    length = len((ROOT / path).read_text("utf-8").splitlines())
    assert length <= MOST_LINES or path in MAY_BE_LONGER


@pytest.mark.parametrize("pattern", MAY_IMPORT)
def test_every_row_of_the_map_is_about_some_file(pattern):
    assert any(fnmatch.fnmatch(path, pattern) for path in sources())


@pytest.mark.parametrize(
    ("path", "line"),
    [
        ("providers/openai.py", "import requests"),
        ("providers/openai.py", "from urllib3.util import Retry"),
        ("providers/openai.py", "from gateway import settings"),
        ("providers/openai.py", "from gateway.catalogue import Catalogue"),
        ("providers/openai.py", "from redis import Redis"),
        ("providers/transport.py", "import workers"),
        ("workers/tasks.py", "from flask import request"),
        ("workers/tasks.py", "import api.errors as e"),
        ("workers/tasks.py", "from app import create_app"),
        ("workers/tasks.py", "def late():\n    import requests"),
        ("api/chat.py", "from workers import tasks"),
        ("api/console/pages.py", "import providers"),
        ("api/chat.py", "import rq"),
        ("app.py", "from workers.tasks import run"),
        ("gateway/keys.py", "import rq.job"),
        ("gateway/dispatch.py", "import flask"),
        ("gateway/chat.py", "import requests"),
        ("gateway/policy.py", "import pydantic"),
        ("gateway/policy.py", "from . import errors"),
    ],
)
def test_the_map_forbids(path, line):
    assert forbidden(path, imported(ast.parse(line)))


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
