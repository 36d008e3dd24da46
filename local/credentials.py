"""The pepper and the development key of one data folder, made on first use and then kept."""

from __future__ import annotations

import os
import secrets
from pathlib import Path
from typing import Protocol

from gateway.errors import AuthenticationFailed


class Keys(Protocol):
    """What is needed of `gateway.keys.KeyStore`."""

    def create(self, name: str) -> str: ...

    def verify(self, key: str) -> object: ...


def pepper(folder: Path) -> str:
    """The folder's pepper."""
    file = folder / "pepper"
    kept = _read(file)
    if kept:
        return kept
    made = secrets.token_urlsafe(48)
    _write(file, made)
    return made


def development_key(folder: Path, keys: Keys) -> str:
    """A key that works: the folder's, or a new one where that is missing or no longer valid."""
    file = folder / "development-key"
    kept = _read(file)
    if kept:
        try:
            keys.verify(kept)
        except AuthenticationFailed:
            pass  # another pepper, an emptied Redis, or revoked
        else:
            return kept
    made = keys.create("development")
    _write(file, made)
    return made


def _read(file: Path) -> str:
    try:
        return file.read_text(encoding="ascii").strip()
    except FileNotFoundError:
        return ""


def _write(file: Path, secret: str) -> None:
    """Replace the file whole, readable by its owner only from the start."""
    new = file.with_suffix(".new")
    new.unlink(missing_ok=True)
    descriptor = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "w", encoding="ascii") as output:
        output.write(secret + "\n")
    new.replace(file)
