"""The cases of providers: folders that both suites of dialects read."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

import providers
from providers.http.provider import HttpProvider
from providers.http.transport import Transport

KEY = "sk-operator-key"
CONTRACT = Path(__file__).parents[1] / "contract"


def http_providers() -> dict[str, HttpProvider]:
    """Every provider of the table of wires that is called over HTTP, by the name of its wire."""
    made = {
        name: providers.create(
            name,
            base_url="https://provider.example/v1",
            api_key=KEY,
            headers={},
            transport=Transport(),
        )
        for name in providers.WIRES
    }
    return {name: each for name, each in made.items() if isinstance(each, HttpProvider)}


def having(folder: Path, wires: dict[str, Any], *patterns: str) -> list[Any]:
    """The cases of these wires with a file of each pattern, as parameters `case` and `wire`."""
    return [
        pytest.param(case, wire, id=f"{name}-{case.name}")
        for name, wire in wires.items()
        for case in sorted(path.parent for path in folder.glob(f"{name}/*/source.txt"))
        if all(any(case.glob(pattern)) for pattern in patterns)
    ]


def read(path: Path) -> Any:
    """The JSON of a file."""
    return json.loads(path.read_text("utf-8"))


def refusal(case: Path) -> tuple[int, bytes, dict[str, str]]:
    """Status, body and headers of the refusal `response.STATUS.json` of a case."""
    (path,) = case.glob("response.*.json")
    headers = case / "headers.json"
    return (
        int(path.name.split(".")[1]),
        path.read_bytes(),
        read(headers) if headers.exists() else {},
    )
