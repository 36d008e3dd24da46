"""The dashboard and the alert rules name metrics and labels that exist; Prometheus takes them."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from gateway.metrics.families import ALL

DOCS = Path(__file__).parents[2] / "docs"
PAGE, RULES = DOCS / "metrics.md", DOCS / "alerts.yml"
DASHBOARD = json.loads((DOCS / "grafana.json").read_text())
FAMILIES = {family.name: family for family in ALL}
OF_HISTOGRAMS = re.compile(r"_(?:bucket|sum|count)$")
METRIC = re.compile(r"\b((?:inference|gen_ai|http)_\w+)(?:\{([^}]*)\})?")
# Labels look like metrics where they are grouped by.
GROUPING = re.compile(r"\b(?:by|without)\s*\(([^)]*)\)")


def expressions(value: Any) -> Iterator[str]:
    """Every `expr` in nested objects and lists."""
    if isinstance(value, dict):
        for name, each in value.items():
            if name == "expr":
                yield each
            else:
                yield from expressions(each)
    elif isinstance(value, list):
        for each in value:
            yield from expressions(each)


def check(text: str) -> set[str]:
    """The families that an expression names; fails for a metric or a label that does not exist."""
    used, labels = set(), set()
    for name, selector in METRIC.findall(GROUPING.sub("", text)):
        family = FAMILIES.get(name) or FAMILIES.get(OF_HISTOGRAMS.sub("", name))
        assert family is not None, name
        assert (family.name == name) == (family.kind != "histogram"), name
        assert set(re.findall(r"(\w+)\s*[=!]", selector)) <= {*family.labels, "le"}, text
        used.add(family.name)
        labels |= {*family.labels, "le"}
    grouped = re.findall(r"\w+", " ".join(GROUPING.findall(text)))
    assert set(grouped) <= labels, text
    return used


def test_the_dashboard_shows_metrics_that_exist_and_all_of_them() -> None:
    used = set[str]().union(*map(check, expressions(DASHBOARD["panels"])))
    assert used == set(FAMILIES)


def test_the_panels_of_the_dashboard_do_not_overlap() -> None:
    cells: set[tuple[int, int]] = set()
    for panel in DASHBOARD["panels"]:
        place = panel["gridPos"]
        own = {
            (place["x"] + x, place["y"] + y) for x in range(place["w"]) for y in range(place["h"])
        }
        assert not own & cells, panel["title"]
        assert max(x for x, _ in own) < 24
        cells |= own


def test_the_rules_name_metrics_that_exist() -> None:
    text = RULES.read_text()
    rules = re.findall(r"expr: (?:\|\n((?: {10,}.*\n)+)|(.*)\n)", text)
    assert len(rules) == text.count("- alert: ")
    for lines, line in rules:
        assert check(lines or line)


def test_the_page_of_metrics_has_each_metric() -> None:
    rows = re.findall(r"^\| `\w+` \| .* \|$", PAGE.read_text(), re.MULTILINE)
    expected = [
        f"| `{each.name}` | {each.kind} | {', '.join(f'`{name}`' for name in each.labels)} "
        f"| {each.help} |"
        for each in ALL
    ]
    assert rows == expected


@pytest.mark.skipif(
    not shutil.which("promtool") and not os.environ.get("CI"),
    reason="needs Debian's package prometheus",
)
def test_promtool_accepts_the_rules() -> None:
    done = subprocess.run(
        ["promtool", "check", "rules", RULES], capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 0, done.stdout + done.stderr
