"""How the console writes money, counts, durations and times."""

from __future__ import annotations

import time
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

from gateway.account.key_fields import NANO

UNITS = (("B", 1e9), ("M", 1e6), ("k", 1e4))
NONE = "–"


def money(usd: float | None) -> str:
    """USD with cents, or with the first digits of a smaller amount."""
    if usd is None:
        return NONE
    if usd < 0:
        return f"-{money(-usd)}"
    if 0 < usd < 0.01:
        text = f"{Decimal(str(round(usd, 9))):.2g}"
        return f"${Decimal(text):f}"
    if 0 < usd < 1:
        text = f"{usd:.3f}"
        return f"${text.removesuffix('0')}"
    return f"${usd:,.2f}"


def nano(amount: int | None) -> str:
    """Money in 1e-9 USD as USD."""
    return money(None if amount is None else amount / NANO)


def count(number: float | None) -> str:
    """A whole number with separators of thousands."""
    return NONE if number is None else f"{number:,.0f}"


def short(number: float | None) -> str:
    """A number of at most four digits with its unit, such as 12.3k."""
    if number is None:
        return NONE
    for unit, least in UNITS:
        if abs(number) >= least:
            value = number / (1e3 if unit == "k" else least)
            text = f"{value:.1f}".removesuffix(".0") if value < 100 else f"{value:.0f}"
            return text + unit
    if number != round(number) and abs(number) < 100:
        return f"{number:.3g}"
    return count(number)


def duration(milliseconds: float | None) -> str:
    """A duration in the unit that fits it."""
    if milliseconds is None:
        return NONE
    if milliseconds < 1_000:
        return f"{milliseconds:.0f} ms"
    seconds = milliseconds / 1_000
    if seconds < 60:
        return f"{seconds:.2f} s" if seconds < 10 else f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes} min {rest} s"
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min" if hours < 48 else f"{hours // 24} days"


def ago(seconds: float | None) -> str:
    """How long a time in seconds since 1970 is past."""
    if not seconds:
        return "never"
    passed = max(0, time.time() - seconds)
    return "just now" if passed < 10 else f"{duration(passed // 1 * 1_000).split('.')[0]} ago"


def moment(milliseconds: float | None) -> str:
    """A time in milliseconds since 1970, in UTC to the second."""
    return f"{_utc(milliseconds):%Y-%m-%d %H:%M:%S}" if milliseconds else NONE


def clock(milliseconds: float | None) -> str:
    """A time of today as such, another with its date."""
    if not milliseconds:
        return NONE
    time_then = _utc(milliseconds)
    today = time_then.date() == datetime.now(UTC).date()
    return f"{time_then:%H:%M:%S}" if today else f"{time_then:%d %b %H:%M}"


def iso(milliseconds: float) -> str:
    """A time for the `datetime` of an element."""
    return _utc(milliseconds).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def date(text: str | None) -> str:
    """The date and minute of a time in ISO 8601 in UTC."""
    return text[:16].replace("T", " ") if text else NONE


def _utc(milliseconds: float) -> datetime:
    return datetime.fromtimestamp(milliseconds / 1000, UTC)


FUNCTIONS: dict[str, Any] = {
    each.__name__: each
    for each in (money, nano, count, short, duration, ago, moment, clock, iso, date)
}
