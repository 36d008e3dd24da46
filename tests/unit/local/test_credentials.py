"""local/credentials.py: secrets are made once, kept privately, and replaced when of no use."""

from __future__ import annotations

from pathlib import Path

import pytest

from gateway.errors import AuthenticationFailed
from gateway.settings import PEPPER_LENGTH
from local.credentials import development_key, pepper


class FakeKeys:
    def __init__(self) -> None:
        self.valid: list[str] = []
        self.made = 0

    def create(self, name: str) -> str:
        self.made += 1
        self.valid.append(f"{name}-{self.made}")
        return self.valid[-1]

    def verify(self, key: str) -> object:
        if key not in self.valid:
            raise AuthenticationFailed("unknown")
        return key


def test_the_pepper_is_long_enough_and_the_same_every_time(tmp_path: Path) -> None:
    made = pepper(tmp_path)

    assert len(made) >= PEPPER_LENGTH
    assert pepper(tmp_path) == made


def test_two_folders_have_two_peppers(tmp_path: Path) -> None:
    (tmp_path / "other").mkdir()

    assert pepper(tmp_path) != pepper(tmp_path / "other")


def test_the_key_is_created_once_and_kept(tmp_path: Path) -> None:
    keys = FakeKeys()

    assert development_key(tmp_path, keys) == "development-1"
    assert development_key(tmp_path, keys) == "development-1"
    assert keys.made == 1


def test_a_key_that_is_no_longer_valid_is_replaced(tmp_path: Path) -> None:
    keys = FakeKeys()
    development_key(tmp_path, keys)
    keys.valid.clear()

    assert development_key(tmp_path, keys) == "development-2"
    assert development_key(tmp_path, keys) == "development-2"


@pytest.mark.parametrize("name", ["pepper", "development-key"])
def test_files_can_be_read_by_their_owner_only(tmp_path: Path, name: str) -> None:
    pepper(tmp_path)
    development_key(tmp_path, FakeKeys())

    assert (tmp_path / name).stat().st_mode & 0o777 == 0o600
    assert sorted(file.name for file in tmp_path.iterdir()) == ["development-key", "pepper"]
