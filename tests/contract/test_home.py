"""The page at / and at the base URL: what a newcomer meets who opens the address."""

from __future__ import annotations

import pytest

from app import PREFIX
from tests.contract.test_docs import Page

ADDRESSES = ["/", "/inference", "/inference/", PREFIX, f"{PREFIX}/"]
BROWSER = "text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8"


@pytest.mark.parametrize("address", ADDRESSES)
def test_a_browser_gets_a_page_that_leads_to_console_and_documentation(reader, address):
    response = reader.get(address, headers={"Accept": BROWSER})
    page = Page(response.get_data(as_text=True))
    assert (response.status_code, response.content_type) == (200, "text/html; charset=utf-8")
    assert page.all("href") == ["/console", f"{PREFIX}/docs"]
    assert reader.get(page.all("href")[1]).status_code == 200
    assert "An OpenAI-compatible gateway" in page.text


@pytest.mark.parametrize("address", ADDRESSES)
@pytest.mark.parametrize("accept", ["*/*", None, "application/json"])
def test_everybody_else_gets_json(reader, address, accept):
    response = reader.get(address, headers={"Accept": accept} if accept else {})
    assert response.status_code == 200
    assert response.get_json() == {
        "service": "inference-service",
        "description": "An OpenAI-compatible gateway to large language models.",
        "documentation": f"{PREFIX}/docs",
    }
    assert "Accept" in response.headers["Vary"]


def test_the_page_may_load_and_run_nothing_but_its_own_style(reader):
    response = reader.get("/", headers={"Accept": BROWSER})
    docs = reader.get(f"{PREFIX}/docs")
    assert response.headers["Content-Security-Policy"] == docs.headers["Content-Security-Policy"]
    assert response.headers["Referrer-Policy"] == "no-referrer"
    page = Page(response.get_data(as_text=True))
    assert not {"script", "link", "img", "iframe", "form"} & set(page.tags)


def test_the_pages_are_not_for_posts(reader):
    response = reader.post("/")
    assert response.status_code == 405
    assert response.get_json()["error"]["code"] == "method_not_allowed"
