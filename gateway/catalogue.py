"""The catalogue of models and providers, read from `models.toml` and the operator's MODELS_FILE."""

from __future__ import annotations

import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, fields
from datetime import date
from pathlib import Path
from typing import Any

from gateway.errors import ModelNotFound, ProviderNotConfigured
from gateway.policy import Rule, rules
from gateway.settings import ConfigurationError, Settings

BUILT_IN = Path(__file__).with_name("models.toml")
# Annotation of a row's field -> what TOML must give.
WANTED: dict[str, type] = {
    "str": str,
    "str | None": str,
    "int | None": int,
    "date | None": date,
    "tuple[str, ...]": tuple,
    "Mapping[str, str]": dict,
    "Mapping[str, Rule]": dict,
}
WIRES = ("openai", "anthropic", "demo")


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

    def missing(self, settings: Settings) -> str | None:
        """The variable that must be set before this provider can be called, or None."""
        if self.key_variable and not settings.variable(self.key_variable):
            return self.key_variable
        if self.wire != "demo" and not self.address(settings):
            return self.base_url_variable
        return None

    def address(self, settings: Settings) -> str:
        """The base URL, without a slash at its end."""
        url = settings.variable(self.base_url_variable) if self.base_url_variable else ""
        return (url or self.base_url).rstrip("/")


@dataclass(frozen=True, slots=True)
class ModelRow:
    """One model. An id ending in `/*` stands for any model of its provider."""

    id: str
    provider: str
    upstream: str = ""
    context: int | None = None
    output: int | None = None
    shutdown: date | None = None
    successor: str | None = None
    fallbacks: tuple[str, ...] = ()
    parameters: Mapping[str, Rule] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Route:
    """Where a call to one model goes."""

    model: ModelRow
    provider: ProviderRow
    upstream_model: str


class Catalogue:
    """Every model that can be asked for."""

    def __init__(
        self,
        models: Mapping[str, ModelRow],
        providers: Mapping[str, ProviderRow],
        settings: Settings,
    ) -> None:
        self.providers = providers
        self._models = models
        self._settings = settings

    @classmethod
    def load(cls, settings: Settings) -> Catalogue:
        """Read both files; raises ConfigurationError naming the row that is wrong."""
        tables = _read(BUILT_IN)
        if settings.models_file:
            tables = _merge(tables, _read(Path(settings.models_file)))
        providers = {
            name: _row(ProviderRow, "name", name, row)
            for name, row in tables.get("providers", {}).items()
        }
        models = {
            name: _row(ModelRow, "id", name, row) for name, row in tables.get("models", {}).items()
        }
        if not settings.demo_models:
            models = {k: v for k, v in models.items() if _wire(providers, v) != "demo"}
        _check(models, providers)
        return cls(models, providers, settings)

    def route(self, model: str) -> Route:
        """Where to send a call for `model`.

        Raises ModelNotFound, and ProviderNotConfigured naming the variable to set.
        """
        row = self.find(model)
        provider = self.providers[row.provider]
        missing = provider.missing(self._settings)
        if missing is not None:
            raise ProviderNotConfigured(
                f"The model '{model}' is served by '{provider.name}', which is not configured: "
                f"set {missing}."
            )
        return Route(row, provider, row.upstream or model.partition("/")[2])

    def find(self, model: str) -> ModelRow:
        """The row that serves `model`; raises ModelNotFound."""
        row = self._models.get(model)
        if row is None:
            family, slash, rest = model.partition("/")
            row = self._models.get(f"{family}/*") if slash and rest else None
        if model.endswith("/*"):  # the row of a family is no model
            row = None
        if row is None:
            raise ModelNotFound(
                f"The model `{model[:256]}` does not exist or you do not have access to it."
            )
        return row

    def listed(self) -> Iterator[ModelRow]:
        """The rows that name one model each, in the order of the files."""
        return (row for name, row in self._models.items() if not name.endswith("/*"))

    def available(self, row: ModelRow) -> bool:
        """Whether the provider of this model is configured."""
        return self.providers[row.provider].missing(self._settings) is None


def _read(path: Path) -> dict[str, Any]:
    try:
        tables = tomllib.loads(path.read_text("utf-8"))
    except OSError as error:
        raise ConfigurationError(f"MODELS_FILE {path}: {error.strerror}") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigurationError(f"{path} is not TOML: {error}") from None
    for part in ("providers", "models"):
        if not isinstance(tables.get(part, {}), dict):
            raise ConfigurationError(f'models file, "{part}": a table is wanted')
    return tables


def _merge(base: dict[str, Any], own: dict[str, Any]) -> dict[str, Any]:
    if own.get("replace"):
        return own
    return {part: {**base.get(part, {}), **own.get(part, {})} for part in ("providers", "models")}


def _row(kind: type[Any], key: str, name: str, row: Any) -> Any:
    known = {item.name for item in fields(kind)} - {key}
    if not isinstance(row, dict) or not row.keys() <= known:
        wrong = sorted(row.keys() - known) if isinstance(row, dict) else row
        raise ConfigurationError(f'models file, "{name}": unknown {wrong}; known: {sorted(known)}')
    values = {k: tuple(v) if isinstance(v, list) else v for k, v in row.items()}
    for item in fields(kind):
        if item.name in values and not isinstance(values[item.name], WANTED[str(item.type)]):
            raise ConfigurationError(f'models file, "{name}": {item.name} must be {item.type}')
    if "parameters" in values:
        values["parameters"] = rules(name, values["parameters"])
    try:
        return kind(**{key: name}, **values)
    except TypeError as error:
        raise ConfigurationError(f'models file, "{name}": {error}') from None


def _wire(providers: Mapping[str, ProviderRow], model: ModelRow) -> str:
    provider = providers.get(model.provider)
    return provider.wire if provider else ""


def _check(models: Mapping[str, ModelRow], providers: Mapping[str, ProviderRow]) -> None:
    for provider in providers.values():
        if provider.wire not in WIRES:
            raise ConfigurationError(
                f'models file, provider "{provider.name}": wire must be one of {", ".join(WIRES)}'
            )
        if provider.wire != "demo" and not (provider.base_url or provider.base_url_variable):
            raise ConfigurationError(
                f'models file, provider "{provider.name}": base_url is missing'
            )
        if provider.base_url and not provider.base_url.startswith(("http://", "https://")):
            raise ConfigurationError(f'models file, provider "{provider.name}": base_url is no URL')
    families = {name.removesuffix("*") for name in models if name.endswith("/*")}
    for model in models.values():
        if model.provider not in providers:
            raise ConfigurationError(
                f'models file, "{model.id}": there is no provider "{model.provider}"'
            )
        for other in (*model.fallbacks, *([model.successor] if model.successor else [])):
            if other not in models and f"{other.partition('/')[0]}/" not in families:
                raise ConfigurationError(f'models file, "{model.id}": there is no model "{other}"')
