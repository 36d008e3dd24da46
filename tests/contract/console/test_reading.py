"""The console's pages of calls and usage: what somebody sees of which calls."""

from __future__ import annotations

import dataclasses
import re
import time

import pytest

from gateway.account.api_keys import public_id
from gateway.account.records import Record
from tests.contract.console.conftest import Browser

NOW_MS = int(time.time() * 1000)
PRICES = {
    "version": "of a test",
    "above": 0,
    "units": {"prompt": "0.000002", "completion": "0.00001"},
}


def record(number, key, **fields):
    values = {
        "created_ms": NOW_MS - 5_000 + number,
        "settled_ms": NOW_MS + number,
        "model": "openai/gpt-4o-mini",
        "usage": {"input": 1_000, "output": 200},
        "usage_source": "provider",
        "cost_nano": 4_000_000,
        "prices": PRICES,
        "latency_ms": 5_000,
        "queued_ms": 100,
        **fields,
    }
    return Record(id=f"{number:032x}", key_id=public_id(key), **values)


def ids(page):
    return [int(each, 16) for each in re.findall(r'data-call="(\w+)"', page)]


def text(page):
    """What people read of a page."""
    return re.sub(r"\s+", " ", re.sub(r"<[^>]+>", " ", page.partition("<main")[2]))


@pytest.fixture
def other(make_key):
    return make_key("other <b>key</b>")


def test_a_caller_sees_the_calls_of_its_key_and_an_operator_all(browser, ledger, key, other, store):
    ledger.write([record(1, key), record(2, other)])
    browser.sign_in(key)
    assert ids(browser.get("/console/calls")) == [1]
    assert ids(browser.get(f"/console/calls?key={public_id(other)}")) == [1]
    assert "other" not in browser.get("/console/calls")
    browser.get(f"/console/calls/{2:032x}", 404)
    browser.sign_in("an-admin-key-of-forty-characters-or-more")
    page = browser.get("/console/calls")
    assert ids(page) == [2, 1]
    assert "other &lt;b&gt;key" in page
    assert ids(browser.get(f"/console/calls?key={public_id(key)}")) == [1]


def test_calls_are_filtered(caller, ledger, key):
    old = NOW_MS - 2 * 86_400_000
    ledger.write(
        [
            record(1, key, settled_ms=old, created_ms=old),
            record(2, key, status="failed", error_code="upstream_timeout"),
            record(3, key, model="demo/echo"),
        ]
    )
    for query, found in {
        "": [3, 2, 1],
        "status=failed": [2],
        "model=demo/echo": [3],
        "within=24h": [3, 2],
        "status=failed&model=demo/echo": [],
        "status=&model=&within=": [3, 2, 1],
    }.items():
        assert ids(caller.get(f"/console/calls?{query}")) == found
    assert "No call matches" in caller.get("/console/calls?status=lost")
    caller.get("/console/calls?status=wrong", 400)


def test_pages_of_calls_follow_each_other_without_gaps(caller, ledger, key):
    ledger.write([record(number, key) for number in range(120)])
    address, seen, pages = "/console/calls?model=openai/gpt-4o-mini", [], 0
    while address:
        page = caller.get(address)
        seen += ids(page)
        pages += 1
        older = re.search(r'href="([^"]+)">Older', page)
        address = older and older[1].replace("&amp;", "&")
    assert seen == list(range(119, -1, -1))
    assert pages == 3


def test_without_calls_the_page_says_where_to_make_one(caller):
    page = caller.get("/console/calls")
    assert "No calls yet" in page and '<a class="button primary" href="/console/playground"' in page


def test_a_call_has_a_timeline_with_every_attempt_and_a_receipt(caller, ledger, key):
    attempts = (
        {
            "provider_name": "openai",
            "model": "a",
            "status": 503,
            "code": "upstream_overloaded",
            "latency_ms": 900,
        },
        {"provider_name": "openai", "model": "b", "status": 200, "code": "", "latency_ms": 4_000},
    )
    ledger.write(
        [
            record(
                7, key, attempts=attempts, time_to_first_token_ms=1_500, worker="w1", streamed=True
            )
        ]
    )
    page = text(caller.get(f"/console/calls/{7:032x}"))
    for step in (
        "Admitted 0 ms",
        "Queued 0 ms",
        "Claimed 100 ms By worker w1.",
        "Attempt 1 100 ms openai/a: 503 upstream_overloaded.",
        "Attempt 2 1.00 s openai/b: Answered.",
        "First token 1.50 s",
        "Completed 5.00 s",
        "Input 1,000 $2.00 $0.002",
        "Output 200 $10.00 $0.002",
        "Booked $0.004",
    ):
        assert step in page, page


def test_a_call_that_failed_says_why(caller, ledger, key):
    ledger.write([record(7, key, status="failed", error_code="upstream_timeout", usage={})])
    page = caller.get(f"/console/calls/{7:032x}")
    assert "upstream_timeout" in re.search(r'role="alert">([^<]+)', page)[1]


def test_a_call_without_known_prices_says_so(caller, ledger, key):
    ledger.write([record(7, key, prices=None, cost_nano=0)])
    assert "Prices unknown" in text(caller.get(f"/console/calls/{7:032x}"))


def test_usage_is_summed_up_once_in_chart_and_tables(operator, ledger, key, other):
    ledger.write([record(1, key), record(2, other), record(3, other, model="demo/echo")])
    row = r'</th>\s*(?:<td class="wide.*?</td>\s*)?<td class="number">(\d+)<'
    for by, span in zip(
        ("model", "api_key_id", "owner", "kind"), ("24h", "7d", "30d", "90d"), strict=True
    ):
        page = operator.get(f"/console/usage?range={span}&by={by}&show=requests")
        assert "Cost $0.012 Requests 3 Input tokens 3,000 Output tokens 600" in text(page)
        assert sum(map(int, re.findall(r"<title>[^<]*? (\d+)</title>", page))) == 3
        for table in page.split("<table>")[1:]:
            assert sum(map(int, re.findall(row, table))) == 3


def test_a_correction_below_zero_is_a_cost_with_a_sign_and_no_bar(operator, ledger, key):
    correction = {"kind": "correction", "correction": True, "model": ""}
    fields = {"usage": {}, "cost_nano": -1_500_000_000, **correction}
    ledger.write([record(1, key), record(2, key, **fields)])
    page = operator.get("/console/usage?by=model&show=cost")
    assert "Cost -$1.50 Requests 1 " in text(page)
    assert "corrections 0 0 0 -$1.50" in text(page)
    assert 'width="-' not in page
    assert 'height="-' not in page


def test_each_line_of_a_chart_of_one_request_has_its_own_number(operator, ledger, key):
    ledger.write([record(1, key)])
    assert set("0 0.25 0.5 0.75 1".split()) <= set(
        text(operator.get("/console/usage?show=requests")).split()
    )


def test_usage_without_cost_says_so_and_leads_to_the_tokens(operator, ledger, key):
    ledger.write([record(1, key, cost_nano=0)])
    assert "No cost in this time" in operator.get("/console/usage")
    assert "No cost in this time" not in operator.get("/console/usage?show=tokens")


def test_a_caller_s_usage_is_that_of_its_key(caller, ledger, key, other):
    ledger.write([record(1, key), record(2, other)])
    assert "Requests 1 " in text(caller.get("/console/usage"))
    assert "Requests 1 " in text(caller.get("/console/usage?by=api_key_id"))


def test_without_usage_the_page_says_so(caller):
    assert "No usage in this time" in caller.get("/console/usage")


def test_usage_is_downloaded_as_csv(caller, ledger, key, other):
    ledger.write([record(1, key), record(2, other)])
    address = re.search(r'href="([^"]+csv[^"]*)"', caller.get("/console/usage"))[1]
    response = caller.client.get(address.replace("&amp;", "&"))
    lines = response.get_data(as_text=True).splitlines()
    assert response.mimetype == "text/csv"
    assert len(lines) == 2 and "openai/gpt-4o-mini" in lines[1] and lines[1].count(",1,") == 1


def test_more_models_than_colors_are_summed_up(operator, ledger, key):
    ledger.write([record(number, key, model=f"demo/{number}") for number in range(10)])
    page = operator.get("/console/usage?show=requests")
    legend = page.partition('class="key-list"')[2].partition("</ul>")[0]
    assert legend.count("<li>") == 7 and "others" in legend
    assert sum(map(int, re.findall(r"<title>[^<]*? (\d+)</title>", page))) == 10


def test_the_account_s_database_that_is_away_is_a_page(
    make_client, settings, tmp_path, broker, key
):
    away = dataclasses.replace(settings, database_url=f"sqlite:///{tmp_path}/missing/account.db")
    browser = Browser(make_client(away, broker))
    browser.sign_in(key)
    for address in ("/console/calls", "/console/usage", f"/console/calls/{7:032x}"):
        assert "Not available now" in browser.get(address, 503)
