"""Reads `models.toml` and the operator's MODELS_FILE: the only place that knows their format."""

from __future__ import annotations

import logging
import re
import tomllib
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field, fields
from datetime import date
from decimal import Decimal, InvalidOperation
from difflib import get_close_matches
from functools import cache
from math import inf
from pathlib import Path
from typing import Any

from gateway.catalogue.parameters import Rules, rules
from gateway.chat import EXTENSIONS
from gateway.settings import ConfigurationError, Settings, is_http_url
from gateway.timeouts import NAMES as TIMEOUTS
from gateway.timeouts import Timeouts

log = logging.getLogger(__name__)

BUILT_IN = Path(__file__).with_name("models.toml")
TABLES = ("providers", "rules", "models")
# Annotation of a row's field -> its type in TOML.
FIELD_TYPES: dict[str, type] = {
    "str": str,
    "str | None": str,
    "int | None": int,
    "bool": bool,
    "date | None": date,
    "tuple[str, ...]": tuple,
    "Mapping[str, str]": dict,
    "Mapping[str, Rules]": dict,
    "tuple[PriceTier, ...]": dict,
    "Timeouts": dict,
    "tuple[Deployment, ...]": tuple,
}
MODEL_KINDS = ("chat", "embeddings")
# The kinds of tokens that have a price, by OpenRouter's names.
PRICES = (
    *("prompt", "completion", "input_cache_read", "input_cache_write", "input_cache_write_1h"),
    *("internal_reasoning", "audio", "input_audio_cache", "audio_output"),
    *("image_token", "image_output"),
)
MAX_PRICE = 1_000_000  # USD for a million tokens
FILE_URL = "file_url"  # files by their address
MESSAGES_API = "messages_api"  # what Anthropic's Messages API has and OpenAI's chat has not
CUSTOM_TOOLS = "custom_tools"  # tools that take text; others get a function in their place
LONG_TOOL_NAMES = "long_tool_names"  # of 128 characters; others get names of 64
ACCEPTS = EXTENSIONS | {FILE_URL, MESSAGES_API, CUSTOM_TOOLS, LONG_TOOL_NAMES}
MAX_RETRIES = 10
AUTHS = ("", "google")
INHERITED = {"inherited": True}  # metadata of fields that a models file sets elsewhere
# Table -> old name of a field -> its name. Old names are read for one release.
RENAMED_FIELDS: dict[str, dict[str, str]] = {
    "providers": {"keeps": "accepts"},
    "models": {
        "context": "context_length",
        "output": "max_output_tokens",
        "shutdown": "shutdown_date",
    },
}
RENAMED_TABLES = {"policies": "rules"}
PROVIDER_NAME = re.compile(r"[\w.-]+", re.ASCII)  # the first half of "provider/model"


@dataclass(frozen=True, slots=True)
class ProviderRow:
    """One provider: its dialect, its address and the variable with its keys.

    `key_header` is a header that holds the key without "Bearer". `auth` is "google" where the
    variable holds the path of a service account's key. `accepts` names what its messages and
    parameters may hold beyond OpenAI's (see ACCEPTS).
    `system_first`: it takes system messages at the beginning only. `tool_call_ids` is the pattern
    of the ids of tool calls that it takes. Calls for more than `stream_above` tokens are streamed.
    `plain_text`: it takes messages of nothing but text as one text.
    `trace_context`: it is sent the `traceparent` of each attempt's span.
    """

    name: str
    wire: str
    base_url: str = ""
    base_url_variable: str = ""
    key_variable: str = ""
    key_header: str = ""
    auth: str = ""
    headers: Mapping[str, str] = field(default_factory=dict)
    extra_parameters: tuple[str, ...] = ()
    accepts: tuple[str, ...] = ()
    system_first: bool = False
    tool_call_ids: str = ""
    stream_above: int | None = None
    plain_text: bool = False
    trace_context: bool = False
    parameters: Mapping[str, Rules] = field(default_factory=dict)
    demo: bool = False  # calls nobody, and is served with DEMO_MODELS only

    def missing(self, settings: Settings) -> str | None:
        """The variable that must be set before this provider can be called, or None."""
        if self.key_variable and not self.keys(settings):
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

    def keys(self, settings: Settings) -> tuple[str, ...]:
        """Its keys: the variable may hold several, separated by commas."""
        text = settings.variable(self.key_variable) if self.key_variable else ""
        return tuple(key.strip() for key in text.split(",") if key.strip())

    def check_address(self, settings: Settings) -> None:
        """Raise ConfigurationError where the variable of the base URL holds no URL."""
        url = settings.variable(self.base_url_variable) if self.base_url_variable else ""
        if url and not is_http_url(url):
            raise ConfigurationError(
                f"{self.base_url_variable} must be a URL that starts with http:// or https://, "
                f"and is {url!r}"
            )


@dataclass(frozen=True, slots=True)
class RulesRow:
    """Parameter rules for all models that match a shell pattern in `models`.

    A pattern is matched against "provider/upstream name". `accepts` adds to what the provider of
    these models accepts.
    """

    name: str
    models: tuple[str, ...]
    accepts: tuple[str, ...] = ()
    parameters: Mapping[str, Rules] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Deployment:
    """One of several places of a model. `upstream` is its name there; default: the model's."""

    provider: str
    upstream: str = ""
    weight: float = 1.0


@dataclass(frozen=True, slots=True)
class PriceTier:
    """Prices that hold for calls whose prompt has more than `above` tokens.

    `prices` are pairs of a name in PRICES and USD for a million tokens. A price that a tier does
    not name is that of the tier before it.
    """

    above: int
    prices: tuple[tuple[str, Decimal], ...]


@dataclass(frozen=True, slots=True)
class ModelRow:
    """One model. An id that ends in `/*` stands for any model of its provider.

    `prices` replace those of gateway/account/prices.json; the first tier is above 0. Calls of a
    model that is not `billed` cost nothing. `typical_output_tokens` is what a call is expected to
    write. `timeouts` and `retries` override the settings where they are set. In a row of a
    `Catalogue`, `parameters` holds all rules for the model, and `extra_parameters` and `accepts`
    are its provider's, with the `accepts` of the rules for it.
    """

    id: str
    provider: str
    upstream: str = ""
    kind: str = "chat"
    context_length: int | None = None
    max_output_tokens: int | None = None
    shutdown_date: date | None = None
    successor: str | None = None
    fallbacks: tuple[str, ...] = ()
    timeouts: Timeouts = Timeouts()
    retries: int | None = None
    deployments: tuple[Deployment, ...] = ()
    thinking: str | None = None
    system_turns: bool = False
    prices: tuple[PriceTier, ...] = ()
    billed: bool = True
    typical_output_tokens: int | None = None
    parameters: Mapping[str, Rules] = field(default_factory=dict)
    extra_parameters: tuple[str, ...] = field(default=(), metadata=INHERITED)
    accepts: tuple[str, ...] = field(default=(), metadata=INHERITED)

    @property
    def has_provider(self) -> bool:
        """Whether a worker needs a provider object for this row alone."""
        return self.timeouts != Timeouts() or bool(self.deployments)

    @property
    def family(self) -> bool:
        """Whether the row stands for any model of its provider."""
        return self.id.endswith("/*")

    def upstream_name(self, model: str) -> str:
        """The provider's name for `model`, which this row serves."""
        return self.upstream or model.partition("/")[2]


@dataclass(frozen=True, slots=True)
class Rows:
    """The rows of both files, by name."""

    providers: dict[str, ProviderRow]
    rules: dict[str, RulesRow]
    models: dict[str, ModelRow]


def read(models_file: str) -> Rows:
    """The rows of the built-in file and of the operator's (none where `models_file` is empty).

    Raises ConfigurationError, which names the row at fault.
    """
    if not models_file:
        return _built_in()
    built_in = _read(BUILT_IN)
    return _rows(_merge(built_in, _read(Path(models_file))), _wires(built_in))


@cache  # tests load them thousands of times
def _built_in() -> Rows:
    tables = _read(BUILT_IN)
    return _rows(tables, _wires(tables))


def _wires(built_in: dict[str, Any]) -> dict[str, None]:
    # The built-in rows name every wire: a test holds them to the table in providers/__init__.py.
    return dict.fromkeys(row["wire"] for row in built_in["providers"].values())


def _rows(tables: dict[str, Any], wires: Collection[str]) -> Rows:
    rows = Rows(
        {k: _row(ProviderRow, "name", k, row) for k, row in tables.get("providers", {}).items()},
        {k: _row(RulesRow, "name", k, row) for k, row in tables.get("rules", {}).items()},
        {k: _row(ModelRow, "id", k, row) for k, row in tables.get("models", {}).items()},
    )
    for provider in rows.providers.values():
        _check_provider(provider, wires)
    for rule in rows.rules.values():
        _check_accepts(rule)
    for model in rows.models.values():
        _check_model(model, rows)
    return rows


def _read(path: Path) -> dict[str, Any]:
    try:
        tables = tomllib.loads(path.read_text("utf-8"))
    except OSError as error:
        raise ConfigurationError(f"MODELS_FILE {path}: {error.strerror}") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigurationError(f"{path} is not TOML: {error}") from None
    renamed = _rename(tables, RENAMED_TABLES)
    for old, new in RENAMED_TABLES.items():
        if old in tables:
            raise ConfigurationError(f'models file, "{old}": move these rows to "{new}"')
    for name in tables.keys() - {*TABLES, "replace"}:
        close = get_close_matches(name, TABLES, 1)
        advice = f"write [{close[0]}.…]" if close else f"known: {', '.join((*TABLES, 'replace'))}"
        raise _wrong(name, f"unknown table; {advice}")
    for table in TABLES:
        if not isinstance(tables.get(table, {}), dict):
            raise ConfigurationError(f'models file, "{table}": expected a table')
        for row in tables.get(table, {}).values():
            renamed |= _rename(row, RENAMED_FIELDS.get(table, {}))
    if renamed:
        names = ", ".join(f"{old} is now {new}" for old, new in renamed.items())
        log.warning("%s uses old names, which the next release refuses: %s", path, names)
    return tables


def _rename(table: Any, names: Mapping[str, str]) -> dict[str, str]:
    """Put values under their new names; the names that were replaced.

    A table with both names is left alone: its old name is refused later as unknown.
    """
    if not isinstance(table, dict):
        return {}
    old_names = {old: new for old, new in names.items() if old in table and new not in table}
    for old, new in old_names.items():
        table[new] = table.pop(old)
    return old_names


def _merge(base: dict[str, Any], own: dict[str, Any]) -> dict[str, Any]:
    if own.get("replace"):
        return own
    return {table: {**base.get(table, {}), **own.get(table, {})} for table in TABLES}


def _row(kind: type[Any], key: str, name: str, row: Any) -> Any:
    allowed = {item.name for item in fields(kind) if item.metadata != INHERITED} - {key}
    if not isinstance(row, dict) or not row.keys() <= allowed:
        wrong = sorted(row.keys() - allowed) if isinstance(row, dict) else row
        raise _wrong(name, f"unknown {wrong}; known: {sorted(allowed)}")
    values: dict[str, Any] = {k: tuple(v) if isinstance(v, list) else v for k, v in row.items()}
    for item in fields(kind):
        if item.name in values and not isinstance(values[item.name], FIELD_TYPES[str(item.type)]):
            raise _wrong(name, f"{item.name} must be {item.type}")
    if "parameters" in values:
        values["parameters"] = rules(name, values["parameters"])
    if "prices" in values:
        values["prices"] = _prices(name, values["prices"])
    if "timeouts" in values:
        values["timeouts"] = _timeouts(name, values["timeouts"])
    if "deployments" in values:
        values["deployments"] = tuple(_deployment(name, each) for each in values["deployments"])
    try:
        return kind(**{key: name}, **values)
    except TypeError as error:
        raise _wrong(name, str(error)) from None


def _deployment(row: str, table: Any) -> Deployment:
    try:
        deployment = Deployment(**table)
    except TypeError:
        deployment = None
    if deployment is None or not isinstance(deployment.weight, (int, float)):
        raise _wrong(row, "deployments: expected a list of { provider, upstream, weight }")
    if not 0 < deployment.weight < inf:
        raise _wrong(row, "deployments: weight must be above 0")
    return deployment


def _timeouts(row: str, table: Mapping[str, Any]) -> Timeouts:
    for name, seconds in table.items():
        # TOML has an infinity, and knows true and false apart from numbers.
        if name not in TIMEOUTS or type(seconds) not in (int, float) or not 0 < seconds < inf:
            names = ", ".join(TIMEOUTS)
            raise _wrong(row, f"timeouts: expected {names} in seconds, each above 0")
    return Timeouts(**table)


def _prices(row: str, table: Mapping[str, Any]) -> tuple[PriceTier, ...]:
    base = {name: price for name, price in table.items() if name != "tiers"}
    tiers = [PriceTier(0, _unit_prices(row, base))]
    more = table.get("tiers", [])
    for tier in more if isinstance(more, list) else [more]:
        above = tier.get("above") if isinstance(tier, dict) else None
        if type(above) is not int or above <= tiers[-1].above:
            raise _wrong(
                row, "prices: tiers need a rising `above`, such as { above = 200000, ... }"
            )
        own = {name: price for name, price in tier.items() if name != "above"}
        tiers.append(PriceTier(above, _unit_prices(row, own)))
    return tuple(tiers)


def _unit_prices(row: str, table: Mapping[str, Any]) -> tuple[tuple[str, Decimal], ...]:
    return tuple((name, _price(row, name, text)) for name, text in table.items())


def _price(row: str, name: str, text: Any) -> Decimal:
    try:
        # A float would not be the number that was written.
        price = Decimal(text) if isinstance(text, str) and name in PRICES else None
    except InvalidOperation:
        price = None
    if price is None or not price.is_finite() or not 0 <= price <= MAX_PRICE:
        raise _wrong(row, f'prices: expected {", ".join(PRICES)}, such as prompt = "0.15"')
    return price


def _check_provider(provider: ProviderRow, wires: Collection[str]) -> None:
    if not PROVIDER_NAME.fullmatch(provider.name):
        raise _wrong(provider.name, "a provider's name may hold letters, digits, '-', '_' and '.'")
    if provider.wire not in wires:
        raise _wrong(provider.name, f"wire must be one of {', '.join(wires)}")
    if not provider.demo and not (provider.base_url or provider.base_url_variable):
        raise _wrong(provider.name, "base_url is missing")
    if provider.base_url and not is_http_url(provider.base_url):
        raise _wrong(provider.name, "base_url must be a URL that starts with http:// or https://")
    if provider.auth not in AUTHS:
        raise _wrong(provider.name, 'auth must be "google"')
    _check_accepts(provider)
    try:
        re.compile(provider.tool_call_ids)
    except re.error as error:
        raise _wrong(provider.name, f"tool_call_ids is no regular expression: {error}") from None


def _check_accepts(row: ProviderRow | RulesRow) -> None:
    if not ACCEPTS.issuperset(row.accepts):
        raise _wrong(row.name, f"accepts may name {', '.join(sorted(ACCEPTS))}")


def _check_model(model: ModelRow, rows: Rows) -> None:
    if model.provider not in rows.providers:
        raise _wrong(model.id, f'there is no provider "{model.provider}"')
    if model.kind not in MODEL_KINDS:
        raise _wrong(model.id, f"kind must be one of {', '.join(MODEL_KINDS)}")
    if not (model.id + model.upstream).isprintable():
        raise _wrong(model.id, "the model's name contains a control character")
    if model.retries is not None and not 0 <= model.retries <= MAX_RETRIES:
        raise _wrong(model.id, f"retries must be from 0 to {MAX_RETRIES}")
    if model.typical_output_tokens is not None and model.typical_output_tokens < 1:
        raise _wrong(model.id, "typical_output_tokens must be at least 1")
    if model.deployments and model.family:
        raise _wrong(model.id, "only a model of its own can have deployments")
    for deployment in model.deployments:
        other = rows.providers.get(deployment.provider)
        if other is None or other.wire != rows.providers[model.provider].wire:
            raise _wrong(model.id, "deployments need providers of one wire")
    if model.deployments and model.provider not in {each.provider for each in model.deployments}:
        raise _wrong(model.id, "its provider must be among those of its deployments")
    for name in (*model.fallbacks, *([model.successor] if model.successor else [])):
        if name not in rows.models and f"{name.partition('/')[0]}/*" not in rows.models:
            raise _wrong(model.id, f'there is no model "{name}"')
    for name in model.fallbacks:
        row = rows.models.get(name)
        if row is not None and not (row.family or model.family) and row.kind != model.kind:
            raise _wrong(model.id, f'its fallback "{name}" is of another kind')


def _wrong(row: str, reason: str) -> ConfigurationError:
    return ConfigurationError(f'models file, "{row}": {reason}')
