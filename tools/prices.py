"""Writes gateway/account/prices.json from the `genai-prices` package: run by `make prices`.

The package itself stays out of the service: importing it takes 140 ms and 19 MB.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from datetime import date
from decimal import Decimal
from importlib.metadata import version
from pathlib import Path
from typing import Any

from genai_prices import types
from genai_prices.data import providers

from gateway.account.pricing import FILE

# Our provider's name -> the package's.
NAMES = {
    "openai": "openai",
    "anthropic": "anthropic",
    "groq": "groq",
    "mistral": "mistral",
    "deepseek": "deepseek",
    "together": "together",
    "openrouter": "openrouter",
    "xai": "x-ai",
    "fireworks": "fireworks",
    "gemini": "google",
    "azure": "azure",
    "bedrock": "aws",
    "cohere": "cohere",
    "cerebras": "cerebras",
    "moonshot": "moonshotai",
    "zai": "zai",
}
# Our name of a price (see PRICES) -> the package's.
FIELDS = {
    "prompt": "input_mtok",
    "completion": "output_mtok",
    "input_cache_read": "cache_read_mtok",
    "input_cache_write": "cache_write_mtok",
    "input_cache_write_1h": "cache_write_1h_mtok",
    "internal_reasoning": "output_reasoning_mtok",
    "audio": "input_audio_mtok",
    "input_audio_cache": "cache_audio_read_mtok",
    "audio_output": "output_audio_mtok",
    "image_token": "input_image_mtok",
    "image_output": "output_image_mtok",
}

Row = dict[str, Any]


def table(on: date) -> dict[str, Any]:
    """What the file holds: the prices in force on that day."""
    known = {each.id: each for each in providers}
    source = f"genai-prices {version('genai-prices')}"
    return {
        "source": source,
        "on": on.isoformat(),
        "version": f"{source} ({on.isoformat()})",
        "prices": {ours: _provider(known[theirs], on) for ours, theirs in NAMES.items()},
    }


def text(on: date) -> str:
    """The file, a line for each model: changes of prices are to be read in a diff."""
    whole = table(on)
    prices = ",\n".join(
        f"{json.dumps(provider)}: {{\n"
        + ",\n".join(f"{json.dumps(k)}: {json.dumps(v)}" for k, v in sorted(rows.items()))
        + "\n}"
        for provider, rows in whole["prices"].items()
    )
    names = ("source", "on", "version")
    head = "".join(f"{json.dumps(key)}: {json.dumps(whole[key])},\n" for key in names)
    return f'{{\n{head}"prices": {{\n{prices}\n}}\n}}\n'


def _provider(provider: types.Provider, on: date) -> dict[str, Row]:
    rows: dict[str, Row] = {}
    for model in provider.models:
        prices = _in_force(model, on)
        row = _row(prices) if prices is not None else {}
        for name in {model.id, *_names(model.match)}:
            if row:
                rows.setdefault(name, row)
    return rows


def _row(prices: types.ModelPrice) -> Row:
    """The prices of a model: those of the smallest prompts, and `tiers` for larger ones."""
    row: Row = {}
    tiers: dict[int, Row] = {}
    for ours, theirs in FIELDS.items():
        price = getattr(prices, theirs)
        if isinstance(price, types.TieredPrices):
            for tier in price.tiers:
                tiers.setdefault(int(tier.start), {})[ours] = _text(tier.price)
            price = price.base
        if price is not None:
            row[ours] = _text(price)
    if tiers:
        row["tiers"] = [{"above": above, **tiers[above]} for above in sorted(tiers)]
    return row


def _names(match: Any) -> Iterator[str]:
    """Exact names, and beginnings of names with a star; patterns beyond these are left out."""
    if isinstance(match, types.ClauseEquals):
        yield match.equals
    elif isinstance(match, types.ClauseStartsWith):
        yield f"{match.starts_with}*"
    elif isinstance(match, types.ClauseOr):
        for each in match.or_:
            yield from _names(each)


def _in_force(model: types.ModelInfo, on: date) -> types.ModelPrice | None:
    """The price at any time of the day; discounts at some hours are left out."""
    if isinstance(model.prices, types.ModelPrice):
        return model.prices
    dated = [
        (getattr(each.constraint, "start_date", date.min), each.prices)
        for each in model.prices
        if not isinstance(each.constraint, types.TimeOfDateConstraint)
    ]
    begun = [(start, prices) for start, prices in dated if start <= on]
    return max(begun, key=lambda pair: pair[0])[1] if begun else None


def _text(price: Decimal) -> str:
    """USD for a million tokens."""
    return f"{price:f}"


def main() -> None:
    Path(FILE).write_text(text(date.today()), "utf-8")
    sys.stdout.write(f"{FILE}\n")


if __name__ == "__main__":
    main()
