"""Reads `models.toml` and the operator's MODELS_FILE: the only place that knows their form."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field, fields
from datetime import date
from decimal import Decimal, InvalidOperation
from difflib import get_close_matches
from math import inf
from pathlib import Path
from typing import Any

from gateway.catalogue.parameters import Rule, rules
from gateway.chat import EXTENSIONS
from gateway.settings import ConfigurationError, Settings, is_http_url

BUILT_IN = Path(__file__).with_name("models.toml")
PARTS = ("providers", "policies", "models")
# Annotation of a row's field -> what TOML must give.
WANTED: dict[str, type] = {
    "str": str,
    "str | None": str,
    "int | None": int,
    "bool": bool,
    "date | None": date,
    "tuple[str, ...]": tuple,
    "Mapping[str, str]": dict,
    "Mapping[str, Rule]": dict,
    "Mapping[str, Decimal]": dict,
    "Mapping[str, float]": dict,
}
KINDS = ("chat", "embeddings")
PRICES = ("prompt", "completion", "input_cache_read", "input_cache_write")
FILE_URL = "file_url"  # a provider that keeps it takes files by their address
KEEPS = EXTENSIONS | {FILE_URL}
TIMEOUTS = ("connect", "first_byte", "first_token", "between_tokens", "total")
MOST_RETRIES = 10
PROVIDER_NAME = re.compile(r"[\w.-]+", re.ASCII)  # the first half of "provider/model"


@dataclass(frozen=True, slots=True)
class ProviderRow:
    """One upstream: a dialect, an address and where its key is."""

    name: str
    wire: str
    base_url: str = ""
    base_url_variable: str = ""
    key_variable: str = ""
    headers: Mapping[str, str] = field(default_factory=dict)
    extra_parameters: tuple[str, ...] = ()
    keeps: tuple[str, ...] = ()
    parameters: Mapping[str, Rule] = field(default_factory=dict)
    demo: bool = False  # calls nobody, and is served with DEMO_MODELS only

    def missing(self, settings: Settings) -> str | None:
        """The variable that must be set before this provider can be called, or None."""
        if self.key_variable and not settings.variable(self.key_variable):
            return self.key_variable
        if self.base_url_variable and not self.address(settings):
            return self.base_url_variable
        return None

    def configured(self, settings: Settings) -> bool:
        """Whether an operator has set its key or, where it needs no key, its base URL."""
        if self.missing(settings) is not None:
            return False
        own = not self.base_url_variable or settings.variable(self.base_url_variable)
        return bool(self.key_variable or own)

    def address(self, settings: Settings) -> str:
        """The base URL, without a slash at its end."""
        url = settings.variable(self.base_url_variable) if self.base_url_variable else ""
        return (url or self.base_url).rstrip("/")

    def check_address(self, settings: Settings) -> None:
        """Raise ConfigurationError where the variable of the base URL holds no URL."""
        url = settings.variable(self.base_url_variable) if self.base_url_variable else ""
        if url and not is_http_url(url):
            raise ConfigurationError(
                f"{self.base_url_variable} must be a URL that starts with http:// or https://, "
                f"and is {url!r}"
            )


@dataclass(frozen=True, slots=True)
class PolicyRow:
    """What all models of a family do with parameters; `models` are shell patterns of
    "provider/name there"."""

    name: str
    models: tuple[str, ...]
    parameters: Mapping[str, Rule] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class ModelRow:
    """One model. An id ending in `/*` stands for any model of its provider.

    `prices` are in USD for a million tokens; what is not among them is not known. `timeouts` (in
    seconds) and `retries` stand before those of the settings.
    """

    id: str
    provider: str
    upstream: str = ""
    kind: str = "chat"
    context: int | None = None
    output: int | None = None
    shutdown: date | None = None
    successor: str | None = None
    fallbacks: tuple[str, ...] = ()
    timeouts: Mapping[str, float] = field(default_factory=dict)
    retries: int | None = None
    thinking: str | None = None
    prices: Mapping[str, Decimal] = field(default_factory=dict)
    parameters: Mapping[str, Rule] = field(default_factory=dict)

    @property
    def family(self) -> bool:
        """Whether the row stands for any model of its provider."""
        return self.id.endswith("/*")

    def name_there(self, model: str) -> str:
        """What its provider calls `model`, which this row serves."""
        return self.upstream or model.partition("/")[2]


@dataclass(frozen=True, slots=True)
class Rows:
    """What both files say together, by name."""

    providers: dict[str, ProviderRow]
    policies: dict[str, PolicyRow]
    models: dict[str, ModelRow]


def read(models_file: str) -> Rows:
    """The built-in file and the operator's; raises ConfigurationError naming the row at fault."""
    tables = _read(BUILT_IN)
    # The built-in rows name every wire: a test holds them to the table in providers/__init__.py.
    wires = dict.fromkeys(row["wire"] for row in tables["providers"].values())
    if models_file:
        tables = _merge(tables, _read(Path(models_file)))
    made = Rows(
        {k: _row(ProviderRow, "name", k, row) for k, row in tables.get("providers", {}).items()},
        {k: _row(PolicyRow, "name", k, row) for k, row in tables.get("policies", {}).items()},
        {k: _row(ModelRow, "id", k, row) for k, row in tables.get("models", {}).items()},
    )
    for provider in made.providers.values():
        _check_provider(provider, wires)
    for model in made.models.values():
        _check_model(model, made)
    return made


def _read(path: Path) -> dict[str, Any]:
    try:
        tables = tomllib.loads(path.read_text("utf-8"))
    except OSError as error:
        raise ConfigurationError(f"MODELS_FILE {path}: {error.strerror}") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigurationError(f"{path} is not TOML: {error}") from None
    for name in tables.keys() - {*PARTS, "replace"}:
        close = get_close_matches(name, PARTS, 1)
        advice = f"write [{close[0]}.…]" if close else f"known: {', '.join((*PARTS, 'replace'))}"
        raise _wrong(name, f"unknown table; {advice}")
    for part in PARTS:
        if not isinstance(tables.get(part, {}), dict):
            raise ConfigurationError(f'models file, "{part}": a table is wanted')
    return tables


def _merge(base: dict[str, Any], own: dict[str, Any]) -> dict[str, Any]:
    if own.get("replace"):
        return own
    return {part: {**base.get(part, {}), **own.get(part, {})} for part in PARTS}


def _row(kind: type[Any], key: str, name: str, row: Any) -> Any:
    known = {item.name for item in fields(kind)} - {key}
    if not isinstance(row, dict) or not row.keys() <= known:
        wrong = sorted(row.keys() - known) if isinstance(row, dict) else row
        raise _wrong(name, f"unknown {wrong}; known: {sorted(known)}")
    values: dict[str, Any] = {k: tuple(v) if isinstance(v, list) else v for k, v in row.items()}
    for item in fields(kind):
        if item.name in values and not isinstance(values[item.name], WANTED[str(item.type)]):
            raise _wrong(name, f"{item.name} must be {item.type}")
    if "parameters" in values:
        values["parameters"] = rules(name, values["parameters"])
    if "prices" in values:
        values["prices"] = {k: _price(name, k, v) for k, v in values["prices"].items()}
    try:
        return kind(**{key: name}, **values)
    except TypeError as error:
        raise _wrong(name, str(error)) from None


def _price(row: str, name: str, text: Any) -> Decimal:
    try:
        # A float would not be the number that was written.
        price = Decimal(text) if isinstance(text, str) and name in PRICES else None
    except InvalidOperation:
        price = None
    if price is None or not price.is_finite() or price < 0:
        raise _wrong(row, f'prices: {", ".join(PRICES)} are wanted, such as prompt = "0.15"')
    return price


def _check_provider(provider: ProviderRow, wires: Collection[str]) -> None:
    if not PROVIDER_NAME.fullmatch(provider.name):
        raise _wrong(provider.name, "letters, digits, '-', '_' and '.' make a provider's name")
    if provider.wire not in wires:
        raise _wrong(provider.name, f"wire must be one of {', '.join(wires)}")
    if not provider.demo and not (provider.base_url or provider.base_url_variable):
        raise _wrong(provider.name, "base_url is missing")
    if provider.base_url and not is_http_url(provider.base_url):
        raise _wrong(provider.name, "base_url must be a URL that starts with http:// or https://")
    if not KEEPS.issuperset(provider.keeps):
        raise _wrong(provider.name, f"keeps may name {', '.join(sorted(KEEPS))}")


def _check_model(model: ModelRow, rows: Rows) -> None:
    if model.provider not in rows.providers:
        raise _wrong(model.id, f'there is no provider "{model.provider}"')
    if model.kind not in KINDS:
        raise _wrong(model.id, f"kind must be one of {', '.join(KINDS)}")
    if not (model.id + model.upstream).isprintable():
        raise _wrong(model.id, "there is a control character in the model's name")
    if model.retries is not None and not 0 <= model.retries <= MOST_RETRIES:
        raise _wrong(model.id, f"retries must be from 0 to {MOST_RETRIES}")
    for name, seconds in model.timeouts.items():
        # TOML has an infinity, and knows true and false apart from numbers.
        if name not in TIMEOUTS or type(seconds) not in (int, float) or not 0 < seconds < inf:
            known = ", ".join(TIMEOUTS)
            raise _wrong(model.id, f"timeouts: {known} are wanted, in seconds, above 0")
    for other in (*model.fallbacks, *([model.successor] if model.successor else [])):
        if other not in rows.models and f"{other.partition('/')[0]}/*" not in rows.models:
            raise _wrong(model.id, f'there is no model "{other}"')
    for other in model.fallbacks:
        row = rows.models.get(other)
        if row is not None and not (row.family or model.family) and row.kind != model.kind:
            raise _wrong(model.id, f'its fallback "{other}" is of another kind')


def _wrong(row: str, reason: str) -> ConfigurationError:
    return ConfigurationError(f'models file, "{row}": {reason}')
