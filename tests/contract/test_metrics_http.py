"""GET /metrics: who may read it, and what it says of the requests that this process took."""

from __future__ import annotations

import dataclasses

import orjson
import pytest
from prometheus_client.parser import text_string_to_metric_families

from api.http.line import Line, call
from api.services import Services
from app import PREFIX, create_app
from gateway.account.owners import owner_store
from gateway.account.record_store import Actor
from gateway.queue import keys

TOKEN = "a token of Prometheus, and of nobody else"


@pytest.fixture
def service(settings, redis):
    services = Services.create(dataclasses.replace(settings, metrics_token=TOKEN))
    yield services
    services.broker.redis.connection_pool.disconnect()


@pytest.fixture
def client(service):
    return create_app(service.settings, service).test_client()


def get(client, token=TOKEN):
    headers = {"Authorization": f"Bearer {token}"} if token else {}
    return client.get("/metrics", headers=headers)


def requests(client, service):
    """How many requests there were, by method, route and status."""
    service.reporter.flush()
    name = "http_server_request_duration_seconds_count"
    labels = ("http_request_method", "http_route", "http_response_status_code")
    families = text_string_to_metric_families(get(client).text)
    return {
        tuple(sample.labels[label] for label in labels): sample.value
        for family in families
        for sample in family.samples
        if sample.name == name
    }


def test_prometheus_reads_it_with_its_token(client):
    response = get(client)
    assert response.status_code == 200
    assert response.content_type == "text/plain; version=0.0.4; charset=utf-8"
    assert "\ninference_build_info{version=" in response.text


def test_operators_read_it_and_nobody_else(client, key, make_key):
    assert get(client, make_key(operator=True)).status_code == 200
    assert get(client, key).status_code == 403
    assert get(client, TOKEN + "!").status_code == 401
    assert get(client, "").status_code == 401


def test_budgets_are_shown_on_request(make_client, settings, redis, make_key):
    key = make_key(limit=2_500_000_000, limit_unit="usd").split("_")[2]
    owner_store(redis).create("team", {"limit": 1_000, "limit_unit": "tokens"}, Actor())
    redis.hset(keys.spend(key), "usd", 1_000_000_000)
    shown = dataclasses.replace(settings, metrics_token=TOKEN, metrics_by_key=True)
    text = get(make_client(shown)).text
    assert f'inference_budget{{scope="{key}",unit="usd"}} 2.5\n' in text
    assert f'inference_budget_left{{scope="{key}",unit="usd"}} 1.5\n' in text
    assert 'inference_budget_left{scope="owner:team",unit="tokens"} 1000.0\n' in text
    hidden = get(make_client(dataclasses.replace(shown, metrics_by_key=False))).text
    assert key not in hidden


def test_without_a_token_none_is_accepted(make_client, settings):
    client = make_client(settings)
    assert get(client, "").status_code == 401
    assert client.get("/metrics", headers={"Authorization": "Bearer "}).status_code == 401


def test_requests_are_counted_by_the_template_of_their_route(client, service, auth):
    for number in range(2):
        client.get(f"{PREFIX}/models/none-{number}", headers=auth).close()
    client.get(f"{PREFIX}/made-up").close()
    client.open(f"{PREFIX}/health", method="BREW").close()
    counted = requests(client, service)
    assert counted["GET", f"{PREFIX}/models/<path:model_id>", "404"] == 2
    assert counted["GET", "unmatched", "404"] == 1
    assert ("other", "unmatched", "405") in counted


def test_a_line_of_a_batch_is_no_request(client, service, key):
    body = {"model": "demo/none", "messages": []}
    reply = call(
        client.application,
        Line(key.split("_")[2], "batch_1"),
        f"{PREFIX}/chat/completions",
        orjson.dumps(body),
        {},
    )
    assert reply.status == 404
    routes = [route for _, route, _ in requests(client, service)]
    assert not [route for route in routes if route.endswith("/completions")]


def test_a_stream_is_counted_when_it_has_ended(client, service, redis):
    @client.application.get("/stream")
    def stream():
        return iter(("one", "two"))

    response = client.get("/stream", buffered=False)
    assert ("GET", "/stream", "200") not in requests(client, service)
    assert response.text == "onetwo"
    response.close()
    assert requests(client, service)["GET", "/stream", "200"] == 1


def test_responses_are_among_the_figures_of_the_last_minute(client, service, redis):
    get(client, "").close()
    service.reporter.flush()
    [slot] = redis.keys(keys.recent("*"))
    assert redis.hget(slot, "http 4xx") == b"1"
