"""The prices of a model's tokens: the catalogue's, or else those of api/models/prices.json.

tools/prices.py generates the file, which is read at its first use.
"""

from __future__ import annotations

from collections.abc import Mapping
from decimal import Decimal
from functools import cache
from pathlib import Path

import orjson

from gateway.catalogue.file import PRICES, ModelRow

FILE = Path(__file__).with_name("prices.json")
MILLION = Decimal(1_000_000)

Row = list[str | None]  # USD for a million tokens, in the order of PRICES


def prices(row: ModelRow, model: str) -> dict[str, Decimal]:
    """USD for one token of `model`, which `row` serves, by kind of token (see PRICES).

    Unknown prices are absent.
    """
    listed = _row(table().get(row.provider, {}), row.upstream_name(model)) or []
    by_kind = {name: Decimal(price) for name, price in zip(PRICES, listed, strict=False) if price}
    return {name: price / MILLION for name, price in {**by_kind, **row.prices}.items()}


def shown(price: Decimal) -> str:
    """A price as digits, without exponent and without zeros at its end: "0.00000015"."""
    text = f"{price:f}"
    return text.rstrip("0").rstrip(".") if "." in text else text


@cache
def table() -> Mapping[str, Mapping[str, Row]]:
    """The prices of the file, by provider and model. Reads it once."""
    rows: Mapping[str, Mapping[str, Row]] = orjson.loads(FILE.read_bytes())["prices"]
    return rows


def _row(rows: Mapping[str, Row], model: str) -> Row | None:
    """The row of this name, or else of the longest prefix that has one."""
    if model in rows:
        return rows[model]
    prefixes = [name for name in rows if name.endswith("*") and model.startswith(name[:-1])]
    return rows[max(prefixes, key=len)] if prefixes else None
