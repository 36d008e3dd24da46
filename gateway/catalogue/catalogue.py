"""The catalogue: which models there are, and how a name becomes a target."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import replace
from fnmatch import fnmatchcase
from functools import lru_cache
from typing import Any
from urllib.parse import urlsplit

from gateway.catalogue import file as catalogue_file
from gateway.catalogue import parameters as rules
from gateway.catalogue.file import Deployment, ModelRow, Rows, RulesRow
from gateway.catalogue.target import UNKNOWN, Target
from gateway.errors import InvalidRequest, ModelNotFound, ProviderNotConfigured
from gateway.settings import Settings

CACHED_MEMBERS = 256  # rows of models that another row stands for
DATE = re.compile(r"-(?:\d{8}|\d{4}-\d{2}-\d{2})$", re.ASCII)  # of a version of a model


class Catalogue:
    """All models that can be called."""

    def __init__(self, rows: Rows, settings: Settings) -> None:
        self.providers = rows.providers
        self._rules = list(rows.rules.values())
        self._settings = settings
        self._missing = {name: row.missing(settings) for name, row in rows.providers.items()}
        self._models = {
            name: row if row.family else self._complete(row, name)
            for name, row in rows.models.items()
            if settings.demo_models or not self.providers[row.provider].demo
        }
        self._own_parameters = {name: row.parameters for name, row in rows.models.items()}
        # Name without its provider -> the ids of the listed models that have it.
        self._ids: dict[str, list[str]] = {}
        for row in self.listed():
            if name := row.id.partition("/")[2]:
                self._ids.setdefault(name, []).append(row.id)
        # Callers make these names up, so their number is bounded.
        self._member = lru_cache(CACHED_MEMBERS)(self._made_up_member)

    @classmethod
    def load(cls, settings: Settings) -> Catalogue:
        """The catalogue of `models.toml` and MODELS_FILE.

        Raises ConfigurationError, which names the row, or the variable of a base URL, at fault.
        """
        rows = catalogue_file.read(settings.models_file)
        for provider in rows.providers.values():
            provider.check_address(settings)
        return cls(rows, settings)

    def host(self, provider: str) -> str:
        """The host that a provider is called at, "" for one that is not called over HTTP."""
        row = self.providers.get(provider)
        return (urlsplit(row.address(self._settings)).hostname or "") if row else ""

    def find(self, model: str) -> ModelRow:
        """The row of `model`, with all rules for it; raises ModelNotFound."""
        row = self._row(model)
        if row is None:
            text = f"The model `{model[:256]}` does not exist or you do not have access to it."
            if ids := self._ids.get(model) or self._ids.get(model.partition("/")[2]):
                text += f" Did you mean {' or '.join(f'`{name}`' for name in ids)}?"
            raise ModelNotFound(text)
        return row

    def resolve(self, model: str, only_if_gone: bool = False) -> Target:
        """The target that `model` names, its provider configured or not.

        A bare name stands for the model that `full_name` finds. Raises ModelNotFound.
        """
        model = self.full_name(model)
        row = self.find(model)
        return Target(model, row.provider, row.upstream_name(model), only_if_gone, row)

    def full_name(self, model: str) -> str:
        """The id of the one listed model with this bare name, such as `gpt-4o`, else `model`.

        The name may be that of a dated version of the model, such as `gpt-4o-2024-11-20`.
        """
        if "/" in model or model in self._models:
            return model
        name = model if model in self._ids else DATE.sub("", model)
        ids = self._ids.get(name, ())
        return ids[0] + model[len(name) :] if len(ids) == 1 else model

    def with_row(self, target: Target) -> Target:
        """The target of a job with its row; UNKNOWN for a model that this catalogue lacks."""
        # dataclasses.replace() takes five times as long.
        return Target(
            target.model,
            target.provider,
            target.upstream_model,
            target.only_if_gone,
            self._row(target.model) or UNKNOWN,
        )

    def deployed(self, row: ModelRow, deployment: Deployment) -> Target:
        """The target of one deployment of a model, with the rules for it."""
        name = deployment.upstream or row.upstream_name(row.id)
        own = replace(row, provider=deployment.provider, upstream=name)
        own = replace(own, parameters=self._own_parameters[row.id])
        return Target(row.id, deployment.provider, name, row=self._complete(own, row.id))

    def require_configured(self, target: Target) -> None:
        """Raises ProviderNotConfigured, which names the environment variable to set."""
        missing = self._missing[target.provider]
        if missing is not None:
            raise ProviderNotConfigured(
                f"The model '{target.model}' is served by '{target.provider}', which is not "
                f"configured: set {missing}."
            )

    def successors(
        self, target: Target, params: Mapping[str, Any], optional: Collection[str] = ()
    ) -> list[Target]:
        """The successors that may answer a call for `target` should its model be gone.

        There are none unless RETIRED_MODELS allows it. A model that refuses one of the parameters
        is left out (`optional`: see Target.fit).
        """
        successors: list[Target] = []
        if self._settings.retired_models != "successor":
            return successors
        seen = {target.model}
        name = target.row.successor
        while name and name not in seen:
            seen.add(name)
            try:
                successor = self.resolve(name, only_if_gone=True)
            except ModelNotFound:
                break
            if not self.available(successor.row):
                break
            if _takes(successor, params, target, optional):
                successors.append(successor)
            name = successor.row.successor
        return successors

    def fallbacks(self, target: Target, models: Sequence[str] | None) -> list[Target]:
        """The targets that may answer a call for `target` should it fail, in order.

        They are the caller's `models`, or for None those of the target's row. Models of another
        kind, and models whose provider is not configured, are left out.

        Raises ModelNotFound for an unknown name in `models`.
        """
        fallbacks: list[Target] = []
        seen = {target.model}
        for name in map(self.full_name, target.row.fallbacks if models is None else models):
            if name in seen:
                continue
            seen.add(name)
            try:
                fallback = self.resolve(name)
            except ModelNotFound as error:
                if models is None:
                    continue
                raise ModelNotFound(error.message, param="models") from None
            if self.available(fallback.row) and _same_kind(target.row, fallback.row):
                fallbacks.append(fallback)
        return fallbacks

    def rows(self) -> Iterator[ModelRow]:
        """All rows, those that end in `/*` included, in the order of the files."""
        return iter(self._models.values())

    def listed(self) -> Iterator[ModelRow]:
        """The rows that name one model each, in the order of the files."""
        return (row for row in self._models.values() if not row.family)

    def available(self, row: ModelRow) -> bool:
        """Whether the provider of this model is configured."""
        return self._missing[row.provider] is None

    def configured(self) -> list[str]:
        """The names of the providers that an operator has set up (see ProviderRow.configured).

        A provider without models, such as `demo` while DEMO_MODELS is off, is left out.
        """
        served = {row.provider for row in self._models.values()}
        rows = (row for row in self.providers.values() if row.name in served)
        return [row.name for row in rows if row.configured(self._settings)]

    def _row(self, model: str) -> ModelRow | None:
        if model.endswith("/*"):  # the row of a family is no model
            return None
        return self._models.get(model) or self._member(model)

    def _made_up_member(self, model: str) -> ModelRow | None:
        """The row of a dated version of a listed model, or of a member of a family."""
        family, slash, rest = model.partition("/")
        row = self._models.get(DATE.sub("", model))
        if row is None or row.upstream or row.family:
            row = self._models.get(f"{family}/*") if slash and rest else None
        if row is None:
            return None
        return self._complete(replace(row, parameters=self._own_parameters[row.id]), model)

    def _complete(self, row: ModelRow, model: str) -> ModelRow:
        """The row of `model` with all rules that hold for it and what its provider takes."""
        name = f"{row.provider}/{row.upstream_name(model)}"
        provider = self.providers[row.provider]
        matching = [each for each in self._rules if _matches(each, name)]
        tables: list[Mapping[str, rules.Rules]] = [provider.parameters]
        tables += (each.parameters for each in matching)
        return replace(
            row,
            parameters=rules.merge(*tables, row.parameters),
            extra_parameters=provider.extra_parameters,
            accepts=sum((each.accepts for each in matching), provider.accepts),
        )


def _takes(
    target: Target, params: Mapping[str, Any], first: Target, optional: Collection[str]
) -> bool:
    try:
        target.fit(params, first, optional)
    except InvalidRequest:
        return False
    return True


def _same_kind(one: ModelRow, other: ModelRow) -> bool:
    """Whether both may answer the same call; of a family's members the kind is not known."""
    return one.kind == other.kind or one.family or other.family


def _matches(row: RulesRow, name: str) -> bool:
    return any(fnmatchcase(name, pattern) for pattern in row.models)
