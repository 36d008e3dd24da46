"""gateway/account/pricing.py and prices.json: what tokens and calls cost, as far as it is known."""

from __future__ import annotations

import json
import subprocess
import sys
from datetime import date
from decimal import Decimal

import pytest

from gateway.account import pricing
from gateway.account.pricing import FILE, Estimate, estimate, price, prices_of, shown, tiers_of
from gateway.account.usage import Usage
from gateway.catalogue.catalogue import Catalogue
from gateway.catalogue.file import PRICES, ModelRow, PriceTier
from gateway.catalogue.target import Target
from gateway.settings import Settings
from tools.prices import NAMES, text

FILED = json.loads(FILE.read_text("utf-8"))
CATALOGUE = Catalogue.load(Settings())


def tier(above: int = 0, **prices: str) -> PriceTier:
    return PriceTier(above, tuple((name, Decimal(price)) for name, price in prices.items()))


def row(*tiers: PriceTier, **fields) -> ModelRow:
    return ModelRow("house/model", "house", prices=tiers, **fields)


def priced(model: str, own: ModelRow | None = None) -> dict[str, str]:
    own = own or CATALOGUE.find(model)
    prices = prices_of(own, own.upstream_name(model))
    return dict(prices.record["units"]) if prices else {}


def cost(usage: Usage, *tiers: PriceTier, **fields) -> int:
    return price(usage, prices_of(row(*tiers, **fields), "model", usage.prompt))


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
                "input_cache_write_1h": "0.000006",
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
    own = ModelRow("anthropic/*", "anthropic")
    assert priced("anthropic/claude-sonnet-4-5-20250929", own) == priced(
        "anthropic/claude-sonnet-4-5"
    )


def test_the_catalogue_s_own_prices_stand_before_the_file_s():
    own = ModelRow(
        "openai/gpt-4o-mini", "openai", prices=(tier(prompt="1.50", input_cache_write="0"),)
    )
    assert priced("openai/gpt-4o-mini", own) == {
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


def test_the_prices_of_a_tier_hold_above_its_number_of_tokens():
    own = CATALOGUE.find("gemini/gemini-2.5-pro")
    below, above = tiers_of(own, "gemini-2.5-pro")
    assert (below.above, above.above) == (0, 200_000)
    assert prices_of(own, "gemini-2.5-pro", 200_000) is below
    assert prices_of(own, "gemini-2.5-pro", 200_001) is above


def test_a_call_above_a_tier_pays_its_prices_for_all_its_tokens():
    # Gemini 2.5 Pro: 1.25 and 10 USD, above 200,000 tokens 2.50 and 15, cached 0.125 and 0.25.
    own = CATALOGUE.find("gemini/gemini-2.5-pro")

    def nano(usage: Usage) -> int:
        return price(usage, prices_of(own, "gemini-2.5-pro", usage.prompt))

    # 200,000 * 1.25 USD/M = 0.25 USD; 1,000 * 10 USD/M = 0.01 USD
    assert nano(Usage(input=200_000, output=1_000)) == 260_000_000
    # 200,001 * 2.50 USD/M = 0.5000025 USD; 1,000 * 15 USD/M = 0.015 USD
    assert nano(Usage(input=200_001, output=1_000)) == 515_002_500
    # Cached tokens count for the tier: 100,001 * 2.50 = 0.2500025; 100,000 * 0.25 = 0.025 USD
    assert nano(Usage(input=100_001, cache_read=100_000)) == 275_002_500


def test_a_price_of_the_catalogue_replaces_the_file_s_in_all_tiers():
    own = ModelRow("gemini/gemini-2.5-pro", "gemini", prices=(tier(prompt="1"),))
    below, above = tiers_of(own, "gemini-2.5-pro")
    assert below.units["prompt"] == above.units["prompt"] == 1
    assert (below.units["completion"], above.units["completion"]) == (10, 15)
    assert above.version == f"{FILED['version']} + catalogue"


def test_the_catalogue_s_own_tiers_keep_what_they_do_not_name():
    tiers = tiers_of(row(tier(prompt="1", completion="2"), tier(100, prompt="3")), "model")
    assert [each.record for each in tiers] == [
        {
            "version": "catalogue",
            "above": 0,
            "units": {"prompt": "0.000001", "completion": "0.000002"},
        },
        {
            "version": "catalogue",
            "above": 100,
            "units": {"prompt": "0.000003", "completion": "0.000002"},
        },
    ]


def test_every_kind_of_token_has_its_price():
    prices = tier(
        prompt="1",
        completion="10",
        input_cache_read="0.1",
        input_cache_write="1.25",
        input_cache_write_1h="2",
        internal_reasoning="20",
        audio="100",
        input_audio_cache="5",
        audio_output="200",
        image_token="7",
        image_output="30",
    )
    usage = Usage(
        input=100,  # of them 10 audio, 20 image: 70 * 1 + 10 * 100 + 20 * 7 = 1,210
        input_audio=10,
        input_image=20,
        cache_read=50,  # of them 5 audio: 45 * 0.1 + 5 * 5 = 29.5
        cache_read_audio=5,
        cache_write=8,  # 8 * 1.25 = 10
        cache_write_1h=4,  # 4 * 2 = 8
        output=60,  # 30 * 10 + 15 * 20 + 10 * 200 + 5 * 30 = 2,750
        reasoning=15,
        output_audio=10,
        output_image=5,
    )
    # 1,210 + 29.5 + 10 + 8 + 2,750 = 4,007.5 USD/M tokens, each 1,000 nano
    assert cost(usage, prices) == 4_007_500


def test_an_unknown_kind_costs_as_much_as_the_kind_it_belongs_to():
    text = tier(prompt="1", completion="10")
    usage = Usage(input=10, cache_read=10, cache_write=10, cache_write_1h=10, output=7, reasoning=5)
    # 40 * 1 + 7 * 10 = 110 USD/M tokens
    assert cost(usage, text) == 110_000
    # 20 * 1 + 20 * 1.25 + 7 * 10 = 115
    assert cost(usage, tier(prompt="1", completion="10", input_cache_write="1.25")) == 115_000


def test_a_call_is_rounded_once_and_half_up():
    # 0.0125 USD/M = 12.5 nano a token: 1 token 12.5, 3 tokens 37.5, 2 tokens 25
    prices = tier(prompt="0.0125", completion="0.0125")
    assert cost(Usage(input=1), prices) == 13
    assert cost(Usage(input=3), prices) == 38
    assert cost(Usage(input=1, output=1), prices) == 25
    # 0.0001 USD/M = 0.1 nano a token
    assert cost(Usage(input=4), tier(prompt="0.0001")) == 0
    assert cost(Usage(input=5), tier(prompt="0.0001")) == 1


def test_a_large_call_is_exact():
    # 10 ** 9 tokens * 0.123456789 USD/M = 123.456789 USD, and a nano less for one token less
    assert cost(Usage(input=10**9), tier(prompt="0.123456789")) == 123_456_789_000
    assert cost(Usage(input=10**9 - 1), tier(prompt="0.123456789")) == 123_456_788_877


def test_calls_without_known_prices_or_of_a_flat_rate_plan_cost_nothing():
    assert price(Usage(input=1000), None) == 0
    assert prices_of(row(), "model") is None
    assert cost(Usage(input=1000), tier(prompt="1"), billed=False) == 0
    prices = prices_of(row(tier(prompt="1"), billed=False), "model")
    assert prices is not None
    assert prices.record["billed"] is False


def test_the_file_is_what_the_pinned_package_says_of_its_day():
    assert FILE.read_text("utf-8") == text(date.fromisoformat(FILED["on"]))


def test_no_price_in_the_file_is_made_up():
    assert FILED["prices"].keys() == NAMES.keys()
    rows = [row for table in FILED["prices"].values() for row in table.values()]
    assert len(rows) > 1_000
    for each in rows:
        assert each.keys() <= {*PRICES, "tiers"}
        for prices in (each, *each.get("tiers", ())):
            units = {name: price for name, price in prices.items() if name in PRICES}
            assert units
            assert all(Decimal(price) >= 0 for price in units.values())
    assert sum("tiers" in row for row in rows) > 150
    assert FILED["source"] in FILED["version"]
    assert FILED["on"] in FILED["version"]


def test_the_service_does_without_the_package_and_reads_no_price_before_it_is_asked():
    code = (
        "import sys, app, workers.runner; from gateway.account import pricing; "
        "assert 'genai_prices' not in sys.modules; "
        "assert pricing.table.cache_info().misses == 0"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def estimated(params: dict, kind: str = "chat", **fields) -> Estimate:
    own = row(tier(prompt="2", completion="10"), tier(100, prompt="4", completion="20"), **fields)
    return estimate(Target("house/model", "house", "model", row=own), params, kind)


def asking(characters: int, **params) -> dict:
    return {"messages": [{"role": "user", "content": "x" * characters}], **params}


def test_a_call_is_estimated_with_the_prices_of_its_tier():
    # 100 tokens * 2 USD/M = 200,000 nano; 101 * 4 USD/M = 404,000 nano
    assert estimated(asking(400)) == Estimate(100, 200_000, 1_000, 10_000.0, 0)
    assert estimated(asking(404)) == Estimate(101, 404_000, 1_000, 20_000.0, 0)


@pytest.mark.parametrize(
    ("params", "fields", "output", "largest"),
    [
        ({}, {}, 1_000, 0),
        ({}, {"max_output_tokens": 8_000}, 1_000, 8_000),
        ({}, {"max_output_tokens": 8_000, "typical_output_tokens": 300}, 300, 8_000),
        ({"max_tokens": 50}, {"max_output_tokens": 8_000}, 50, 50),
        ({"max_completion_tokens": 70, "max_tokens": 50}, {}, 70, 70),
        ({"max_tokens": 5_000}, {}, 1_000, 5_000),
        ({"max_tokens": 50, "n": 3}, {}, 150, 150),
    ],
)
def test_the_expected_output_is_the_typical_one_or_the_caller_s_limit(
    params, fields, output, largest
):
    found = estimated(asking(4, **params), **fields)
    assert (found.output_tokens, found.max_output_tokens) == (output, largest)


def test_a_prompt_is_not_estimated_as_longer_than_the_model_takes():
    assert estimated(asking(4_000), context_length=50).prompt_tokens == 50


def test_embeddings_and_counts_of_tokens_write_nothing():
    assert estimated({"input": ["x" * 40] * 2}, "embeddings") == Estimate(20, 40_000, 0, 0.0, 0)
    assert estimated(asking(400), "count_tokens") == Estimate(0, 0, 0, 0.0, 0)


def test_calls_of_a_flat_rate_plan_need_room_for_tokens_but_no_money():
    assert estimated(asking(400), billed=False) == Estimate(100, 0, 1_000, 0.0, 0)


def test_an_amount_is_shown_in_usd():
    assert pricing.usd(1_234_567_890) == 1.23456789
