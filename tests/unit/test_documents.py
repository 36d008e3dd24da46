"""What the documents say is there is there, and the other way round."""

from __future__ import annotations

import dataclasses
import json
import re
import tomllib
from pathlib import Path

import pytest

from app import create_app
from gateway.errors import CallCancelled, GatewayError, Unavailable, kinds
from gateway.settings import Settings

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text()
OPERATIONS = (ROOT / "docs" / "operations.md").read_text()
FIELDS = [field for field in dataclasses.fields(Settings) if field.metadata]


def shown_default(value: object) -> str:
    if isinstance(value, bool):
        return "`1`" if value else "`0`"
    if isinstance(value, tuple):
        return f"`{','.join(value)}`" if value else ""
    if isinstance(value, float):
        return f"`{value:g}`"
    return f"`{value}`" if value != "" else ""


@pytest.mark.parametrize("field", FIELDS, ids=lambda field: field.name)
def test_the_readme_has_every_setting_with_its_default(field: dataclasses.Field) -> None:
    row = f"| `{field.metadata['variable']}` | {shown_default(field.default)} |"
    assert row in README, f"{row} {field.metadata['doc']} |"


def test_every_setting_in_the_readme_is_real() -> None:
    table = README.partition("| variable | default | what |")[2]
    named = re.findall(r"^\| `([A-Z_]+)` \|", table, re.MULTILINE)
    assert named == [field.metadata["variable"] for field in FIELDS]


def test_every_route_is_in_the_readme(settings: Settings) -> None:
    table = README.partition("| address | what |")[2].partition("\n\n")[0]
    named = set(re.findall(r"^\| `([A-Z]+ [^`]+)`", table, re.MULTILINE))
    served = set()
    for rule in create_app(settings).url_map.iter_rules():
        if rule.endpoint == "home":
            continue  # a page, at / and at the base URL
        path = re.sub(r"<(?:path:)?(\w+)>", "{id}", rule.rule)
        served |= {f"{method} {path}" for method in rule.methods - {"HEAD", "OPTIONS"}}
    assert named == served


def test_every_command_in_the_documents_is_real(settings: Settings) -> None:
    cli = create_app(settings).cli
    text = README + OPERATIONS + (ROOT / "Procfile").read_text()
    named = set(re.findall(r"flask (keys \w+|check-config)", text))
    real = {"check-config", *(f"keys {name}" for name in cli.commands["keys"].commands)}
    assert named == real
    assert "check-config" in cli.commands


def test_every_model_and_key_variable_of_the_catalogue_is_in_the_readme() -> None:
    catalogue = tomllib.loads((ROOT / "gateway" / "catalogue" / "models.toml").read_text())
    for model in catalogue["models"]:
        assert f"`{model}`" in README, model
    for row in catalogue["providers"].values():
        for variable in (row.get("key_variable"), row.get("base_url_variable")):
            assert variable is None or f"`{variable}`" in README, variable


@pytest.mark.parametrize("kind", list(kinds()), ids=lambda kind: kind.__name__)
def test_every_error_is_in_the_operations_table(kind: type[GatewayError]) -> None:
    if kind in (CallCancelled, Unavailable):
        return  # never sent; only a base
    rows = re.findall(rf"^\| {kind.status} \| .*", OPERATIONS, re.MULTILINE)
    assert rows, f"no row for {kind.status}"
    assert kind.code is None or any(f"`{kind.code}`" in row for row in rows), kind.code


def test_make_targets_in_the_documents_are_real() -> None:
    makefile = (ROOT / "Makefile").read_text()
    text = README + (ROOT / "CONTRIBUTING.md").read_text()
    for target in set(re.findall(r"(?:^ {4}|`)make (\w+)", text, re.MULTILINE)):
        assert re.search(rf"^{target}:", makefile, re.MULTILINE), target


def test_files_that_the_documents_link_to_exist() -> None:
    for page in (README, OPERATIONS, (ROOT / "CONTRIBUTING.md").read_text()):
        for link in re.findall(r"\]\((?!http)([^)#]+)\)", page):
            assert (ROOT / link).exists(), link


def test_the_connections_of_the_deploy_fit_its_redis_plan() -> None:
    env = json.loads((ROOT / "app.json").read_text())["env"]
    each = int(env["REDIS_CONNECTIONS"]["value"])
    processes = int(env["WEB_CONCURRENCY"]["value"]) + 1
    assert 2 * each * processes + 1 <= 20


def test_the_procfile_starts_what_the_documents_say() -> None:
    lines = dict(
        line.split(": ", 1) for line in (ROOT / "Procfile").read_text().strip().splitlines()
    )
    assert lines == {
        "web": "gunicorn wsgi:app",
        "worker": "python -m workers",
        "release": "flask check-config",
    }
