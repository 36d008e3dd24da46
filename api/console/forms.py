"""The forms of keys and owners: each field sets one field of the schema of the HTTP API."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import click
from flask import request

from api.keys import options
from api.keys.options import Option
from gateway.account.key_fields import PRIORITIES, RESETS, UNITS, Limits
from gateway.errors import GatewayError, InvalidRequest

Choices = tuple[tuple[str, str], ...]
AMOUNT = frozenset({"limit", "limit_unit"})
SHOWN = "shown_"  # begins the name of the hidden field with what a field showed


@dataclass(frozen=True, slots=True)
class Field:
    """One field: its name in JSON, its label, and what a person may enter.

    `text` writes a value of JSON as the form shows it, and `parse` reads that again.
    """

    name: str
    label: str
    parse: Callable[[Any], Any]
    many: bool = False
    hint: str = ""
    placeholder: str = ""
    choices: Choices = ()
    required: bool = False

    def text(self, value: Any) -> str:
        """A value of JSON as the form shows it."""
        if value is None or value == "":
            return ""
        if isinstance(value, Mapping):
            return ", ".join(f"{name}={each}" for name, each in value.items())
        if isinstance(value, list):
            return ", ".join(map(str, value))
        if isinstance(value, bool):
            return options.YES if value else ""
        if self.name == "cache_seconds":
            return f"{value}s"
        return f"{value:.9f}".rstrip("0").rstrip(".") if isinstance(value, float) else str(value)

    def value(self, text: str) -> Any:
        """The value of JSON that somebody entered; None for nothing. Raises InvalidRequest."""
        if not text:
            return None
        try:
            if self.many:
                return self.parse(tuple(each for each in re.split(r"[,\s]+", text) if each))
            return self.parse(text)
        except click.BadParameter as error:
            raise InvalidRequest(f"{error.message}.", param=self.name) from None


@dataclass(frozen=True, slots=True)
class Section:
    """Fields with a common legend."""

    legend: str
    fields: tuple[Field, ...]


class Form:
    """A form that makes or changes a key or an owner."""

    def __init__(self, *sections: Section) -> None:
        self.sections = sections
        self.fields = [each for section in sections for each in section.fields]

    def texts(self, shown: Mapping[str, Any]) -> dict[str, str]:
        """What the form shows for values as JSON shows them."""
        return {each.name: each.text(shown.get(each.name)) for each in self.fields}

    def entered(self) -> dict[str, str]:
        """What somebody entered."""
        return {each.name: request.form.get(each.name, "").strip() for each in self.fields}

    def shown(self) -> dict[str, str]:
        """What the form showed to whoever entered something, as far as the request says that.

        Fields that stayed as they were are not set: somebody else may have changed them meanwhile.
        """
        names = (each.name for each in self.fields)
        return {name: request.form[SHOWN + name] for name in names if SHOWN + name in request.form}

    def changes(self, values: Mapping[str, Any]) -> dict[str, Any]:
        """The JSON of what was changed of what the form showed.

        Where the request does not say what that was, it was `values`, as JSON shows them. Raises
        InvalidRequest, which names the field.
        """
        return self.data(self.entered(), {**self.texts(values), **self.shown()})

    def data(self, texts: Mapping[str, str], before: Mapping[str, str]) -> dict[str, Any]:
        """The JSON of what differs from the texts before; null takes a value away.

        Raises InvalidRequest, which names the field.
        """
        changed = {name for name, text in texts.items() if text != before.get(name, "")}
        if changed & AMOUNT and texts.get("limit"):
            changed |= AMOUNT  # a number in another unit would be another budget
        return {
            each.name: each.value(texts[each.name]) for each in self.fields if each.name in changed
        }

    def values(
        self,
        texts: Mapping[str, str],
        error: GatewayError | None,
        shown: Mapping[str, str] | None = None,
    ) -> dict[str, Any]:
        """What a template needs to show the form, with the error at the field that it is about.

        `shown` is what the form showed first, by default the texts.
        """
        name = (error.param or "").partition(".")[0].partition("[")[0] if error else ""
        return {
            "sections": self.sections,
            "texts": texts,
            "before": {SHOWN + name: text for name, text in (shown or texts).items()},
            "wrong": name if any(each.name == name for each in self.fields) else "",
            "message": error.message if error else "",
        }


OPTIONS: Mapping[str, Option] = {each.field: each for each in (*options.KEY, *options.OWNER)}


def _field(name: str, label: str, **more: Any) -> Field:
    option = OPTIONS[name]
    return Field(name, label, option.parse, option.many, **more)


def _choices(names: Sequence[str], **labels: str) -> Choices:
    return tuple((name, labels.get(name, name.capitalize())) for name in names)


NAME = Field("name", "Name", str, placeholder="search: nightly report", required=True)
MOMENT = "A time such as 30d, or 2027-01-31T23:59:59Z."
EXTRA_FIELDS = (
    _field("limit_extra", "Extra budget", placeholder="10"),
    _field("limit_extra_until", "Until", placeholder="window ends", hint=MOMENT),
)
EXTRA = Form(Section("", EXTRA_FIELDS))
BUDGET = Section(
    "Budget",
    (
        _field("limit", "Amount", placeholder="no limit"),
        _field("limit_unit", "Unit", choices=_choices(UNITS, usd="USD")),
        _field("limit_reset", "Starts again", choices=(("", "Never"), *_choices(RESETS))),
        _field("alerts", "Alerts", placeholder="0.8, 0.95", hint="Shares of the budget."),
    ),
)
RATES = Section(
    "Rates",
    (
        _field("requests_per_minute", "Requests per minute", placeholder="no limit"),
        _field("tokens_per_minute", "Tokens per minute", placeholder="no limit"),
        _field("max_in_flight", "Calls in flight", placeholder="no limit"),
        _field("max_waiting", "Calls waiting above that", placeholder="no limit"),
    ),
)
KEY = Form(
    Section(
        "Key",
        (
            NAME,
            _field("owner", "Owner", placeholder="none"),
            _field("expires_at", "Expires", placeholder="never", hint=MOMENT),
            _field(
                "allowed_models", "Models", placeholder="all", hint="Names; * at the end of one."
            ),
        ),
    ),
    BUDGET,
    RATES,
    Section(
        "Queue, cache and batches",
        (
            _field("priority", "Priority", choices=_choices(PRIORITIES)),
            _field("weight", "Weight", placeholder="1", hint="Share of the queue among keys."),
            _field("cache_seconds", "Keep responses", placeholder="not at all", hint="Such as 1h."),
            _field("batch_tokens_queued", "Tokens of batches", placeholder="no limit"),
            _field(
                "retry_on_worker_loss",
                "If a worker is lost",
                choices=(("", "Its calls fail"), (options.YES, "They run again")),
                hint="A provider may charge for both runs.",
            ),
        ),
    ),
    Section(
        "Events",
        (
            _field("webhook_url", "Webhook", placeholder="https://example.com/hooks"),
            _field("metadata", "Metadata", placeholder="team=search"),
        ),
    ),
)
OWNER_ID = Field("id", "Id", str, placeholder="search", required=True)
OWNER_NAME = Field("name", "Name", str, placeholder="Search team")
ABOUT_OWNER = (OWNER_NAME, _field("metadata", "Metadata", placeholder="cost-center=42"))
OWNER = Form(Section("Owner", ABOUT_OWNER), BUDGET, RATES)
NEW_OWNER = Form(Section("Owner", (OWNER_ID, *ABOUT_OWNER)), BUDGET, RATES)


def extra(_: Limits) -> dict[str, Any]:
    """The JSON of the form that adds to the budget of the current window."""
    return {"limit_extra": None, **EXTRA.data(EXTRA.entered(), {})}


def switch() -> tuple[dict[str, Any], str]:
    """The JSON of the form that disables or enables, and `disabled` or `enabled`."""
    disabled = request.form.get("disabled") == "1"
    return {"disabled": disabled}, "disabled" if disabled else "enabled"
