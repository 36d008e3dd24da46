"""The dashboard and the alert rules name metrics and labels that exist; Prometheus takes them."""

from __future__ import annotations

import json
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from gateway.metrics.families import ALL
from tests.support.programs import program

DOCS = Path(__file__).parents[2] / "docs"
PAGE, RULES = DOCS / "metrics.md", DOCS / "alerts.yml"
DASHBOARD = json.loads((DOCS / "grafana.json").read_text())
FAMILIES = {family.name: family for family in ALL}
OF_HISTOGRAMS = re.compile(r"_(?:bucket|sum|count)$")
METRIC = re.compile(r"\b((?:inference|gen_ai|http)_\w+)(?:\{([^}]*)\})?")
ADDED = ("le", "job")  # labels of buckets, and of what Prometheus scrapes
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
        assert set(re.findall(r"(\w+)\s*[=!]", selector)) <= {*family.labels, *ADDED}, text
        used.add(family.name)
        labels |= {*family.labels, *ADDED}
    grouped = re.findall(r"\w+", " ".join(GROUPING.findall(text)))
    assert set(grouped) <= labels, text
    return used


def test_the_dashboard_shows_metrics_that_exist_and_all_of_them() -> None:
    used = set[str]().union(*map(check, expressions(DASHBOARD["panels"])))
    assert used == set(FAMILIES)


def test_each_query_of_the_dashboard_is_of_the_chosen_jobs() -> None:
    """One Prometheus may scrape several services, for instance a staging one."""
    for expression in expressions(DASHBOARD["panels"]):
        selectors = METRIC.findall(GROUPING.sub("", expression))
        assert all('job=~"$job"' in selector for _, selector in selectors), expression


def test_each_panel_says_what_it_shows_and_has_a_unit() -> None:
    for panel in DASHBOARD["panels"]:
        if panel["type"] != "row":
            used = set[str]().union(*map(check, expressions(panel["targets"])))
            assert all(FAMILIES[name].help in panel["description"] for name in used), panel["title"]
            assert panel["fieldConfig"]["defaults"]["unit"]
            assert panel["datasource"]["uid"] == "${datasource}"
    ids = [panel["id"] for panel in DASHBOARD["panels"]]
    assert len(ids) == len(set(ids))


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


FIRING = 'ALERTS{alertname="%s",alertstate="firing"}'


def promtool(*arguments: str | Path) -> None:
    command = [program("promtool"), *arguments]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stdout + done.stderr


def test_promtool_accepts_the_rules() -> None:
    promtool("check", "rules", RULES)


def test_promtool_accepts_the_queries_of_the_dashboard(tmp_path: Path) -> None:
    variables = {"$__rate_interval": "1m", "$__range": "1h", "$model": ".*", "$job": ".*"}
    rules = []
    for number, query in enumerate(sorted(set(expressions(DASHBOARD["panels"])))):
        for name, text in variables.items():
            query = query.replace(name, text)
        rules.append({"record": f"panel:query:{number}", "expr": query})
    file = tmp_path / "rules.json"  # JSON is YAML
    file.write_text(json.dumps({"groups": [{"name": "panels", "rules": rules}]}))
    promtool("check", "rules", file)


def test_the_rules_fire_in_trouble_and_only_then(tmp_path: Path) -> None:
    """Series of an hour: what each is, and which alerts fire at its end."""
    calls = 'inference_calls_total{model="m",provider="p",operation="chat",%s}'
    cases = {
        "quiet": (
            {
                "inference_build_info": "1x60",
                'inference_processes{process="worker"}': "2x60",
                calls % 'status="completed",error_type=""': "0+100x60",
                calls % 'status="failed",error_type="upstream_failed"': "0+1x60",
                "inference_slots": "1000x60",
                'inference_queue_calls{state="running"}': "10x60",
                "inference_queue_oldest_seconds": "1x60",
            },
            set(),
        ),
        "trouble": (
            {
                'inference_processes{process="worker"}': "0x60",
                calls % 'status="completed",error_type=""': "0+100x60",
                calls % 'status="failed",error_type="upstream_failed"': "0+10x60",
                "inference_slots": "100x60",
                'inference_queue_calls{state="running"}': "95x60",
                "inference_queue_oldest_seconds": "40x60",
                "inference_ledger_lag_seconds": "400x60",
                "inference_redis_memory_bytes": "80x60",
                "inference_redis_memory_max_bytes": "100x60",
            },
            {
                *("InferenceMetricsAbsent", "InferenceNoWorkers", "InferenceErrors"),
                *("InferenceSlotsFull", "InferenceQueueWaits", "InferenceLedgerBehind"),
                *("InferenceRedisMemory", "InferenceRedisMemoryLogs"),
            },
        ),
    }
    alerts = re.findall(r"- alert: (\w+)", RULES.read_text())
    tests = [
        {
            "name": name,
            "interval": "1m",
            "input_series": [
                {"series": series, "values": re.sub(r"^(\d+)x", r"\1+0x", values)}
                for series, values in inputs.items()
            ],
            "promql_expr_test": [
                {
                    "expr": f"count({FIRING % alert}) or vector(0)",
                    "eval_time": "59m",
                    "exp_samples": [{"labels": "{}", "value": int(alert in firing)}],
                }
                for alert in alerts
            ],
        }
        for name, (inputs, firing) in cases.items()
    ]
    file = tmp_path / "tests.json"
    file.write_text(
        json.dumps({"rule_files": [str(RULES)], "evaluation_interval": "1m", "tests": tests})
    )
    promtool("test", "rules", file)
