"""local/key.py: another key for the service that `make run` runs."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from redis import Redis

from gateway.account.api_keys import KeyStore
from local import credentials
from local.key import ROOT, NotRunning, create, service_environment
from local.redis_server import RedisServer
from local.run import plan


def key(*arguments: str, **environ: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "local.key", *arguments],
        cwd=ROOT,
        env={"PATH": os.environ["PATH"], **environ},
        capture_output=True,
        text=True,
        timeout=60,
    )


# A folder whose name is too long for a socket, too: the server puts that elsewhere then.
@pytest.fixture(params=["data", "data" * 30])
def folder(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Path]:
    with RedisServer(tmp_path / request.param, persistent=False) as server:
        yield server.folder


def test_the_key_on_the_last_line_works_for_the_running_service(folder: Path) -> None:
    pepper = credentials.pepper(folder)

    result = key("Zoë's", "--data", str(folder), "--env", str(folder / "none"))

    assert (result.returncode, result.stderr) == (0, "")
    with Redis.from_url(f"unix://{(folder / 'redis.sock').resolve()}") as redis:
        record = KeyStore(redis, pepper).verify(result.stdout.splitlines()[-1])
    assert record.name == "Zoë's"


@pytest.mark.parametrize("how", ["never started", "stopped"])
def test_a_service_that_does_not_run_is_reported_with_what_to_do(tmp_path: Path, how: str) -> None:
    folder = tmp_path / "data"
    if how == "stopped":
        with RedisServer(folder, persistent=False):
            pass

    result = key("me", "--data", str(folder), "--env", str(tmp_path / "none"))

    assert (result.returncode, result.stdout) == (1, "")
    assert result.stderr == (
        f"make key: no service runs with the data in {folder}. Start it with make run, and use a "
        "second terminal for this command\n"
    )


def test_a_key_needs_a_name(tmp_path: Path) -> None:
    result = key("", "--data", str(tmp_path))

    assert result.returncode == 1
    assert result.stderr == "make key: a key needs a name: make key NAME=me\n"


def test_the_redis_and_the_pepper_of_the_settings_are_used(
    tmp_path: Path, redis: Redis, redis_url: str
) -> None:
    pepper = "a pepper of the operator's own, long enough"

    made = create("me", tmp_path, {"REDIS_URL": redis_url, "KEY_PEPPER": pepper})

    assert KeyStore(redis, pepper).verify(made).name == "me"


def test_a_redis_of_the_settings_that_does_not_answer_is_reported_in_one_line(
    tmp_path: Path,
) -> None:
    file = tmp_path / "env"
    file.write_text(f"REDIS_URL=unix://{tmp_path}/absent.sock\n")

    result = key("me", "--data", str(tmp_path), "--env", str(file))

    assert (result.returncode, result.stdout) == (1, "")
    assert result.stderr.startswith("make key: Redis does not answer")
    assert result.stderr.count("\n") == 1


def test_no_secrets_are_made_for_a_service_that_never_ran(tmp_path: Path, redis_url: str) -> None:
    with pytest.raises(NotRunning):
        create("me", tmp_path / "data", {"REDIS_URL": redis_url})
    assert not (tmp_path / "data").exists()


def test_commands_have_the_settings_of_the_service_that_runs(folder: Path) -> None:
    env = service_environment(folder, {"DRAIN_SECONDS": "3"})

    assert env.pop("REDIS_URL").startswith("unix://")
    service = plan(folder, {"DRAIN_SECONDS": "3", "LOCAL_MODEL": "off"}).environ
    assert env == {name: service[name] for name in env}
    assert {"DEMO_MODELS", "FILES_URL", "DATABASE_URL", "KEY_PEPPER"} <= set(env)
