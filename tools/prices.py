"""Writes api/models/prices.json from the `genai-prices` package: run by `make prices`.

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

from api.models.prices import FILE

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
}
FIELDS = ("input_mtok", "output_mtok", "cache_read_mtok", "cache_write_mtok")


def table(on: date) -> dict[str, Any]:
    """What the file holds: the prices in force on that day."""
    known = {each.id: each for each in providers}
    return {
        "source": f"genai-prices {version('genai-prices')}",
        "on": on.isoformat(),
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
    head = "".join(f"{json.dumps(key)}: {json.dumps(whole[key])},\n" for key in ("source", "on"))
    return f'{{\n{head}"prices": {{\n{prices}\n}}\n}}\n'


def _provider(provider: types.Provider, on: date) -> dict[str, list[str | None]]:
    rows: dict[str, list[str | None]] = {}
    for model in provider.models:
        prices = _in_force(model, on)
        if prices is None:
            continue
        row = [_price(getattr(prices, field)) for field in FIELDS]
        for name in {model.id, *_names(model.match)}:
            if any(price is not None for price in row):
                rows.setdefault(name, row)
    return rows


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
    """The price at any time of the day; discounts at some hours are not told."""
    if isinstance(model.prices, types.ModelPrice):
        return model.prices
    dated = [
        (getattr(each.constraint, "start_date", date.min), each.prices)
        for each in model.prices
        if not isinstance(each.constraint, types.TimeOfDateConstraint)
    ]
    begun = [(start, prices) for start, prices in dated if start <= on]
    return max(begun, key=lambda pair: pair[0])[1] if begun else None


def _price(price: Decimal | types.TieredPrices | None) -> str | None:
    """USD for a million tokens; of prices that grow with the prompt, the first."""
    if isinstance(price, types.TieredPrices):
        price = price.base
    return None if price is None else f"{price:f}"


def main() -> None:
    Path(FILE).write_text(text(date.today()), "utf-8")
    sys.stdout.write(f"{FILE}\n")


if __name__ == "__main__":
    main()
