"""Makefile, Procfiles, app.json and requirements: what newcomers and deploys start from."""

from __future__ import annotations

import json
import os
import re
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]
REQUIREMENTS = sorted(ROOT.glob("requirements*.txt"))


def make(*arguments: str) -> subprocess.CompletedProcess[str]:
    quiet = {name: value for name, value in os.environ.items() if not name.startswith("MAKE")}
    return subprocess.run(
        ["make", "--no-print-directory", *arguments],
        cwd=ROOT,
        env={**quiet, "LC_ALL": "C"},
        capture_output=True,
        text=True,
    )


def test_help_lists_every_target_with_what_it_does() -> None:
    declared = re.search(r"^\.PHONY: (.*)$", (ROOT / "Makefile").read_text(), re.MULTILINE)
    assert declared is not None

    listed = [line.split(maxsplit=2) for line in make("help").stdout.splitlines()]

    assert [words[1] for words in listed] == declared[1].split()
    assert all(len(words) == 3 for words in listed)


def test_help_is_what_make_alone_prints() -> None:
    assert make().stdout == make("help").stdout


def test_a_python_that_is_too_old_is_refused_with_advice(tmp_path: Path) -> None:
    old = tmp_path / "python"
    old.write_text("#!/bin/sh\nexit 1\n")
    old.chmod(0o755)

    refused = make(f"PYTHON={old}", f"VENV={tmp_path}/venv", f"{tmp_path}/venv/bin/python")

    assert refused.returncode != 0
    assert "Python 3.11 or later" in refused.stdout


def test_make_key_passes_the_name_on_as_it_is(tmp_path: Path) -> None:
    python = tmp_path / "python"
    python.write_text("#!/bin/sh\nprintf '%s|' \"$@\"\n")
    python.chmod(0o755)
    installed = tmp_path / ".local"
    rule = [f"VENV={tmp_path}", f"BIN={tmp_path}", f"--old-file={installed}"]

    result = make("key", *rule, 'NAME=Zoë\'s "laptop"')

    assert result.stdout == '-m|local.key|Zoë\'s "laptop"|'


@pytest.mark.parametrize("file", REQUIREMENTS, ids=lambda file: file.name)
def test_requirements_are_pinned_with_hashes_and_name_no_index(file: Path) -> None:
    text = file.read_text()
    entries = [line for line in text.splitlines() if line and not line.startswith((" ", "#", "-"))]

    assert entries
    assert all(re.fullmatch(r"[\w.-]+==\S+ \\", line) for line in entries)
    assert text.count(" \\\n    --hash=sha256:") >= len(entries)
    assert "://" not in text
    assert not re.search(r"^--|^-[if]", text, re.MULTILINE)


def test_every_direct_requirement_is_in_the_file_made_from_it() -> None:
    for source in ROOT.glob("requirements*.in"):
        made = source.with_suffix(".txt").read_text()
        for line in source.read_text().splitlines():
            pinned = re.fullmatch(r"([\w-]+)(?:\[\w+\])?(==\S+)", line)
            assert pinned or line.startswith(("#", "-c ", "-r ")), line
            if pinned:
                assert f"\n{pinned[1]}{pinned[2]} " in made


def test_a_package_has_one_version_across_the_files() -> None:
    versions: dict[str, set[str]] = {}
    for file in REQUIREMENTS:
        for name, version in re.findall(r"^([\w.-]+)==(\S+)", file.read_text(), re.MULTILINE):
            versions.setdefault(name, set()).add(version)

    assert {name: found for name, found in versions.items() if len(found) > 1} == {}


def test_a_deploy_starts_the_processes_of_the_procfile() -> None:
    processes = dict(line.split(": ", 1) for line in (ROOT / "Procfile").read_text().splitlines())
    app = json.loads((ROOT / "app.json").read_text())

    assert processes.keys() == {"web", "worker", "release"}
    assert app["formation"].keys() == {"web", "worker"}
    assert app["env"]["KEY_PEPPER"]["generator"] == "secret"
    assert any(addon.startswith("heroku-redis") for addon in app["addons"])
