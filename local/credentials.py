"""The secrets of a data folder, created on first use and then kept: pepper and keys."""

from __future__ import annotations

import os
import secrets
from pathlib import Path
from typing import Protocol

from gateway.errors import AuthenticationFailed


class Keys(Protocol):
    """The part of `gateway.account.api_keys.KeyStore` that is used here."""

    def create(self, name: str) -> str: ...

    def verify(self, key: str) -> object: ...


def pepper(folder: Path) -> str:
    """Return the folder's pepper."""
    return _secret(folder / "pepper")


def admin_key(folder: Path) -> str:
    """Return the folder's ADMIN_KEY, whom the console's link signs in."""
    return _secret(folder / "admin-key")


def development_key(folder: Path, keys: Keys) -> str:
    """Return a valid key: the folder's, or a new one if that is missing or no longer valid."""
    file = folder / "development-key"
    key = _read(file)
    if key:
        try:
            keys.verify(key)
        except AuthenticationFailed:
            pass  # another pepper, an emptied Redis, or revoked
        else:
            return key
    key = keys.create("development")
    _write(file, key)
    return key


def _secret(file: Path) -> str:
    secret = _read(file)
    if not secret:
        secret = secrets.token_urlsafe(48)
        _write(file, secret)
    return secret


def _read(file: Path) -> str:
    try:
        return file.read_text(encoding="ascii").strip()
    except FileNotFoundError:
        return ""


def _write(file: Path, secret: str) -> None:
    """Replace the file as a whole; only its owner can ever read it."""
    new = file.with_suffix(".new")
    new.unlink(missing_ok=True)
    descriptor = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "w", encoding="ascii") as output:
        output.write(secret + "\n")
    new.replace(file)
