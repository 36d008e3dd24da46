"""Checks the input of a batch before the first of its lines runs, as OpenAI does."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from gateway import strict_json
from gateway.errors import GatewayError, InvalidRequest
from gateway.stalls import give_turn
from gateway.tokens import CHARACTERS_PER_TOKEN

MAX_LINES = 50_000
MAX_ERRORS = 50  # that a batch lists
ENVELOPE_BYTES = 65_536  # of a line besides its body
LONGEST_ID = 512  # characters
TURN_LINES = 50  # after which others have their turn

PREFIXES = ("/v1", "/inference/v1", "")
ENDPOINTS = ("/chat/completions", "/responses", "/embeddings")
# What a caller may name -> the address below our prefix.
PATHS = {prefix + endpoint: endpoint for prefix in PREFIXES for endpoint in ENDPOINTS}
# Fields that need a connection, or an answer that comes later.
REFUSED = ("stream", "background")
TOKEN_LIMIT = (
    "Enqueued token limit reached for this API key. Limit: {} enqueued tokens. Please try again "
    "once some in_progress batches have been completed."
)


@dataclass(slots=True)
class Checked:
    """What the lines of a batch are; it cannot run if there are `errors`.

    `model` is the one that all lines name, "" if they name several. `tokens` is an estimate.
    """

    lines: int = 0
    tokens: int = 0
    model: str = ""
    errors: list[dict[str, Any]] = field(default_factory=list)

    def refuse(
        self, code: str, message: str, line: int | None = None, param: str | None = None
    ) -> None:
        """Note a reason why the batch cannot run."""
        if len(self.errors) < MAX_ERRORS:
            self.errors.append({"code": code, "line": line, "message": message, "param": param})


def check_lines(
    lines: Iterable[tuple[int, bytes | None]],
    endpoint: str,
    resolve: Callable[[str], object],
) -> Checked:
    """Check all lines. `resolve(model)` raises a GatewayError for a model that does not exist."""
    checked = Checked()
    ids: set[str] = set()
    models: dict[str, GatewayError | None] = {}
    for number, line in lines:
        checked.lines += 1
        if checked.lines > MAX_LINES:
            checked.refuse("too_many_tasks", f"A batch has at most {MAX_LINES} requests.", number)
            break
        if checked.lines % TURN_LINES == 0:
            give_turn()
        if line is None:
            checked.refuse("request_too_large", "This line is too long.", number)
            continue
        checked.tokens += len(line) // CHARACTERS_PER_TOKEN
        _check_line(checked, number, line, endpoint, ids, models, resolve)
    if not checked.lines:
        checked.refuse("empty_file", "The input file is empty: it has no requests.")
    if len(models) == 1:
        checked.model = next(iter(models))
    return checked


def _check_line(
    checked: Checked,
    number: int,
    line: bytes,
    endpoint: str,
    ids: set[str],
    models: dict[str, GatewayError | None],
    resolve: Callable[[str], object],
) -> None:
    def refuse(code: str, message: str, param: str | None = None) -> None:
        checked.refuse(code, message, number, param)

    try:
        request = strict_json.loads(line, len(line))
    except InvalidRequest as error:
        deep = error.code == "json_too_deep"  # it could not be written again
        reason = "nested too deeply" if deep else "not parseable as valid JSON"
        refuse("invalid_json_line", f"This line is {reason}.")
        return
    if not isinstance(request, Mapping):
        refuse("invalid_json_line", "This line is not a JSON object.")
        return
    for name, kind, description in (
        ("custom_id", str, "a string"),
        ("method", str, "a string"),
        ("url", str, "a string"),
        ("body", Mapping, "an object"),
    ):
        if name not in request:
            refuse("missing_required_parameter", f"Missing required parameter: '{name}'.", name)
            return
        if not isinstance(request[name], kind):
            refuse("invalid_type", f"Invalid type for '{name}': expected {description}.", name)
            return
    custom_id, url, body = request["custom_id"], request["url"], request["body"]
    if not 0 < len(custom_id) <= LONGEST_ID:
        message = f"Invalid 'custom_id': expected 1 to {LONGEST_ID} characters."
        refuse("invalid_value", message, "custom_id")
    elif custom_id in ids:
        message = "The custom_id of this request is that of an earlier line."
        refuse("duplicate_custom_id", message, "custom_id")
    ids.add(custom_id)
    if request["method"] != "POST":
        refuse("invalid_method", "Invalid 'method': expected 'POST'.", "method")
    if url not in PATHS:
        refuse("invalid_url", "This URL is not one that a batch can call.", "url")
    elif PATHS[url] != PATHS[endpoint]:
        message = "The URL of this request is not the endpoint of the batch."
        refuse("url_mismatch", message, "url")
    for name in REFUSED:
        if body.get(name):
            refuse("invalid_value", f"'{name}' is not supported in a batch.", f"body.{name}")
    _check_model(body.get("model"), models, resolve, refuse)


def _check_model(
    model: Any,
    models: dict[str, GatewayError | None],
    resolve: Callable[[str], object],
    refuse: Callable[..., None],
) -> None:
    if not isinstance(model, str):
        refuse("missing_required_parameter", "Missing required parameter: 'model'.", "body.model")
        return
    if model not in models:
        try:
            resolve(model)
            models[model] = None
        except GatewayError as error:
            models[model] = error
    problem = models[model]
    if problem is not None:
        refuse(problem.code or "invalid_value", problem.message, "body.model")
