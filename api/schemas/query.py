"""Reads queries: lists, numbers and times. The first wrong parameter is named in the error.

A list is repeated, with or without brackets: `models=a&models=b` or, as OpenAI's clients send it,
`models[]=a&models[]=b`.
"""

from __future__ import annotations

import re
from collections.abc import Collection
from datetime import UTC, datetime

from werkzeug.datastructures import MultiDict

from api.schemas.errors import invalid
from gateway.errors import InvalidRequest

MAX_ITEMS = 20  # of one list: with longer ones, the request line could be too long
MODEL = re.compile(r"[!-~]{1,256}")
ID = re.compile(r"[\w.:-]{1,64}", re.ASCII)
LAST_SECOND = 10**10  # in the year 2286: no time is later
WHOLE = re.compile(r"[0-9]{1,10}", re.ASCII)

Args = MultiDict[str, str]


def refuse_unknown(args: Args, names: Collection[str]) -> None:
    """Raise InvalidRequest for the first parameter that is not known.

    A mistyped filter that is ignored would count what it should leave out.
    """
    for name in args:
        if name.removesuffix("[]") not in names:
            raise InvalidRequest(
                f"Unknown parameter: '{name[:64]}'.", param=name[:64], code="unknown_parameter"
            )


def items(args: Args, name: str, form: re.Pattern[str]) -> tuple[str, ...]:
    """The values of a list, which have this form, without duplicates; empty if it is not there."""
    values = (*args.getlist(name), *args.getlist(f"{name}[]"))
    if len(values) > MAX_ITEMS:
        raise invalid("too_long", name, list(values), max_length=MAX_ITEMS)
    for value in values:
        _check(name, value, form)
    return tuple(dict.fromkeys(values))


def text(args: Args, name: str, form: re.Pattern[str]) -> str | None:
    """A value, which has this form; None if it is not there."""
    values = args.getlist(name)
    if len(values) > 1:
        raise invalid("wrong.value", name, reason="it must not be repeated")
    if values:
        _check(name, values[0], form)
    return values[0] if values else None


def choice(args: Args, name: str, supported: Collection[str]) -> str | None:
    """One of the supported values; None if it is not there."""
    value = text(args, name, MODEL)
    if value is not None and value not in supported:
        raise _wrong_choice(value, name, supported)
    return value


def choices(args: Args, name: str, supported: Collection[str]) -> tuple[str, ...]:
    """A list of some of the supported values."""
    values = items(args, name, ID)
    for value in values:
        if value not in supported:
            raise _wrong_choice(value, name, supported)
    return values


def number(args: Args, name: str, default: int, most: int, least: int = 1) -> int:
    """An integer from `least` to `most`."""
    value = text(args, name, MODEL)
    if value is None:
        return default
    if not WHOLE.fullmatch(value):
        raise invalid("wrong.type", name, value, expected="an integer")
    if int(value) > most:
        raise invalid("less_than_equal", name, int(value), le=most)
    if int(value) < least:
        raise invalid("greater_than_equal", name, int(value), ge=least)
    return int(value)


def time(args: Args, name: str) -> int | None:
    """A time in Unix seconds, sent as such or as an ISO 8601 date or time (UTC by default)."""
    value = text(args, name, MODEL)
    if value is None:
        return None
    seconds = int(value) if WHOLE.fullmatch(value) else _iso_seconds(value)
    if seconds is None or not 0 <= seconds < LAST_SECOND:
        reason = "expected Unix seconds, or a date such as 2026-11-01"
        raise invalid("wrong.value", name, value, reason=reason)
    return seconds


def _iso_seconds(value: str) -> int | None:
    try:
        moment = datetime.fromisoformat(value)
    except ValueError:
        return None
    zoned = moment if moment.tzinfo else moment.replace(tzinfo=UTC)
    try:
        return int(zoned.timestamp())
    except OverflowError:
        return None


def _check(name: str, value: str, form: re.Pattern[str]) -> None:
    if not form.fullmatch(value):
        raise invalid("string_pattern_mismatch", name, value, pattern=form.pattern)


def _wrong_choice(value: str, name: str, supported: Collection[str]) -> InvalidRequest:
    choices = ", ".join(f"'{each}'" for each in supported)
    return invalid("wrong.choice", name, value, choices=choices)
