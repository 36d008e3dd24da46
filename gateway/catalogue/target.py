"""A resolved model: what a name in a request stands for."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import Any

from gateway.catalogue import parameters as rules
from gateway.catalogue.file import ModelRow
from gateway.errors import InvalidRequest

# Kind of a model -> status and message of the error for calls of another kind. OpenAI's words.
WRONG_KIND = {
    "embeddings": (404, "This is not a chat model and thus not supported in this endpoint."),
    "chat": (400, "You are not allowed to generate embeddings from this model."),
}
# A list of tools, the choice among them, and what else means nothing without them.
ABOUT_TOOLS = (("tools", "tool_choice", "parallel_tool_calls"), ("functions", "function_call"))
OUTPUT_LIMITS = frozenset({"max_tokens", "max_completion_tokens"})
# Parameters with a number of tokens for thinking, and its field in them.
THINKING_BUDGETS = {"thinking": "budget_tokens", "reasoning": "max_tokens", "thinking_budget": ""}
THINKING_SHARE = 80  # percent of a capped output, at most: some of it must be left for the answer
LEAST_THINKING = 1024  # tokens: Anthropic refuses smaller budgets
UNKNOWN = ModelRow(id="", provider="")


@dataclass(frozen=True, slots=True)
class Target:
    """A model that may answer a call: its public id, its provider, its name there, and its row.

    A job carries everything but the row, which each process takes from its own catalogue. The row
    is UNKNOWN where it has not, or where the catalogue lacks the model.
    """

    model: str
    provider: str
    upstream_model: str
    only_if_gone: bool = False  # a successor: used only where the provider has the model no more
    row: ModelRow = field(default=UNKNOWN, compare=False, repr=False)

    @property
    def route(self) -> str:
        """`provider/upstream model`: what an outcome and a circuit breaker call this target."""
        return f"{self.provider}/{self.upstream_model}"

    def require(self, kind: str) -> None:
        """Raises InvalidRequest where the model is known to be of another kind."""
        if self.row.kind != kind and not self.row.family:
            status, message = WRONG_KIND[self.row.kind]
            raise InvalidRequest(message, param="model", status=status)

    def fit(
        self,
        params: Mapping[str, Any],
        first: Target,
        optional: Collection[str] = (),
        cap: int = 0,
    ) -> tuple[dict[str, Any], list[str]]:
        """The parameters as this model takes them, and the names of those that are left out.

        `first` is the target that the caller chose, and for which the parameters were checked.
        Where this model stands in for it, parameters that only tune a response are left out if
        they are refused, as are those in `optional` at any target. A limit on the output is
        lowered to the model's. With `cap`, the call gets no more than so many tokens of output,
        thinking included. Where the provider takes no `stream_options`, they are None.

        Raises InvalidRequest for any other parameter that this model refuses.
        """
        row = self.row
        table = row.parameters
        if self.model != first.model:
            foreign = set(first.row.extra_parameters).difference(row.extra_parameters)
            refused = dict.fromkeys(foreign, (rules.REFUSE,))
            table, optional = {**table, **refused}, rules.KNOBS.union(optional)
        params = _without_empty_tools(params)
        if cap:
            params = _capped(params, cap)
        kept, dropped = rules.apply(table, params, optional)
        for name in OUTPUT_LIMITS & kept.keys():
            if row.max_output_tokens is not None and isinstance(kept[name], int):
                kept[name] = min(kept[name], row.max_output_tokens)
        if table.get("stream_options") == (rules.DROP,):
            kept["stream_options"] = None
        return kept, dropped


def _capped(params: Mapping[str, Any], cap: int) -> dict[str, Any]:
    """The parameters with limits on the output that together allow no more than `cap` tokens."""
    each = max(cap // (params.get("n") or 1), 1)  # the limit holds for each choice
    limits = OUTPUT_LIMITS & params.keys() or {"max_tokens"}  # rules rename it where needed
    capped = {**params, **{name: min(params.get(name, each), each) for name in limits}}
    room = each * THINKING_SHARE // 100
    for name, inner in THINKING_BUDGETS.items():
        value = capped.get(name)
        fields = value if isinstance(value, Mapping) else {}
        budget = fields.get(inner) if inner else value
        if type(budget) is not int or budget <= room:
            continue
        if name == "thinking" and room < LEAST_THINKING:
            del capped[name]
        else:
            capped[name] = {**fields, inner: room} if inner else room
    return capped


def _without_empty_tools(params: Mapping[str, Any]) -> Mapping[str, Any]:
    """The parameters without an empty list of tools, and a choice among none.

    Many providers refuse them. A choice that forces a tool stays: the call cannot mean it.
    """
    for tools, choice, *others in ABOUT_TOOLS:
        if not params.get(tools) and params.get(choice, "auto") in ("auto", "none"):
            names = {tools, choice, *others}
            if not names.isdisjoint(params):
                params = {name: value for name, value in params.items() if name not in names}
    return params
