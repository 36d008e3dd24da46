"""Metrics, usage and ledger agree after calls of every kind, over several real processes."""

from __future__ import annotations

import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
import requests
from prometheus_client.parser import text_string_to_metric_families

from api.console import formats
from gateway.account.ledger import Sums, open_ledger
from gateway.metrics.live import snapshot
from gateway.queue import keys
from gateway.settings import Settings
from tests.support.stack import PATIENCE_SECONDS, Stack, until

TOKEN = "a token of Prometheus, and of nobody else"
# Answers, streams, failures, retries, refusals, and names that callers make up.
CALLS: list[dict[str, Any]] = [
    *({"model": f"fake/echo-{number}"} for number in range(3)),
    {"model": "fake/echo", "stream": True},
    {"model": "claude/echo", "stream": True, "max_tokens": 50},
    {"model": "demo/echo"},
    {"model": "demo/echo", "stream": True, "headers": {"X-Cache": "on"}},
    {"model": "fake/once-503", "text": "a text for this test of metrics alone"},
    {"model": "fake/400"},
    {"model": "closed/model"},
    {"model": "nobody/knows"},
    {"model": "fake/echo", "messages": "wrong"},
]
ROUNDS = 10


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Any:
    env = {"METRICS_TOKEN": TOKEN, "WEB_CONCURRENCY": "2", "UPSTREAM_RETRIES": "1"}
    with Stack(tmp_path_factory.mktemp("metrics"), workers=2, env=env) as running:
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


def console_usage(stack: Stack) -> str:
    """The console's page of the usage of the key."""
    console = stack.url.replace("/inference/v1", "/console")
    with requests.Session() as browser:
        form = browser.get(f"{console}/sign-in", timeout=PATIENCE_SECONDS).text
        token = form.partition('name="csrf_token" value="')[2].partition('"')[0]
        data = {"csrf_token": token, "key": stack.key, "next": "/console/usage"}
        return browser.post(f"{console}/sign-in", data=data, timeout=PATIENCE_SECONDS).text


def test_metrics_usage_ledger_and_console_agree_after_mixed_calls(stack: Stack) -> None:
    with ThreadPoolExecutor(8) as pool:
        responses = list(pool.map(lambda call: stack.ask(**call), CALLS * ROUNDS))
    left = stack.open_stream("fake/slow-60")
    left.close()
    statuses = Counter(str(response.status_code) for response in responses)
    ids = {response.headers.get("X-Generation-Id") for response in responses} - {None}
    number = len(ids) + 1
    settings = Settings(redis_url=stack.server.url)
    public_id = stack.key.split("_")[2]
    ledger = open_ledger(settings, stack.redis)

    def ledger_sums() -> Sums:
        return ledger.totals(public_id, 0).all_time

    until(lambda: ledger_sums().requests == number, what=f"{number} calls in the ledger")
    sums, scrape = ledger_sums(), Scrape(stack)
    assert scrape.sum("inference_calls_total") == number
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
    headers, params = stack.headers(), {"start_time": str(int(time.time()) - 86_400)}
    usage = requests.get(f"{stack.url}/usage", headers=headers, params=params, timeout=60).json()
    results = [result for bucket in usage["data"] for result in bucket["results"]]
    assert sum(result["num_model_requests"] for result in results) == number
    assert sum(result["output_tokens"] for result in results) == tokens["output"]
    assert round(sum(result["cost"] for result in results) * 1e9) == cost
    page = console_usage(stack)
    assert f"<dt>Requests</dt><dd>{number}</dd>" in page
    assert f"<dt>Cost</dt><dd>{formats.nano(cost)}</dd>" in page
    assert f"<dt>Output tokens</dt><dd>{formats.short(sums.output)}</dd>" in page

    labels = {label for sample in scrape.samples for label in sample.labels.values()}
    assert not {"fake/echo-1", "nobody/knows", public_id} & labels
    assert scrape.sum("inference_calls_total", status="cancelled") == 1
    assert scrape.sum("inference_retries_total", provider="fake") >= 1
    assert scrape.sum("inference_cache_hits_total") >= 1
    assert scrape.sum("gen_ai_server_time_to_first_token_seconds_count") >= 2 * ROUNDS
    until(lambda: snapshot(stack.redis)["web_processes"] == 2, what="both processes report")
    assert snapshot(stack.redis)["workers"] == 2

    # Both web processes add what they have counted in a few seconds.
    route = "/inference/v1/chat/completions"
    name = "http_server_request_duration_seconds_count"

    def counted() -> Counter[str]:
        return Counter(
            {
                s.labels["http_response_status_code"]: round(s.value)
                for s in Scrape(stack).samples
                if s.name == name and s.labels["http_route"] == route
            }
        )

    until(lambda: counted() == statuses + Counter({"200": 1}), what=f"{statuses}, not {counted()}")


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
