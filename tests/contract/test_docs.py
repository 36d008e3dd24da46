"""The page at /docs: whole, safe and made of the OpenAPI document."""

from __future__ import annotations

import base64
import dataclasses
import hashlib
import re
from html.parser import HTMLParser

import pytest

from api.openapi.operations import OPERATIONS
from app import PREFIX

VOID = {"meta", "link", "br", "img", "hr", "input"}


class Page(HTMLParser):
    """What a browser would make of it: the elements, the text, and whether all were closed."""

    def __init__(self, text: str) -> None:
        super().__init__(convert_charrefs=True)
        self.tags: list[str] = []
        self.attributes: list[tuple[str, str | None]] = []
        self.text = ""
        self.style = ""
        self._open: list[str] = []
        self.feed(text)
        self.close()
        assert self._open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += attrs
        if tag not in VOID:
            self._open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self._open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self._open and self._open[-1] == "style":
            self.style += data
        self.text += data

    def all(self, name: str) -> list[str | None]:
        return [value for key, value in self.attributes if key == name]


@pytest.fixture
def response(reader):
    return reader.get(f"{PREFIX}/docs")


@pytest.fixture
def page(response):
    return Page(response.get_data(as_text=True))


def test_it_is_a_page_for_anyone(response):
    assert (response.status_code, response.content_type) == (200, "text/html; charset=utf-8")


def test_it_may_load_and_run_nothing_but_its_own_style(response, page):
    digest = base64.b64encode(hashlib.sha256(page.style.encode()).digest()).decode()
    policy = dict(
        directive.split(" ", 1)
        for directive in response.headers["Content-Security-Policy"].split("; ")
    )
    assert policy == {
        "default-src": "'none'",
        "base-uri": "'none'",
        "form-action": "'none'",
        "frame-ancestors": "'none'",
        "style-src": f"'sha256-{digest}'",
    }
    assert not {"script", "link", "img", "iframe", "form"} & set(page.tags)
    assert page.all("style") == [] and page.all("src") == []
    assert not any(name.startswith("on") for name, _ in page.attributes)


def test_every_link_leads_somewhere_on_the_page(page):
    targets = page.all("id")
    assert len(targets) == len(set(targets))
    links = [link for link in page.all("href") if link != "openapi.json"]
    assert links
    assert {link[1:] for link in links} <= set(targets)
    assert all(link.startswith("#") for link in links)


def test_it_has_every_operation_and_every_shape(reader, page):
    document = reader.get(f"{PREFIX}/openapi.json").get_json()
    assert {row.id for row in OPERATIONS.values()} <= set(page.all("id"))
    assert document["components"]["schemas"].keys() <= set(page.all("id"))
    for operations in document["paths"].values():
        for operation in operations.values():
            source = operation["x-codeSamples"][0]["source"]
            assert source.replace("$HOST", "http://localhost") in page.text


@pytest.mark.parametrize(
    "url", ["http://127.0.0.1:8000", "https://models.example.com", "http://[::1]:8000"]
)
def test_its_examples_call_the_address_it_was_asked_at(reader, url):
    text = reader.get(f"{PREFIX}/docs", base_url=url).get_data(as_text=True)
    assert f"curl -X POST {url}{PREFIX}/chat/completions" in text
    assert f"<code>{url}{PREFIX}</code> for OpenAI" in text
    assert f"<code>{url}/inference</code> for Anthropic" in text
    assert "$HOST" not in text


def test_its_examples_call_the_public_url(make_client, settings, broker):
    client = make_client(dataclasses.replace(settings, public_url="https://h.example/"), broker)
    text = client.get(f"{PREFIX}/docs").get_data(as_text=True)
    assert f"curl -X POST https://h.example{PREFIX}/chat/completions" in text


@pytest.mark.parametrize("host", ["<b>", 'a"b', "a b", "a'b", "a;b", "$HOST", "a/b", "a\\b"])
def test_a_host_that_is_none_does_not_get_into_the_page(reader, host):
    response = reader.get(f"{PREFIX}/docs", headers={"Host": host})
    text = response.get_data(as_text=True)
    assert response.status_code != 200 or f"curl -X POST $HOST{PREFIX}" in text
    assert f"{host}{PREFIX}" not in text or host == "$HOST"


def test_it_lists_the_models_and_whether_they_are_available(make_client, settings):
    client = make_client(dataclasses.replace(settings, demo_models=False))
    text = " ".join(Page(client.get(f"{PREFIX}/docs").get_data(as_text=True)).text.split())
    assert "openai/gpt-4o-mini Chat. Available." in text
    assert "openai/text-embedding-3-small Embeddings. Available." in text
    assert (
        "groq/* Any model of groq, by the name that it has there. "
        "Not available: its provider is not configured." in text
    )
    assert "ollama/* Any model of ollama, by the name that it has there. Not available" in text
    assert "demo/echo" not in text


def test_texts_stay_texts(page):
    assert "`" not in page.text
    assert not re.search(r"<[a-z]+>|&[a-z]+;|\bNone\b|\{[{%]", page.text)
