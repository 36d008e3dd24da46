"""What the contract tests share."""

from __future__ import annotations

from contextlib import ExitStack

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
def connect():
    """A function that makes a provider's client (OpenAI, Anthropic) for an app."""
    with ExitStack() as clients:

        def connect(kind, app, **options):
            path = "/inference/v1" if kind is OpenAI else "/inference"
            transport = httpx2.Client(transport=httpx2.WSGITransport(app=app))
            options = {"max_retries": 0, "http_client": transport, **options}
            return clients.enter_context(kind(base_url=f"http://testserver{path}", **options))

        yield connect


@pytest.fixture
def make_openai(client, connect):
    return lambda key: connect(OpenAI, client.application, api_key=key)
