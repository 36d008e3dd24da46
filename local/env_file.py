"""The `.env` file: settings of one machine that are not to be committed."""

from __future__ import annotations

from pathlib import Path

from dotenv.parser import Binding, parse_stream


class EnvFileError(Exception):
    """Raised for a line that is not a setting; the message names the line, never its value."""


def read_env(file: Path) -> dict[str, str]:
    """Return the settings in `file`, {} if there is no such file.

    python-dotenv reads it: lines of `KEY=VALUE`, comments, a leading `export`, quoted values that
    may span lines. Nothing is expanded. Raises EnvFileError, where dotenv itself would only warn.
    """
    try:
        with file.open(encoding="utf-8") as stream:
            bindings = list(parse_stream(stream))
    except FileNotFoundError:
        return {}
    settings = {}
    for binding in bindings:
        if binding.error or (binding.key is not None and binding.value is None):
            raise EnvFileError(f"{file}: line {_line(binding)} is not KEY=VALUE")
        if binding.key is not None:
            settings[binding.key] = binding.value or ""
    return settings


def _line(binding: Binding) -> int:
    """The line of the binding itself; dotenv counts from the empty lines before it."""
    text = binding.original.string
    before = text[: len(text) - len(text.lstrip())]
    return binding.original.line + before.count("\n")
