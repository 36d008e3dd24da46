"""Programs that tests need, and that pip does not install."""

from __future__ import annotations

import os
import shutil

import pytest


def program(*names: str) -> str:
    """The path of the first of these programs that is installed.

    Without one the test is skipped; in CI, where `.ci/run` installs them, it fails.
    """
    for path in filter(None, map(shutil.which, names)):
        return path
    missing = f"{names[0]} is not installed"
    if os.environ.get("CI"):
        pytest.fail(missing)
    pytest.skip(missing)
