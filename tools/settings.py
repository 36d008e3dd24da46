"""Writes docs/settings.md from `gateway/settings.py` and the catalogue: run by `make settings`."""

from __future__ import annotations

import dataclasses
import sys
from collections.abc import Iterator
from pathlib import Path

from gateway.catalogue import file as catalogue_file
from gateway.settings import Settings

PAGE = Path(__file__).parents[1] / "docs" / "settings.md"

INTRODUCTION = """\
# Settings

The service reads environment variables. `make run` also reads them from a file `.env`; the
environment takes precedence over the file. `flask check-config` checks all settings.

Numbers of seconds may have fractions. Switches are `1` or `0`. An empty variable counts as unset.

<!-- `make settings` writes this page. Change the texts in gateway/settings.py. -->

## Variables of the service

| variable | default | meaning |
|---|---|---|
"""

PROVIDERS = """
## Variables of the providers

A provider is configured once its key is set. Without a key, calls for its models fail with 503
`provider_not_configured`. Providers without a key variable need no key. [Models](models.md)
describes how to add a provider.

| provider | key | base URL |
|---|---|---|
"""

OTHERS = """
## Other variables

| variable | read by | meaning |
|---|---|---|
| `PORT` | gunicorn, `make run` | Port to listen on. |
| `WEB_CONCURRENCY` | gunicorn | Number of web processes. |
| `REDIS_TLS_URL` | the service | Takes precedence over `REDIS_URL`; some Redis add-ons set it. |
| `LOCAL_MODEL` | `make run` | `off` starts no local model. |
"""


def page() -> str:
    """The text of docs/settings.md."""
    return INTRODUCTION + _table(_settings()) + PROVIDERS + _table(_providers()) + OTHERS


def _settings() -> Iterator[tuple[str, str, str]]:
    for field in dataclasses.fields(Settings):
        if field.metadata:
            default = _default(field.default)
            yield f"`{field.metadata['variable']}`", default, field.metadata["doc"]


def _providers() -> Iterator[tuple[str, str, str]]:
    for row in catalogue_file.read("").providers.values():
        if row.key_variable or row.base_url_variable:
            url = f"`{row.base_url}`" if row.base_url else ""
            variable = f"`{row.base_url_variable}`, default " if row.base_url_variable else ""
            key = f"`{row.key_variable}`" if row.key_variable else ""
            yield row.name, key, (variable + url).removesuffix(", default ")


def _default(value: object) -> str:
    """How an operator would write the default."""
    if isinstance(value, bool):
        return "`1`" if value else "`0`"
    if isinstance(value, float):
        return f"`{value:g}`"
    return f"`{value}`" if value not in ("", ()) else ""


def _table(rows: Iterator[tuple[str, str, str]]) -> str:
    return "".join(f"| {' | '.join(row)} |\n" for row in rows)


def main() -> int:
    PAGE.write_text(page())
    return 0


if __name__ == "__main__":
    sys.exit(main())
