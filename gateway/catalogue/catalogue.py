"""The catalogue: which models can be asked for, where each goes and what each takes."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase
from functools import lru_cache
from typing import Any

from gateway.catalogue import file as catalogue_file
from gateway.catalogue import parameters as rules
from gateway.catalogue.file import ModelRow, PolicyRow, ProviderRow, Rows
from gateway.errors import InvalidRequest, ModelNotFound, ProviderNotConfigured
from gateway.settings import Settings

# Kind of a model -> what another kind of call is answered, in OpenAI's words as far as they fit.
WRONG_KIND = {
    "embeddings": (404, "This is not a chat model and thus not supported in this endpoint."),
    "chat": (400, "You are not allowed to generate embeddings from this model."),
}

OUTPUT_LIMITS = frozenset({"max_tokens", "max_completion_tokens"})
FAMILY_MEMBERS = 256  # rows of models of families that are kept


@dataclass(frozen=True, slots=True)
class Route:
    """Where a call to one model goes; `name` is what callers call it."""

    model: ModelRow
    provider: ProviderRow
    upstream_model: str
    name: str

    def require(self, kind: str) -> None:
        """Raises InvalidRequest where the model is known to be of another kind."""
        if self.model.kind != kind and not self.model.family:
            status, message = WRONG_KIND[self.model.kind]
            raise InvalidRequest(message, param="model", status=status)


class Catalogue:
    """Every model that can be asked for."""

    def __init__(self, rows: Rows, settings: Settings) -> None:
        self.providers = rows.providers
        self._policies = list(rows.policies.values())
        self._settings = settings
        self._models = {
            name: row if row.family else self._with_policy(row, name)
            for name, row in rows.models.items()
            if settings.demo_models or not self.providers[row.provider].demo
        }
        # Name without its provider -> the ids of the listed models that have it.
        self._ids: dict[str, list[str]] = {}
        for row in self.listed():
            if name := row.id.partition("/")[2]:
                self._ids.setdefault(name, []).append(row.id)
        # Callers make these names up: it must not keep all of them.
        self._member = lru_cache(FAMILY_MEMBERS)(self._family_member)

    @classmethod
    def load(cls, settings: Settings) -> Catalogue:
        """Read both files.

        Raises ConfigurationError naming the row, or the variable of a base URL, that is wrong.
        """
        rows = catalogue_file.read(settings.models_file)
        for provider in rows.providers.values():
            provider.check_address(settings)
        return cls(rows, settings)

    def route(self, model: str) -> Route:
        """Where to send a call for `model`.

        Raises ModelNotFound, and ProviderNotConfigured naming the variable to set.
        """
        route = self.place(model)
        self.require_configured(route)
        return route

    def place(self, model: str) -> Route:
        """Where to send a call for `model`, whether its provider is configured or not.

        A bare name stands for the model that `full_name` finds. Raises ModelNotFound.
        """
        model = self.full_name(model)
        row = self.find(model)
        return Route(row, self.providers[row.provider], row.name_there(model), model)

    def full_name(self, model: str) -> str:
        """The id of the one listed model with this bare name, such as `gpt-4o`, else `model`."""
        ids = () if model in self._models else self._ids.get(model, ())
        return ids[0] if len(ids) == 1 and "/" not in model else model

    def require_configured(self, route: Route) -> None:
        """Raises ProviderNotConfigured, naming the variable to set."""
        missing = route.provider.missing(self._settings)
        if missing is not None:
            raise ProviderNotConfigured(
                f"The model '{route.name}' is served by '{route.provider.name}', which is not "
                f"configured: set {missing}."
            )

    def successors(self, route: Route, parameters: dict[str, Any]) -> list[Route]:
        """Where a call with these parameters may go next should its model be gone.

        That is as RETIRED_MODELS allows, and no model that lacks what the call asks for.
        """
        asked = route.name
        found: list[Route] = []
        if self._settings.retired_models != "successor":
            return found
        seen = {route.name}
        while route.model.successor and route.model.successor not in seen:
            seen.add(route.model.successor)
            try:
                route = self.route(route.model.successor)
            except (ModelNotFound, ProviderNotConfigured):
                break
            if self._can(route.name, parameters, asked):
                found.append(route)
        return found

    def _can(self, model: str, parameters: dict[str, Any], asked: str) -> bool:
        try:
            self.fit(model, parameters, asked)
        except InvalidRequest:
            return False
        return True

    def fallbacks(self, route: Route, named: Sequence[str] | None) -> list[Route]:
        """Where a call may go next should its model fail: to those that the caller has `named`,
        or, where it named none, to those of the model's row; a model of another kind is left out.

        Raises ModelNotFound for a name of the caller's that is no model.
        """
        found: list[Route] = []
        seen = {route.name}
        for name in map(self.full_name, route.model.fallbacks if named is None else named):
            if name in seen:
                continue
            seen.add(name)
            try:
                other = self.place(name)
            except ModelNotFound as error:
                if named is None:
                    continue
                raise ModelNotFound(error.message, param="models") from None
            if self.available(other.model) and _of_a_kind(route.model, other.model):
                found.append(other)
        return found

    def rows(self) -> Iterator[ModelRow]:
        """Every row, families among them, in the order of the files."""
        return iter(self._models.values())

    def find(self, model: str) -> ModelRow:
        """The row that serves `model`, with all rules that hold for it; raises ModelNotFound."""
        row = self._models.get(model) or self._member(model)
        if row is None or model.endswith("/*"):  # the row of a family is no model
            text = f"The model `{model[:256]}` does not exist or you do not have access to it."
            if ids := self._ids.get(model) or self._ids.get(model.partition("/")[2]):
                text += f" Did you mean {' or '.join(f'`{name}`' for name in ids)}?"
            raise ModelNotFound(text)
        return row

    def fit(
        self, model: str, parameters: dict[str, Any], asked: str
    ) -> tuple[dict[str, Any], list[str]]:
        """Parameters of a call for `asked` as `model` takes them, and the names of those left out.

        Raises ModelNotFound, and InvalidRequest for what `model` refuses.
        """
        row = self.find(model)
        if model == asked:
            return rules.apply(row.parameters, parameters)
        # They were checked for another provider's model, which may know more of them.
        unknown = set(self._extra(self.find(asked))).difference(self._extra(row))
        rules.check_knobs(name for name in parameters if name in unknown)
        known = {name: value for name, value in parameters.items() if name not in unknown}
        kept, dropped = rules.apply(row.parameters, known, lenient=True)
        # The limit was chosen for another model: this one gives what it can.
        for name in OUTPUT_LIMITS & kept.keys():
            if row.output is not None and isinstance(kept[name], int):
                kept[name] = min(kept[name], row.output)
        return kept, [*(name for name in parameters if name in unknown), *dropped]

    def listed(self) -> Iterator[ModelRow]:
        """The rows that name one model each, in the order of the files."""
        return (row for row in self._models.values() if not row.family)

    def configured(self) -> list[str]:
        """The names of the providers that an operator has set up (see ProviderRow.configured).

        A provider without models, such as `demo` while DEMO_MODELS is off, is left out.
        """
        served = {row.provider for row in self._models.values()}
        rows = (row for row in self.providers.values() if row.name in served)
        return [row.name for row in rows if row.configured(self._settings)]

    def available(self, row: ModelRow) -> bool:
        """Whether the provider of this model is configured."""
        return self.providers[row.provider].missing(self._settings) is None

    def _extra(self, row: ModelRow) -> tuple[str, ...]:
        return self.providers[row.provider].extra_parameters

    def _family_member(self, model: str) -> ModelRow | None:
        family, slash, rest = model.partition("/")
        row = self._models.get(f"{family}/*") if slash and rest else None
        return row and self._with_policy(row, model)

    def _with_policy(self, row: ModelRow, model: str) -> ModelRow:
        """The row with the rules of its provider, then of its families, then its own."""
        name = f"{row.provider}/{row.name_there(model)}"
        tables: list[Mapping[str, rules.Rule]] = [self.providers[row.provider].parameters]
        tables += (each.parameters for each in self._policies if _matches(each, name))
        return replace(row, parameters=rules.merge(*tables, row.parameters))


def _of_a_kind(one: ModelRow, other: ModelRow) -> bool:
    """Whether both may answer the same call; of a family's members the kind is not known."""
    return one.kind == other.kind or one.family or other.family


def _matches(row: PolicyRow, name: str) -> bool:
    return any(fnmatchcase(name, pattern) for pattern in row.models)
