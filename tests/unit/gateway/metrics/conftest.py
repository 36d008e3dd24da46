"""Records as workers make them, and what Prometheus reads of the metrics."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import pytest
from prometheus_client.parser import text_string_to_metric_families

from gateway.account.records import Record
from gateway.catalogue.catalogue import Catalogue
from gateway.metrics.collector import text
from gateway.metrics.labels import ModelLabels
from gateway.queue import keys

Samples = dict[tuple[str, frozenset[tuple[str, str]]], float]


def attempt(
    model: str = "gpt-4o", code: str = "", milliseconds: int = 700, provider: str = "openai"
) -> dict[str, Any]:
    return {
        "provider_name": provider,
        "model": model,
        "status": 502 if code else 200,
        "code": code,
        "latency_ms": milliseconds,
    }


RECORD = Record(
    id="call-1",
    key_id="key1",
    created_ms=1_796_000_000_000,
    settled_ms=1_796_000_001_000,
    model="openai/gpt-4o",
    provider_name="openai",
    upstream_model="gpt-4o",
    streamed=True,
    latency_ms=1_000,
    queued_ms=20,
    time_to_first_token_ms=320,
    generation_time_ms=600,
    usage={"input": 100, "cache_read": 50, "output": 31, "reasoning": 20},
    usage_source="provider",
    cost_nano=1_234_567,
    attempts=(attempt(milliseconds=900),),
)


@pytest.fixture
def labels(settings: Any) -> ModelLabels:
    return ModelLabels(Catalogue.load(settings))


@pytest.fixture
def append(redis: Any) -> Callable[..., None]:
    """A function that appends records like RECORD to the stream."""

    def add(*numbers: int, **changes: Any) -> None:
        for number in numbers:
            record = dataclasses.replace(RECORD, id=f"call-{number}", **changes)
            redis.xadd(keys.RECORDS, {"r": record.encode()})

    return add


@pytest.fixture
def scrape(redis: Any, labels: ModelLabels) -> Callable[[], Samples]:
    """A function that returns the value of each series, by its name and labels."""

    def samples() -> Samples:
        families = text_string_to_metric_families(text(redis, labels, 5).decode())
        return {
            (sample.name, frozenset(sample.labels.items())): sample.value
            for family in families
            for sample in family.samples
        }

    return samples
