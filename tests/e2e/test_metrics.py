"""Metrics, usage and ledger agree after calls of every kind, over several real processes."""

from __future__ import annotations

import http.client
import json
import re
import time
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from itertools import chain, cycle, islice
from typing import Any

import pytest
import requests
from prometheus_client.parser import text_string_to_metric_families

from api.console import formats
from gateway.account import books
from gateway.account.api_keys import public_id
from gateway.account.database import schema
from gateway.account.key_fields import NANO
from gateway.account.ledger import Sums, open_ledger
from gateway.metrics.families import ALL
from gateway.metrics.live import snapshot
from gateway.queue import keys
from gateway.settings import Settings
from tests.support import console
from tests.support.programs import program
from tests.support.prometheus import RATE_INTERVAL, Prometheus
from tests.support.stack import PATIENCE_SECONDS, ROOT, Stack, until

pytestmark = pytest.mark.slow

TOKEN = "a token of Prometheus, and of nobody else"
CHAT, MESSAGES = "/chat/completions", "/messages"
RESPONSES, EMBEDDINGS = "/responses", "/embeddings"
RETRIED = "a text for this test of metrics alone, of call {number}"
CACHED = {"X-Cache": "on"}


@dataclass(frozen=True)
class Kind:
    """A kind of call; `leaves`: its client goes after the first event of the stream."""

    path: str
    body: dict[str, Any]
    headers: Mapping[str, str] = field(default_factory=dict)
    leaves: bool = False


def chat(model: str, text: str = "hello there", **more: Any) -> dict[str, Any]:
    return {"model": model, "messages": [{"role": "user", "content": text}], **more}


# Answers and streams of each API, failures, retries, fallbacks, kept responses, clients that leave.
KINDS = (
    *(Kind(CHAT, chat(f"fake/echo-{number}", "one two three")) for number in range(3)),
    Kind(CHAT, chat("fake/stream-20-1-reason", stream=True)),
    Kind(CHAT, chat("fake/echo", usage={"include": True})),
    Kind(CHAT, chat("claude/echo", stream=True, max_tokens=50)),
    Kind(CHAT, chat("demo/echo")),
    Kind(CHAT, chat("demo/echo", "kept for a while", stream=True), CACHED),
    Kind(CHAT, chat("fake/echo", "kept for a while"), CACHED),
    Kind(CHAT, chat("fake/once-503", RETRIED)),
    Kind(CHAT, chat("fake/status-400")),
    Kind(CHAT, chat("fake/status-500")),  # its breaker opens
    Kind(CHAT, chat("fake/stream-8-1-cut", stream=True)),
    Kind(CHAT, chat("closed/model", models=["fake/echo", "claude/echo"])),
    Kind(CHAT, chat("fake/stream-400-50", stream=True), leaves=True),
    Kind(MESSAGES, chat("claude/echo", "a message", max_tokens=50, stream=True)),
    Kind(MESSAGES, chat("fake/echo", "a message", max_tokens=50)),
    Kind(RESPONSES, {"model": "fake/echo", "input": "a response"}),
    Kind(RESPONSES, {"model": "fake/echo", "input": "a response", "stream": True}),
    Kind(EMBEDDINGS, {"model": "fake/embedding", "input": ["one", "two"]}),
)
# What never becomes a call.
REFUSED = (
    Kind(CHAT, chat("nobody/knows")),
    Kind(CHAT, {"model": "fake/echo", "messages": "wrong"}),
)
CALLS, CLIENTS = 2_000, 32
PANELS = json.loads((ROOT / "docs" / "grafana.json").read_text())["panels"]


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Any:
    folder = tmp_path_factory.mktemp("metrics")
    url = f"sqlite:///{folder}/account.db"
    schema.upgrade_url(url)
    env = {
        "METRICS_TOKEN": TOKEN,
        "METRICS_BY_KEY": "1",
        "WEB_CONCURRENCY": "2",
        "UPSTREAM_RETRIES": "1",
        "DATABASE_URL": url,
    }
    with Stack(folder, workers=2, env=env) as running:
        yield running


Series = tuple[str, frozenset[tuple[str, str]]]


class Scrape:
    """What Prometheus reads: the values of each metric by their labels, less those of `before`."""

    def __init__(self, stack: Stack, before: Scrape | None = None) -> None:
        url = f"http://127.0.0.1:{stack.port}/metrics"
        headers = {"Authorization": f"Bearer {TOKEN}"}
        response = requests.get(url, headers=headers, timeout=PATIENCE_SECONDS)
        assert response.status_code == 200, response.text
        earlier = before.values if before is not None else {}
        self.values: dict[Series, float] = {}
        for family in text_string_to_metric_families(response.text):
            for sample in family.samples:
                series = sample.name, frozenset(sample.labels.items())
                self.values[series] = sample.value - earlier.get(series, 0.0)

    def sum(self, name: str, **labels: str) -> float:
        return sum(value for _, value in self._of(name, labels))

    def by(self, name: str, *labels: str) -> Counter[tuple[str, ...]]:
        values: Counter[tuple[str, ...]] = Counter()
        for mine, value in self._of(name, {}):
            values[tuple(mine[label] for label in labels)] += round(value)
        return +values

    def usd(self, name: str) -> int:
        """The sum of a metric of money, in 1e-9 USD."""
        return sum(round(value * 1e9) for _, value in self._of(name, {}))

    def _of(self, name: str, labels: Mapping[str, str]) -> Iterator[tuple[dict[str, str], float]]:
        for (each, mine), value in self.values.items():
            if each == name and mine >= labels.items():
                yield dict(mine), value


@dataclass(frozen=True)
class Call:
    """A call, and how it was answered."""

    kind: Kind
    status: int
    id: str


class Client:
    """Makes calls one after the other over a kept connection, which is cheap."""

    def __init__(self, stack: Stack, key: str) -> None:
        self._headers = {"Authorization": f"Bearer {key}", "Content-Type": "application/json"}
        self._connection = http.client.HTTPConnection("127.0.0.1", stack.port, PATIENCE_SECONDS)

    def make(self, kinds: Iterable[tuple[int, Kind]]) -> list[Call]:
        """Make calls and read their responses."""
        calls = [self._make(number, kind) for number, kind in kinds]
        self._connection.close()
        return calls

    def _make(self, number: int, kind: Kind) -> Call:
        body = json.dumps(kind.body).replace("{number}", str(number))
        headers = {**self._headers, **kind.headers}
        self._connection.request("POST", f"/inference/v1{kind.path}", body, headers)
        response = self._connection.getresponse()
        if kind.leaves:
            while not response.readline().startswith(b"data: "):
                pass
            response.close()
            self._connection.close()
        else:
            response.read()
        return Call(kind, response.status, response.headers.get("X-Generation-Id", ""))


def make_calls(stack: Stack, key: str, count: int) -> list[Call]:
    """Make so many calls of all kinds by CLIENTS at once, and some that are refused."""
    kinds = list(enumerate([*islice(cycle(KINDS), count), *REFUSED * 10]))
    shares = [kinds[number::CLIENTS] for number in range(CLIENTS)]
    with ThreadPoolExecutor(CLIENTS) as pool:
        return [*chain(*pool.map(lambda share: Client(stack, key).make(share), shares))]


def test_metrics_usage_ledger_and_console_agree_after_2000_mixed_calls(stack: Stack) -> None:
    key = stack.keys.create("mixed calls")
    scope, headers = public_id(key), {"Authorization": f"Bearer {key}"}
    before = Scrape(stack)
    calls = make_calls(stack, key, CALLS)
    assert len({each.id for each in calls if each.id}) == CALLS
    settings = Settings(redis_url=stack.server.url, database_url=stack.env["DATABASE_URL"])
    ledger = open_ledger(settings, stack.redis)

    def ledger_sums() -> Sums:
        return ledger.totals(scope, 0).all_time

    until(lambda: ledger_sums().requests == CALLS, what=f"{CALLS} calls in the ledger")
    assert books.differences(stack.redis, ledger, [scope]) == []
    sums, scrape = ledger_sums(), Scrape(stack, before)
    assert scrape.sum("inference_calls_total") == CALLS
    tokens = scrape.by("inference_tokens_total", "type")
    assert tokens == Counter(
        {
            (name,): count
            for name in ("input", "cache_read", "cache_write", "cache_write_1h", "output")
            if (count := getattr(sums, name))
        }
    )
    cost = scrape.usd("inference_cost_usd_total")
    assert cost == sums.cost_nano > 0
    assert cost == scrape.usd("inference_key_cost_usd_total")
    assert scrape.usd("inference_saved_usd_total") == sums.saved_nano > 0
    params = {"start_time": str(int(time.time()) - 86_400)}
    usage = requests.get(f"{stack.url}/usage", headers=headers, params=params, timeout=60).json()
    results = [result for bucket in usage["data"] for result in bucket["results"]]
    assert sum(result["num_model_requests"] for result in results) == CALLS
    assert sum(result["input_uncached_tokens"] for result in results) == sums.input
    assert sum(result["output_tokens"] for result in results) == sums.output
    assert round(sum(result["cost"] for result in results) * 1e9) == cost
    with console.sign_in(stack, key) as browser:
        page = browser.get(f"{console.address(stack)}/usage", timeout=PATIENCE_SECONDS).text
    assert f"<dt>Requests</dt><dd>{formats.count(CALLS)}</dd>" in page
    assert f"<dt>Cost</dt><dd>{formats.nano(cost)}</dd>" in page
    assert f"<dt>Output tokens</dt><dd>{formats.short(sums.output)}</dd>" in page

    values = {value for _, labels in scrape.values for name, value in labels if name != "key"}
    assert not {"fake/echo-1", "nobody/knows", scope} & values
    left = sum(each.kind.leaves for each in calls)
    assert scrape.sum("inference_calls_total", status="cancelled") == left
    for name in ("retries", "fallbacks", "breaker_skips", "cache_hits", "estimated_calls"):
        assert scrape.sum(f"inference_{name}_total") > 0, name
    assert scrape.sum("gen_ai_server_time_to_first_token_seconds_count") > CALLS / 10
    until(lambda: snapshot(stack.redis)["web_processes"] == 2, what="both processes report")
    assert snapshot(stack.redis)["workers"] == 2

    # Both web processes add what they have counted in a few seconds.
    name = "http_server_request_duration_seconds_count"
    statuses = Counter((f"/inference/v1{each.kind.path}", str(each.status)) for each in calls)

    def counted() -> Counter[tuple[str, ...]]:
        counts = Scrape(stack, before).by(name, "http_route", "http_response_status_code")
        return Counter({each: count for each, count in counts.items() if each in statuses})

    until(lambda: counted() == statuses, what=f"{statuses}, not {counted()}")


def panel_queries(panel: dict[str, Any], model: str = "") -> list[str]:
    """The expressions of a panel as Grafana sends them; with a model, those of `stat` panels."""
    if model and panel["type"] != "stat":
        return []
    values = {"$__rate_interval": RATE_INTERVAL, "$__range": "1h", "$job": ".*"}
    values["$model"] = model or ".*"
    queries = []
    for target in panel.get("targets", ()):
        query = target["expr"]
        for name, value in values.items():
            query = query.replace(name, value)
        queries.append(query)
    return queries


def test_a_real_prometheus_has_series_for_every_panel_and_rule(stack: Stack) -> None:
    program("prometheus")
    key = stack.keys.create("dashboard", limit=NANO, limit_reset="daily", limit_unit="tokens")
    stack.redis.config_set("maxmemory", 1 << 30)
    queries = [expr for panel in PANELS for expr in panel_queries(panel)]
    # Nobody reads a panel of one figure that says "No data" because nothing has failed.
    queries += [expr for panel in PANELS for expr in panel_queries(panel, "demo/echo")]
    rules = ROOT / "docs" / "alerts.yml"
    names = "|".join(family.name for family in ALL)
    selectors = re.findall(rf"(?:{names})(?:_\w+)?(?:\{{.*?\}})?", rules.read_text())
    queries += [f"last_over_time({each}[1m])" for each in selectors]
    with Prometheus(stack.folder / "prometheus", stack.port, TOKEN, rules) as prometheus:

        def has_series(query: str) -> bool:
            if prometheus.query(query):
                return True
            make_calls(stack, key, len(KINDS))  # for a rate, calls must go on
            return False

        for query in queries:
            until(lambda query=query: has_series(query), what=f"series of {query}")
        assert {rule["health"] for rule in prometheus.rules()} == {"ok"}


def test_a_web_process_that_ends_adds_what_it_has_counted(stack: Stack) -> None:
    name, route = "http_server_request_duration_seconds_count", "/inference/v1/models"
    before = Scrape(stack).sum(name, http_route=route)
    for _ in range(5):
        requests.get(f"{stack.url}/models", headers=stack.headers(), timeout=PATIENCE_SECONDS)
    stack.web.terminate()
    stack.web.wait()
    counts = stack.redis.hgetall(keys.METRICS)
    stack.web = stack.start_web(stack.port)  # tests run in any order
    stack.until_ready()
    start = f"http_server_request_duration_seconds\tGET\t{route}\t200\t"
    after = sum(
        int(value)
        for field, value in counts.items()
        if field.decode().startswith(start) and not field.endswith(b"sum")
    )
    assert after == before + 5
