"""The console's pages of batches: whose they are, how far they are, and what they have written."""

from __future__ import annotations

import dataclasses
import io
import re

import orjson
import pytest

from app import PREFIX
from tests.contract.console.conftest import ADMIN_KEY, BROWSER, Browser
from tests.support.batches import CHAT, line, run_all


@pytest.fixture
def settings(settings, tmp_path):
    return dataclasses.replace(settings, files_url=f"file://{tmp_path}")


@pytest.fixture
def create(client, key):
    """A function that creates a batch of these lines and returns its id."""

    def create(*lines, key=key):
        headers = {"Authorization": f"Bearer {key}"}
        data = {"purpose": "batch", "file": (io.BytesIO(b"".join(lines)), "input.jsonl")}
        file = client.post(f"{PREFIX}/files", data=data, headers=headers).get_json()
        body = {"input_file_id": file["id"], "endpoint": CHAT, "completion_window": "24h"}
        return client.post(f"{PREFIX}/batches", json=body, headers=headers).get_json()["id"]

    return create


def test_a_caller_sees_its_batches_and_an_operator_all(browser, create, key, make_key):
    mine, other = create(line("a")), create(line("b"), key=make_key("other"))
    browser.sign_in(key)
    page = browser.get("/console/batches")
    assert mine in page and other not in page
    assert "No batches yet" in browser.get("/console/batches?api=anthropic")
    browser.get(f"/console/batches/{other}", 404)
    browser.send(f"/console/batches/{other}/cancel", 404)
    browser.sign_in(ADMIN_KEY)
    page = browser.get("/console/batches")
    assert mine in page and other in page


def test_a_batch_that_has_ended_shows_its_counts_and_its_results(caller, create):
    batch = create(line("a"), line("b"))
    assert "validating" in caller.get(f"/console/batches/{batch}")
    run_all(caller.client.application)
    page = re.sub(r"<[^>]+>", "", caller.get(f"/console/batches/{batch}"))
    assert "completed" in page and "of 2 requests" in page
    response = caller.client.get(f"/console/batches/{batch}/output.jsonl", headers=BROWSER)
    results = [orjson.loads(each) for each in response.get_data().splitlines()]
    assert {each["custom_id"] for each in results} == {"a", "b"}
    assert batch in response.headers["Content-Disposition"]
    caller.get(f"/console/batches/{batch}/errors.jsonl", 404)
    caller.get(f"/console/batches/{batch}/other.jsonl", 404)


def test_a_batch_that_failed_names_the_lines_that_are_wrong(caller, create):
    batch = create(b'{"custom_id": "a", "method": "POST", "url": "/v1/<b>"}\n')
    run_all(caller.client.application)
    page = caller.get(f"/console/batches/{batch}")
    assert "Errors of the input" in page and "<b>" not in page.partition("<main")[2]


def test_a_batch_is_cancelled(caller, create):
    batch = create(line("a"))
    page = caller.send(f"/console/batches/{batch}/cancel")
    assert "No further request is started" in page and "cancelling" in page


def test_without_a_storage_the_page_says_what_to_set(make_client, settings, broker, key):
    browser = Browser(make_client(dataclasses.replace(settings, files_url=""), broker))
    browser.sign_in(key)
    assert "FILES_URL" in browser.get("/console/batches")
    browser.get("/console/batches/abc", 503)
