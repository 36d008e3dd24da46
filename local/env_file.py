"""The `.env` file: settings of one machine that are not to be committed."""

from __future__ import annotations

import re
from pathlib import Path

LINE = re.compile(r"(?:export\s+)?([A-Za-z_][A-Za-z0-9_]*)\s*=\s*(.*)")


class EnvFileError(Exception):
    """Raised for a line that is no setting; the message names the line, never its value."""


def read_env(file: Path) -> dict[str, str]:
    """The settings in `file`; none where it does not exist. Raises EnvFileError."""
    try:
        return parse_env(file.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
    except EnvFileError as error:
        raise EnvFileError(f"{file}: {error}") from None


def parse_env(text: str) -> dict[str, str]:
    """The settings in lines of `KEY=VALUE`. Raises EnvFileError for any other line.

    Empty lines, comments and a leading `export` are allowed. A value in quotes is taken as it
    stands between them; one without ends before ` #`. Nothing is expanded.
    """
    settings = {}
    for number, line in enumerate(text.splitlines(), 1):
        line = line.strip()
        if not line or line.startswith("#"):
            continue
        match = LINE.fullmatch(line)
        if match is None:
            raise EnvFileError(f"line {number} is not KEY=VALUE")
        settings[match[1]] = _value(match[2], number)
    return settings


def _value(text: str, number: int) -> str:
    if text[:1] not in ("'", '"'):
        return re.split(r"(?:^|\s+)#", text, maxsplit=1)[0].strip()
    value, closing, rest = text[1:].partition(text[0])
    rest = rest.strip()
    if not closing or (rest and not rest.startswith("#")):
        raise EnvFileError(f"line {number} has a quote that is not closed")
    return value
