"""The documents agree with the code: what they name exists, and what exists is documented."""

from __future__ import annotations

import json
import re
import tomllib
from dataclasses import fields
from pathlib import Path

import pytest

from app import create_app
from gateway.catalogue import file as catalogue_file
from gateway.errors import CallCancelled, GatewayError, Unavailable, kinds
from gateway.settings import Settings
from local.banner import banner
from local.model_server import MODEL
from tools.settings import PAGE, page

ROOT = Path(__file__).parents[2]
FILES = [
    *(ROOT / name for name in ("README.md", "CONTRIBUTING.md", "CHANGELOG.md", "bench/README.md")),
    *sorted((ROOT / "docs").rglob("*.md")),
    *sorted((ROOT / "bench" / "results").glob("*.md")),
]
PAGES = {str(file.relative_to(ROOT)): file.read_text() for file in FILES}
README, API, MODELS = PAGES["README.md"], PAGES["docs/api.md"], PAGES["docs/models.md"]
CATALOGUE = tomllib.loads((ROOT / "gateway" / "catalogue" / "models.toml").read_text())


def without_code(text: str) -> str:
    return re.sub(r"^```.*?^```$|^ {4}.*?$", "", text, flags=re.MULTILINE | re.DOTALL)


def anchors(text: str) -> set[str]:
    """The ids that GitHub gives the headings of a page."""
    headings = re.findall(r"^#+ (.+)$", without_code(text), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def test_the_readme_is_short() -> None:
    assert len(README.splitlines()) <= 170


def test_the_readme_shows_what_make_run_prints() -> None:
    printed = banner(
        "http://127.0.0.1:8000/inference/v1", "mk_inference_...", f"local/{MODEL}", (), "..."
    )
    for line in printed.strip("\n-").splitlines():
        assert line.startswith("curl ") or f"    {line}\n" in README or not line, line
    assert f'"model": "local/{MODEL}"' in README


def test_the_page_of_settings_is_up_to_date() -> None:
    assert PAGE.read_text() == page(), "run: make settings"


def test_every_variable_in_the_documents_is_real() -> None:
    text = "".join(PAGES.values()) + (ROOT / ".env.example").read_text()
    suffixes = "SECONDS|LIMIT|BYTES|RETRIES|FAILURES|CONCURRENCY|CONNECTIONS|PEPPER|MODELS|URL"
    named = set(re.findall(rf"\b[A-Z][A-Z_]+_(?:{suffixes})\b", text))
    of_libraries = {"AWS_ENDPOINT_URL", "OTEL_SPAN_ATTRIBUTE_VALUE_LENGTH_LIMIT"}
    real = {*re.findall(r"`([A-Z_]+)`", page()), *of_libraries}
    assert named - real == set()


def test_every_route_is_in_the_api_page_and_the_readme_names_no_other(
    settings: Settings,
) -> None:
    table = README.partition("| endpoint | response |")[2].partition("\n\n")[0]
    named = set(re.findall(r"^\| `([A-Z]+ [^`]+)`", table, re.MULTILINE))
    app = create_app(settings)
    served = set()
    for rule in app.url_map.iter_rules():
        if rule.endpoint == "home" or rule.rule.startswith("/console"):
            continue  # pages for people
        path = re.sub(r"<(?:\w+:)?\w+>", "{id}", rule.rule)
        served |= {f"{method} {path}" for method in rule.methods - {"HEAD", "OPTIONS"}}
    assert named and named <= served
    missing = {name for name in served if name.rpartition("/v1")[2] not in API}
    assert missing == set()


def test_every_command_in_the_documents_is_real(settings: Settings) -> None:
    cli = create_app(settings).cli
    text = "".join(PAGES.values()) + (ROOT / "Procfile").read_text()
    groups = ("keys", "owners", "webhooks", "account", "db", "queue", "workers")
    named = set(re.findall(rf"flask ((?:{'|'.join(groups)}) \w+|check-config)", text))
    real = {f"{group} {name}" for group in groups for name in cli.commands[group].commands}
    real.add("check-config")
    assert named == real
    assert "check-config" in cli.commands


def test_every_model_and_key_variable_of_the_catalogue_is_in_the_page_of_models() -> None:
    for model in CATALOGUE["models"]:
        assert f"`{model}`" in MODELS, model
    for row in CATALOGUE["providers"].values():
        for variable in (row.get("key_variable"), row.get("base_url_variable")):
            assert variable is None or f"`{variable}`" in MODELS + page(), variable


def test_every_shutdown_date_is_in_the_page_of_models() -> None:
    rows = [row for row in catalogue_file.read("").models.values() if row.successor]
    table = MODELS.partition("## Shutdown dates")[2].partition("\n## ")[0]
    listed = re.findall(r"^\| `(\S+)` \| (\S+) \| `(\S+)` \|$", table, re.MULTILINE)
    expected = {(row.id, shutdown(row), row.successor) for row in rows}
    assert set(listed) == expected


def shutdown(row: catalogue_file.ModelRow) -> str:
    dates = [value for value in CATALOGUE["models"][row.id].values() if hasattr(value, "isoformat")]
    return dates[0].isoformat()


@pytest.mark.parametrize("heading", ["provider", "model"])
def test_every_field_of_the_catalogue_is_in_the_page_of_models(heading: str) -> None:
    kind = {"provider": catalogue_file.ProviderRow, "model": catalogue_file.ModelRow}[heading]
    table = MODELS.partition(f"### Fields of a {heading}\n")[2].partition("\n#")[0]
    listed = re.findall(r"^\| `(\w+)` \|", table, re.MULTILINE)
    # Fields with metadata are set elsewhere than in their row.
    written = {item.name for item in fields(kind) if not item.metadata}
    assert sorted(listed) == sorted(written - {"name", "id"})


EXAMPLES = re.findall(r"```toml\n(.*?)```", MODELS, re.DOTALL)


@pytest.mark.parametrize("number", range(len(EXAMPLES)))
def test_the_examples_of_a_models_file_are_valid(number: int, tmp_path: Path) -> None:
    file = tmp_path / "models.toml"
    file.write_text(EXAMPLES[number])
    assert catalogue_file.read(str(file)).models


@pytest.mark.parametrize("kind", list(kinds()), ids=lambda kind: kind.__name__)
def test_every_error_is_in_the_table_of_the_api_page(kind: type[GatewayError]) -> None:
    if kind in (CallCancelled, Unavailable):
        return  # never sent; only a base
    rows = re.findall(rf"^\| {kind.status} \| .*", API, re.MULTILINE)
    assert rows, f"no row for {kind.status}"
    assert kind.code is None or any(f"`{kind.code}`" in row for row in rows), kind.code


def test_make_targets_in_the_documents_are_real() -> None:
    makefile = (ROOT / "Makefile").read_text()
    for text in PAGES.values():
        for target in set(re.findall(r"(?:^ {4}|`)make (\w+)", text, re.MULTILINE)):
            assert re.search(rf"^{target}:", makefile, re.MULTILINE), target


@pytest.mark.parametrize("name", PAGES)
def test_links_lead_to_files_and_headings_that_exist(name: str) -> None:
    for path, anchor in re.findall(r"\]\((?!http)([^)#]*)(?:#([^)]+))?\)", PAGES[name]):
        file = (ROOT / name).parent / path if path else ROOT / name
        assert file.exists(), path
        assert not anchor or anchor in anchors(file.read_text()), f"{path}#{anchor}"


def test_files_that_the_documents_name_exist() -> None:
    pattern = re.compile(r"`((?:api|gateway|workers|providers|tests|docs)/[\w/.]+\.[a-z]+)`")
    for name, text in PAGES.items():
        for path in pattern.findall(text):
            assert "NAME" in path or (ROOT / path).exists(), f"{name}: {path}"


def test_every_row_of_the_fault_results_is_in_the_page_of_reliability() -> None:
    rows = re.compile(r"^\| ([FKPRCBUAQWDI]\d?[\w-]*) \|", re.MULTILINE)
    listed = rows.findall(PAGES["docs/reliability.md"])
    assert sorted(listed) == sorted(rows.findall(PAGES["docs/results/faults.md"]))


def test_the_picture_of_the_benchmark_has_the_numbers_of_its_results() -> None:
    picture = (ROOT / "docs" / "images" / "benchmark.svg").read_text()
    file = re.search(r"bench/results/[\d-]+\.json", picture)
    assert file
    for name, target in json.loads((ROOT / file[0]).read_text())["targets"].items():
        if name == "direct":
            continue
        cells = [c for c in target["frontier"] if (c["delay"], c["connections"]) == (0, 64)]
        rate, added = cells[0]["rps"], target["latency"]["added_p50"]
        assert f">{rate:,.0f}<" in picture or f">{rate:.1f}<" in picture, name
        assert f">{added:.1f}" in picture or f">{added:.0f}" in picture, name


def test_the_connections_of_the_deploy_fit_its_redis_plan() -> None:
    env = json.loads((ROOT / "app.json").read_text())["env"]
    each = int(env["REDIS_CONNECTIONS"]["value"])
    processes = int(env["WEB_CONCURRENCY"]["value"]) + 1
    assert 2 * each * processes + 1 <= 20


def test_the_procfile_starts_what_the_documents_say() -> None:
    lines = (ROOT / "Procfile").read_text().strip().splitlines()
    commands = dict(line.split(": ", 1) for line in lines)
    assert commands == {
        "web": "gunicorn wsgi:app",
        "worker": "python -m workers",
        "release": "flask check-config && flask db upgrade",
    }
    assert all(f"`{command}`" in PAGES["docs/deploy.md"] for command in commands.values())
