"""What callers learn about models that their providers shut down.

A date leads to a warning only: whether a model is gone is known from its provider's response.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from datetime import UTC, date, datetime, time, timedelta
from email.utils import format_datetime
from functools import cache, lru_cache

from gateway.catalogue.file import ModelRow
from gateway.errors import ModelNotFound

NOTICE = timedelta(days=60)  # before a shutdown

_NOT_QUOTABLE = re.compile(r"[^ !#-\[\]-~]")

Today = Callable[[], date]


def today() -> date:
    """The date, in UTC."""
    return datetime.now(UTC).date()


def notice(name: str, row: ModelRow, now: date) -> str | None:
    """The warning for a model that is shut down within 60 days or has been; else None."""
    if row.shutdown_date is None or row.shutdown_date - now > NOTICE:
        return None
    return _notice(name, row.shutdown_date, row.successor, row.shutdown_date <= now)


@lru_cache(maxsize=256)  # callers may make up dated names of a model
def _notice(name: str, shutdown: date, successor: str | None, past: bool) -> str:
    verb = "was to be" if past else "will be"
    use = f" Use {successor} instead." if successor else ""
    return f"{name} {verb} shut down by its provider on {shutdown.isoformat()}.{use}"


def substitution(model: str, substitute: str, gone: bool = True) -> str:
    """The warning for a response by another model: a successor (`gone`), or a fallback."""
    if not gone:
        return f"{model} could not answer: {substitute} answered in its place."
    return f"{model} has been shut down by its provider: {substitute} answered in its place."


def warning(text: str) -> str:
    """The value of a `Warning` header (RFC 7234, section 5.5; 299: to be shown to a user)."""
    return f'299 - "{_NOT_QUOTABLE.sub("?", text)}"'


@cache
def headers(shutdown: date) -> Mapping[str, str]:
    """The headers of answers for a model that ends on this day, at 0:00 UTC at the earliest.

    `Deprecation` (RFC 9745) is when its warnings began, `Sunset` (RFC 8594) when it ends.
    """
    end = datetime.combine(shutdown, time.min, UTC)
    began = int(end.timestamp() - NOTICE.total_seconds())
    return {"Deprecation": f"@{began}", "Sunset": format_datetime(end, usegmt=True)}


def gone(error: ModelNotFound, row: ModelRow) -> ModelNotFound:
    """The provider's 404 for a model, which names the model's successor if there is one."""
    if not row.successor:
        return error
    when = f" (shut down on {row.shutdown_date.isoformat()})" if row.shutdown_date else ""
    return ModelNotFound(
        f"{error.message} Use the model '{row.successor}' instead{when}.",
        param=error.param,
        code=error.code,
        status=error.status,
    )
