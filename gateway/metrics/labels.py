"""The values of labels: closed sets, because what callers make up would never leave the memory of
whoever scrapes."""

from __future__ import annotations

from functools import lru_cache

from gateway.catalogue.catalogue import Catalogue
from gateway.errors import ModelNotFound, kind_code, kinds

OTHER, NONE = "other", "none"
OPERATIONS = frozenset({"chat", "embeddings", "count_tokens"})
PRIORITIES = frozenset({"interactive", "standard", "batch"})
STATUSES = frozenset({"completed", "failed", "cancelled", "lost"})
METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})
CIRCUIT_OPEN = "circuit_open"  # the code of an attempt that was not made, because of its breaker
# Codes of providers that are told apart, besides the codes of our own errors.
PROVIDER_CODES = ("context_length_exceeded", "content_policy_violation", "content_filter")
ERROR_TYPES = frozenset({kind_code(kind) for kind in kinds()}) | {
    *PROVIDER_CODES,
    CIRCUIT_OPEN,
}
NAMES = 4096  # of models, of which the labels are kept

Model = tuple[str, str]  # the labels provider and model


def one_of(values: frozenset[str], value: str) -> str:
    """Return a value of a closed set, or OTHER."""
    return value if value in values else OTHER


def error_type(code: str) -> str:
    """Return the label for the code of an error; "" for no error."""
    return one_of(ERROR_TYPES, code) if code else ""


class ModelLabels:
    """Labels for models, from a catalogue.

    A model that callers name, because its provider has many, has the label of its row: "openai/*".
    """

    def __init__(self, catalogue: Catalogue) -> None:
        self._catalogue = catalogue
        # Named by the provider and its own name for the model.
        self._routes = {
            f"{row.provider}/{row.upstream_name(row.id)}": row.id for row in catalogue.listed()
        }
        self.of = lru_cache(NAMES)(self._of)
        self.of_route = lru_cache(NAMES)(self._of_route)

    def _of(self, model: str, provider: str = "") -> Model:
        """Return the labels of a model's id, and of the provider that it was called at, if any."""
        try:
            row = self._catalogue.find(model)
        except ModelNotFound:
            return self._provider(provider), OTHER
        return self._provider(provider or row.provider), row.id

    def _of_route(self, provider: str, upstream: str) -> Model:
        """Return the labels of a provider and its own name for a model."""
        route = f"{provider}/{upstream}"
        return self.of(self._routes.get(route, route), provider)

    def _provider(self, name: str) -> str:
        if not name:
            return NONE
        return name if name in self._catalogue.providers else OTHER
