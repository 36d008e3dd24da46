"""What the contract tests share."""

from __future__ import annotations

import httpx2
import pytest
from openai import OpenAI

from app import create_app
from gateway.settings import Settings


@pytest.fixture(scope="module")
def reader():
    """A client for the pages that need no Redis: they are rendered once, which takes a second."""
    return create_app(Settings(key_pepper="p" * 40, demo_models=True)).test_client()


@pytest.fixture
def make_openai(client):
    clients = []

    def make(key):
        transport = httpx2.Client(transport=httpx2.WSGITransport(app=client.application))
        base = "http://testserver/inference/v1"
        clients.append(OpenAI(api_key=key, base_url=base, max_retries=0, http_client=transport))
        return clients[-1]

    yield make
    for each in clients:
        each.close()
