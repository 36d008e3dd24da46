"""The options of `flask keys` and `flask owners`: each sets one field of the schema of HTTP."""

from __future__ import annotations

import functools
import re
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import click

from api.keys.schema import timestamp
from gateway.account.key_fields import PRIORITIES, RESETS, UNITS, iso_time

NONE = "none"  # takes a value away
FLAG = YES, NO = "on", "off"
SECONDS = {"s": 1, "m": 60, "h": 3_600, "d": 86_400, "w": 7 * 86_400}
FACTORS = {"": 1, "k": 1_000, "m": 1_000_000}
DURATION = re.compile(r"(\d{1,9})([smhdw])", re.ASCII)
AMOUNT = re.compile(r"\$?(\d{1,15}(?:\.\d{1,9})?)([km]?)", re.ASCII | re.IGNORECASE)


def duration(text: str) -> int:
    """Seconds, of a number with its unit such as 90s, 15m, 12h, 30d or 8w."""
    match = DURATION.fullmatch(text)
    if match is None:
        raise click.BadParameter(f"{text!r} is no time such as 15m, 12h or 30d")
    return int(match[1]) * SECONDS[match[2]]


def moment(text: str) -> str:
    """A time in ISO 8601: as it is, or so long after now."""
    try:
        if DURATION.fullmatch(text):
            text = iso_time(int(time.time()) + duration(text)) or ""
    except (ValueError, OverflowError):
        pass  # later than any date
    if timestamp(text) is None:
        raise click.BadParameter(f"{text!r} is neither a time such as 30d nor 2027-01-31T23:59:59Z")
    return text


def amount(text: str) -> float | int:
    """A number, maybe with a $ before it, or with k or m behind it for a thousand or a million."""
    match = AMOUNT.fullmatch(text)
    if match is None:
        raise click.BadParameter(f"{text!r} is no number such as 25, 0.5 or 10m")
    value = float(match[1]) * FACTORS[match[2].lower()]
    return int(value) if value.is_integer() else value


def pairs(texts: tuple[str, ...]) -> dict[str, str]:
    """An object, of words such as team=search."""
    for text in texts:
        if "=" not in text:
            raise click.BadParameter(f"{text!r} is no pair such as team=search")
    return dict(text.split("=", 1) for text in texts)


def models(texts: tuple[str, ...]) -> list[str] | None:
    """A list of models; None for `all`."""
    return None if texts == ("all",) else list(texts)


def numbers(texts: tuple[str, ...]) -> list[float]:
    """A list of numbers."""
    return [float(amount(text)) for text in texts]


@dataclass(frozen=True, slots=True)
class Option:
    """An option, the field that it sets, and how its text becomes the field's value.

    `many` options may be repeated, and are parsed together. NONE alone takes the value away;
    `empty` is what it stands for.
    """

    flag: str
    field: str
    parse: Callable[[Any], Any]
    help: str
    choices: tuple[str, ...] = ()
    many: bool = False
    empty: Any = None

    def value(self, option_value: Any) -> Any:
        """The value of the field; raises BadParameter."""
        if option_value in (NONE, (NONE,)):
            return self.empty
        return self.parse(option_value)


LIMITS = (
    Option("--limit", "limit", amount, "Budget in USD or tokens, such as 25, 0.5 or 10m."),
    Option("--limit-unit", "limit_unit", str, "Unit of the budget.", UNITS),
    Option("--limit-reset", "limit_reset", str, "When it starts again (UTC).", (*RESETS, NONE)),
    Option("--limit-extra", "limit_extra", amount, "Addition to the budget of this window."),
    Option("--limit-extra-until", "limit_extra_until", moment, "30d, or an ISO 8601 time."),
    Option("--rpm", "requests_per_minute", amount, "Requests in a minute."),
    Option("--tpm", "tokens_per_minute", amount, "Tokens in a minute."),
    Option("--max-in-flight", "max_in_flight", amount, "Calls queued or running at once."),
    Option("--max-waiting", "max_waiting", amount, "Calls that wait above that."),
    Option("--alert", "alerts", numbers, "Share of the budget, such as 0.8.", many=True),
    Option("--metadata", "metadata", pairs, "Pair such as team=search.", many=True),
)
KEY = (
    Option("--owner", "owner", str, "Owner, whose limits hold too."),
    Option("--model", "allowed_models", models, "Model; * at its end; or all.", (), True, []),
    Option("--priority", "priority", str, "Priority in the queue.", PRIORITIES),
    Option("--weight", "weight", amount, "Share of the queue among keys."),
    Option("--cache", "cache_seconds", duration, "How long responses are kept, such as 1h."),
    Option("--batch-tokens", "batch_tokens_queued", amount, "Tokens of batches that wait."),
    Option("--retry", "retry_on_worker_loss", YES.__eq__, "Run a lost worker's calls again.", FLAG),
    Option("--webhook", "webhook_url", str, "URL to which the key's events are sent."),
    Option("--expires", "expires_at", moment, "30d, or an ISO 8601 time."),
    *LIMITS,
)
OWNER = (Option("--name", "name", str, "What to call it."), *LIMITS)


def options(*table: Option) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Add these options to a command, which gets the fields that they set as `fields`."""

    def decorate(command: Callable[..., None]) -> Callable[..., None]:
        @functools.wraps(command)
        def run(**values: Any) -> None:
            fields = {}
            for option in table:
                value = values.pop(f"field_{option.field}")
                if value not in (None, ()):
                    fields[option.field] = option.value(value)
            command(fields=fields, **values)

        decorated: Callable[..., None] = run
        for option in reversed(table):
            decorated = click.option(
                option.flag,
                f"field_{option.field}",
                help=option.help,
                multiple=option.many,
                type=click.Choice(option.choices) if option.choices else None,
            )(decorated)
        return decorated

    return decorate


def switch(flag: str, field: str) -> Callable[[Any], Any]:
    """Add an option such as --disable/--enable, which sets this field to true or false."""
    return click.option(flag, field, default=None)
