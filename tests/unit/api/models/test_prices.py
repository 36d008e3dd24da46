"""api/models/prices.py and prices.json: what a token costs, as far as it is known."""

from __future__ import annotations

import json
import subprocess
import sys
from datetime import date
from decimal import Decimal

import pytest

from api.models import prices
from api.models.prices import FILE, shown
from gateway.catalogue.catalogue import Catalogue
from gateway.catalogue.file import PRICES, ModelRow
from gateway.settings import Settings
from tools.prices import NAMES, text

FILED = json.loads(FILE.read_text("utf-8"))


def priced(model: str, row: ModelRow | None = None) -> dict[str, str]:
    found = prices.prices(row or Catalogue.load(Settings()).find(model), model)
    return {name: shown(price) for name, price in found.items()}


@pytest.mark.parametrize(
    ("model", "known"),
    [
        (
            "openai/gpt-4o-mini",
            {"prompt": "0.00000015", "completion": "0.0000006", "input_cache_read": "0.000000075"},
        ),
        (
            "anthropic/claude-sonnet-4-5",
            {
                "prompt": "0.000003",
                "completion": "0.000015",
                "input_cache_read": "0.0000003",
                "input_cache_write": "0.00000375",
            },
        ),
        ("openai/text-embedding-3-small", {"prompt": "0.00000002"}),
        ("groq/nobody-knows-it", {}),
        ("local/smollm2-135m-instruct", {}),
        ("ollama/gpt-4o-mini", {}),
    ],
)
def test_a_price_is_that_of_the_provider_s_model_or_unknown(model, known):
    assert priced(model) == known


def test_a_beginning_stands_for_all_names_that_begin_so():
    row = ModelRow("anthropic/*", "anthropic")
    assert priced("anthropic/claude-sonnet-4-5-20250929", row) == priced(
        "anthropic/claude-sonnet-4-5"
    )


def test_the_catalogue_s_own_prices_stand_before_the_file_s():
    row = ModelRow(
        "openai/gpt-4o-mini",
        "openai",
        prices={"prompt": Decimal("1.50"), "input_cache_write": Decimal(0)},
    )
    assert priced("openai/gpt-4o-mini", row) == {
        "prompt": "0.0000015",
        "completion": "0.0000006",
        "input_cache_read": "0.000000075",
        "input_cache_write": "0",
    }


@pytest.mark.parametrize(
    ("price", "digits"),
    [
        ("0", "0"),
        ("0.00", "0"),
        ("10", "10"),
        ("1E-8", "0.00000001"),
        ("1.500", "1.5"),
        ("1E+2", "100"),
    ],
)
def test_a_price_is_shown_in_digits(price, digits):
    assert shown(Decimal(price)) == digits


def test_the_file_is_what_the_pinned_package_says_of_its_day():
    assert FILE.read_text("utf-8") == text(date.fromisoformat(FILED["on"]))


def test_no_price_in_the_file_is_made_up():
    assert FILED["prices"].keys() == NAMES.keys()
    rows = [row for table in FILED["prices"].values() for row in table.values()]
    assert len(rows) > 1_000
    assert {len(row) for row in rows} == {len(PRICES)}
    assert all(any(price is not None for price in row) for row in rows)
    assert all(Decimal(price) >= 0 for row in rows for price in row if price is not None)


def test_the_service_does_without_the_package_and_reads_no_price_before_it_is_asked():
    code = (
        "import sys, app, workers.runner; from api.models import prices; "
        "assert 'genai_prices' not in sys.modules; "
        "assert prices.table.cache_info().misses == 0"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
