"""A browser that is signed in to the console, and what its pages are made of."""

from __future__ import annotations

import dataclasses
import re

import pytest

from gateway.account.api_keys import KeyStore
from gateway.account.redis_ledger import RedisLedger

ADMIN_KEY = "an-admin-key-of-forty-characters-or-more"
BROWSER = {"Accept": "text/html,application/xhtml+xml,*/*;q=0.8"}


class Browser:
    """A client of the app that behaves like a browser on the console."""

    def __init__(self, client):
        self.client = client

    def get(self, path, status=200):
        """The text of a page."""
        response = self.client.get(path, headers=BROWSER)
        assert response.status_code == status, response.get_data(as_text=True)[-3000:]
        return response.get_data(as_text=True)

    def token(self, path="/console/playground"):
        """The token that a page's scripts send."""
        return re.search(r'name="csrf-token" content="([^"]+)"', self.get(path))[1]

    def sign_in(self, key, **fields):
        """The response to the form."""
        found = re.search(r'name="csrf_token" value="([^"]+)"', self.get("/console/sign-in"))
        data = {"csrf_token": found[1], "key": key, **fields}
        return self.client.post("/console/sign-in", data=data, headers=BROWSER)

    def send(self, path, status=200, **fields):
        """The text of the page that a form leads to, redirects followed."""
        data = {"csrf_token": self.token(), **fields}
        response = self.client.post(path, data=data, headers=BROWSER, follow_redirects=True)
        assert response.status_code == status, response.get_data(as_text=True)[-3000:]
        return response.get_data(as_text=True)


@pytest.fixture
def settings(settings):
    return dataclasses.replace(settings, admin_key=ADMIN_KEY)


@pytest.fixture
def store(redis, settings):
    return KeyStore(redis, settings.key_pepper)


@pytest.fixture
def ledger(settings, redis):
    return RedisLedger(settings, redis)


@pytest.fixture
def browser(client):
    return Browser(client)


@pytest.fixture
def caller(browser, key):
    """A browser in which `key` is signed in."""
    browser.sign_in(key)
    return browser


@pytest.fixture
def operator(browser):
    """A browser in which ADMIN_KEY is signed in."""
    browser.sign_in(ADMIN_KEY)
    return browser
