"""What calls cost: the prices of a model, the cost of a usage, and an estimate before the call.

`prices.json` beside this file holds the known prices. tools/prices.py generates it, and it is read
at its first use. Money is in nano: integers of 1e-9 USD.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from decimal import Decimal
from functools import cache, lru_cache
from pathlib import Path
from typing import Any, TypeVar

import orjson

from gateway.account.key_fields import NANO
from gateway.account.usage import Usage
from gateway.catalogue.file import PRICES, ModelRow, PriceTier
from gateway.catalogue.target import Target
from gateway.tokens import prompt_tokens

FILE = Path(__file__).with_name("prices.json")
MILLION = Decimal(1_000_000)
TYPICAL_OUTPUT_TOKENS = 1_000  # of a call to a model whose row does not say it
MODELS = 4_096  # whose prices are kept at hand

T = TypeVar("T")

# A price that is unknown is that of the kind it is a part of.
PART_OF = {
    "input_cache_read": "prompt",
    "input_cache_write": "prompt",
    "input_cache_write_1h": "input_cache_write",
    "internal_reasoning": "completion",
    "audio": "prompt",
    "input_audio_cache": "audio",
    "audio_output": "completion",
    "image_token": "prompt",
    "image_output": "completion",
}


@dataclass(frozen=True, slots=True)
class Prices:
    """The prices of a model for prompts of more than `above` tokens.

    `units` are the known ones, in USD for a million tokens, by kind (see PRICES). `version` says
    where they come from. Calls that are not `billed`, as those of a flat-rate plan, cost nothing.
    """

    units: Mapping[str, Decimal]
    above: int
    version: str
    billed: bool
    record: Mapping[str, Any]  # all of this as a call's record has it: USD for one token
    # All prices in the order of PRICES, for one token, in nano divided by `scale`.
    scaled: tuple[int, ...]
    scale: int


@dataclass(slots=True)
class Estimate:
    """What a call is expected to use, before it is made.

    `output_tokens` is the typical number for the model, or less where the caller wants less.
    `max_output_tokens` is what it could be at most, of all choices together; 0: unknown.
    """

    prompt_tokens: int
    prompt_nano: int
    output_tokens: int
    output_nano_per_token: float
    max_output_tokens: int


def prices_of(row: ModelRow, upstream_model: str, prompt_tokens: int = 0) -> Prices | None:
    """Return the prices of a call to this model, whose prompt has so many tokens.

    None: no price is known. The row's own prices replace those of the file, in all tiers.
    """
    tiers = _tiers(row.provider, upstream_model, row.prices, row.billed)
    chosen = tiers[0] if tiers else None
    for tier in tiers[1:]:
        if prompt_tokens > tier.above:
            chosen = tier
    return chosen


def tiers_of(row: ModelRow, upstream_model: str) -> tuple[Prices, ...]:
    """Return the prices of a model, by rising size of the prompt."""
    return _tiers(row.provider, upstream_model, row.prices, row.billed)


def price(usage: Usage, prices: Prices | None) -> int:
    """Return what a usage costs in nano, exact and then rounded half up.

    What has no known price costs nothing.
    """
    if prices is None or not prices.billed:
        return 0
    audio_out, image_out, reasoning = usage.output_audio, usage.output_image, usage.reasoning
    counts = (  # in the order of PRICES
        usage.input - usage.input_audio - usage.input_image,
        usage.output - reasoning - audio_out - image_out,
        usage.cache_read - usage.cache_read_audio,
        usage.cache_write,
        usage.cache_write_1h,
        reasoning,
        usage.input_audio,
        usage.cache_read_audio,
        audio_out,
        usage.input_image,
        image_out,
    )
    return _rounded(sum(map(int.__mul__, counts, prices.scaled)), prices)


def _rounded(total: int, prices: Prices) -> int:
    return (2 * total + prices.scale) // (2 * prices.scale)


def estimate(target: Target, params: Mapping[str, Any], kind: str = "chat") -> Estimate:
    """Return what a call with these parameters (see CallSpec for `kind`) is expected to use."""
    row = target.row
    if kind == "count_tokens":  # providers count for nothing
        return Estimate(0, 0, 0, 0.0, 0)
    tokens = prompt_tokens(params)
    if row.context_length:
        tokens = min(tokens, row.context_length)  # a provider would refuse more
    prices = prices_of(row, target.upstream_model, tokens)
    if prices and not prices.billed:
        prices = None
    # As `price` does for so many uncached tokens; each call waits for this.
    prompt_nano = _rounded(tokens * prices.scaled[0], prices) if prices else 0
    if kind == "embeddings":
        return Estimate(tokens, prompt_nano, 0, 0.0, 0)
    choices = params.get("n") or 1
    limits = (params.get(name) for name in ("max_completion_tokens", "max_tokens"))
    limit = next((limit for limit in limits if limit), row.max_output_tokens or 0)
    typical = row.typical_output_tokens or TYPICAL_OUTPUT_TOKENS
    return Estimate(
        tokens,
        prompt_nano,
        choices * (min(typical, limit) if limit else typical),
        max(prices.scaled[1], prices.scaled[5]) / prices.scale if prices else 0.0,
        choices * limit,
    )


def usd(nano: int) -> float:
    """Return an amount in USD, as responses show it."""
    return nano / NANO


def shown(price: Decimal) -> str:
    """Return a price as digits, without exponent and without zeros at its end: "0.00000015"."""
    text = f"{price:f}"
    return text.rstrip("0").rstrip(".") if "." in text else text


@cache
def table() -> Mapping[str, Any]:
    """Return what the file holds. Reads it once."""
    value: Mapping[str, Any] = orjson.loads(FILE.read_bytes())
    return value


@lru_cache(MODELS)
def _tiers(
    provider: str, model: str, own: tuple[PriceTier, ...], billed: bool
) -> tuple[Prices, ...]:
    listed = _listed(table()["prices"].get(provider, {}), model)
    version = table()["version"] if listed else ""
    if own:
        version = f"{version} + catalogue" if listed else "catalogue"
    replaced = {name for tier in own for name, _ in tier.prices}
    units: dict[str, Decimal] = {}
    tiers = []
    for above in sorted({tier.above for tier in (*listed, *own)}):
        for tier in listed:
            if tier.above == above:
                units.update((k, v) for k, v in tier.prices if k not in replaced)
        for tier in own:
            if tier.above == above:
                units.update(tier.prices)
        if units:
            tiers.append(_prices(dict(units), above, version, billed))
    return tuple(tiers)


def _prices(units: dict[str, Decimal], above: int, version: str, billed: bool) -> Prices:
    per_token = [(resolved(units, name) or Decimal(0)) * NANO / MILLION for name in PRICES]
    digits = max(0, *(-int(each.normalize().as_tuple().exponent) for each in per_token))
    scaled = tuple(int(each.scaleb(digits)) for each in per_token)
    ordered = {name: units[name] for name in PRICES if name in units}
    record: dict[str, Any] = {
        "version": version,
        "above": above,
        "units": {name: shown(price / MILLION) for name, price in ordered.items()},
    }
    if not billed:
        record["billed"] = False
    return Prices(ordered, above, version, billed, record, scaled, 10**digits)


def resolved(units: Mapping[str, T], name: str) -> T | None:
    """Return a price, or else that of the kind it is a part of; None if that is unknown too."""
    while name not in units and name in PART_OF:
        name = PART_OF[name]
    return units.get(name)


def _listed(rows: Mapping[str, Mapping[str, Any]], model: str) -> tuple[PriceTier, ...]:
    """Return the prices of the file for this name, or else for the longest prefix that has some."""
    row = rows.get(model)
    if row is None:
        prefixes = [name for name in rows if name.endswith("*") and model.startswith(name[:-1])]
        row = rows[max(prefixes, key=len)] if prefixes else None
    if row is None:
        return ()
    return tuple(
        PriceTier(
            int(tier.get("above", 0)),
            tuple((name, Decimal(tier[name])) for name in PRICES if name in tier),
        )
        for tier in (row, *row.get("tiers", ()))
    )
