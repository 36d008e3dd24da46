"""Metrics, usage and ledger agree after calls of every kind, over several real processes."""

from __future__ import annotations

import http.client
import json
import time
from collections import Counter
from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from itertools import chain, cycle, islice
from typing import Any

import pytest
import requests
from prometheus_client.parser import text_string_to_metric_families

from api.console import formats
from gateway.account import books
from gateway.account.database import schema
from gateway.account.ledger import Sums, open_ledger
from gateway.metrics.live import snapshot
from gateway.queue import keys
from gateway.settings import Settings
from tests.support import console
from tests.support.stack import PATIENCE_SECONDS, Stack, until

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
    Kind(CHAT, chat("fake/stream-20-1", stream=True)),
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


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Any:
    folder = tmp_path_factory.mktemp("metrics")
    url = f"sqlite:///{folder}/account.db"
    schema.upgrade_url(url)
    env = {
        "METRICS_TOKEN": TOKEN,
        "WEB_CONCURRENCY": "2",
        "UPSTREAM_RETRIES": "1",
        "DATABASE_URL": url,
    }
    with Stack(folder, workers=2, env=env) as running:
        yield running


class Scrape:
    """What Prometheus reads: the values of each metric, by their labels."""

    def __init__(self, stack: Stack) -> None:
        url = f"http://127.0.0.1:{stack.port}/metrics"
        headers = {"Authorization": f"Bearer {TOKEN}"}
        response = requests.get(url, headers=headers, timeout=PATIENCE_SECONDS)
        assert response.status_code == 200, response.text
        self.samples = [
            sample
            for family in text_string_to_metric_families(response.text)
            for sample in family.samples
        ]

    def sum(self, name: str, **labels: str) -> float:
        return sum(
            sample.value
            for sample in self.samples
            if sample.name == name and sample.labels.items() >= labels.items()
        )

    def by(self, name: str, label: str) -> Counter[str]:
        values: Counter[str] = Counter()
        for sample in self.samples:
            if sample.name == name:
                values[sample.labels[label]] += round(sample.value)
        return values


class Client:
    """Makes calls one after the other over a kept connection, which is cheap."""

    def __init__(self, stack: Stack) -> None:
        self._headers = {**stack.headers(), "Content-Type": "application/json"}
        self._connection = http.client.HTTPConnection("127.0.0.1", stack.port, PATIENCE_SECONDS)

    def make(self, calls: Iterable[tuple[int, Kind]]) -> list[tuple[Kind, int, str]]:
        """Make calls and read their responses; return the status and the call's id of each."""
        made = [self._make(number, kind) for number, kind in calls]
        self._connection.close()
        return made

    def _make(self, number: int, kind: Kind) -> tuple[Kind, int, str]:
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
        return kind, response.status, response.headers.get("X-Generation-Id", "")


def test_metrics_usage_ledger_and_console_agree_after_2000_mixed_calls(stack: Stack) -> None:
    calls = list(enumerate([*islice(cycle(KINDS), CALLS), *REFUSED * 10]))
    with ThreadPoolExecutor(CLIENTS) as pool:
        shares = (calls[number::CLIENTS] for number in range(CLIENTS))
        made = [*chain(*pool.map(lambda share: Client(stack).make(share), shares))]
    assert len({id for _, _, id in made if id}) == CALLS
    settings = Settings(redis_url=stack.server.url, database_url=stack.env["DATABASE_URL"])
    public_id = stack.key.split("_")[2]
    ledger = open_ledger(settings, stack.redis)

    def ledger_sums() -> Sums:
        return ledger.totals(public_id, 0).all_time

    until(lambda: ledger_sums().requests == CALLS, what=f"{CALLS} calls in the ledger")
    assert books.differences(stack.redis, ledger, [public_id]) == []
    sums, scrape = ledger_sums(), Scrape(stack)
    assert scrape.sum("inference_calls_total") == CALLS
    tokens = scrape.by("inference_tokens_total", "type")
    assert tokens == Counter(
        {
            name: count
            for name in ("input", "cache_read", "cache_write", "cache_write_1h", "output")
            if (count := getattr(sums, name))
        }
    )
    cost = sum(round(s.value * 1e9) for s in scrape.samples if s.name == "inference_cost_usd_total")
    assert cost == sums.cost_nano > 0
    saved = scrape.sum("inference_saved_usd_total")
    assert round(saved * 1e9) == sums.saved_nano > 0
    headers, params = stack.headers(), {"start_time": str(int(time.time()) - 86_400)}
    usage = requests.get(f"{stack.url}/usage", headers=headers, params=params, timeout=60).json()
    results = [result for bucket in usage["data"] for result in bucket["results"]]
    assert sum(result["num_model_requests"] for result in results) == CALLS
    assert sum(result["input_uncached_tokens"] for result in results) == tokens["input"]
    assert sum(result["output_tokens"] for result in results) == tokens["output"]
    assert round(sum(result["cost"] for result in results) * 1e9) == cost
    with console.sign_in(stack, stack.key) as browser:
        page = browser.get(f"{console.address(stack)}/usage", timeout=PATIENCE_SECONDS).text
    assert f"<dt>Requests</dt><dd>{formats.count(CALLS)}</dd>" in page
    assert f"<dt>Cost</dt><dd>{formats.nano(cost)}</dd>" in page
    assert f"<dt>Output tokens</dt><dd>{formats.short(sums.output)}</dd>" in page

    labels = {label for sample in scrape.samples for label in sample.labels.values()}
    assert not {"fake/echo-1", "nobody/knows", public_id} & labels
    left = sum(kind.leaves for kind, _, _ in made)
    assert scrape.sum("inference_calls_total", status="cancelled") == left
    for name in ("retries", "fallbacks", "breaker_skips", "cache_hits", "estimated_calls"):
        assert scrape.sum(f"inference_{name}_total") > 0, name
    assert scrape.sum("gen_ai_server_time_to_first_token_seconds_count") > CALLS / 10
    until(lambda: snapshot(stack.redis)["web_processes"] == 2, what="both processes report")
    assert snapshot(stack.redis)["workers"] == 2

    # Both web processes add what they have counted in a few seconds.
    name = "http_server_request_duration_seconds_count"
    statuses = Counter((kind.path, str(status)) for kind, status, _ in made)

    def counted() -> Counter[tuple[str, str]]:
        counts: Counter[tuple[str, str]] = Counter()
        for sample in Scrape(stack).samples:
            if sample.name == name and sample.labels["http_request_method"] == "POST":
                path = sample.labels["http_route"].removeprefix("/inference/v1")
                counts[path, sample.labels["http_response_status_code"]] += round(sample.value)
        return Counter({each: count for each, count in counts.items() if each in statuses})

    until(lambda: counted() == statuses, what=f"{statuses}, not {counted()}")


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
