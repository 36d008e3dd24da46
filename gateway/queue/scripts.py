"""The Lua scripts of `gateway/lua`, by name."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from redis import Connection, Redis
from redis.exceptions import NoScriptError

from gateway.queue import clients

LUA = Path(__file__).parent / "lua"


@dataclass(frozen=True, slots=True)
class Script:
    """One script: its text and the digest that EVALSHA knows it by."""

    text: bytes
    sha: str

    def command(self, keys: list[Any], args: list[Any]) -> tuple[Any, ...]:
        """The EVALSHA command, for a pipeline."""
        return ("EVALSHA", self.sha, len(keys), *keys, *args)

    def __call__(self, redis: Redis, keys: list[Any], args: list[Any]) -> Any:
        """Run it; where Redis does not know it (a restart, SCRIPT FLUSH) all scripts are loaded.

        All, not one: a pipeline of two scripts of which Redis knows the second only would run
        them in the wrong order.
        """
        return run(redis, self.command(keys, args))


def _load(name: str) -> Script:
    text = (LUA / f"{name}.lua").read_bytes()
    return Script(text, hashlib.sha1(text, usedforsecurity=False).hexdigest())


SUBMIT = _load("submit")
CLAIM = _load("claim")
EMIT = _load("emit")
FINISH = _load("finish")
CANCEL = _load("cancel")
BREAKER = _load("breaker")
ALL = (SUBMIT, CLAIM, EMIT, FINISH, CANCEL, BREAKER)


def loads() -> list[tuple[Any, ...]]:
    """The commands that make every script known to Redis."""
    return [("SCRIPT", "LOAD", script.text) for script in ALL]


def run_all(connection: Connection, commands: list[tuple[Any, ...]]) -> list[Any]:
    """The reply to each script's command; scripts that Redis does not know are loaded first.

    Raises ConnectionError and TimeoutError; another refusal of a command is its reply.
    """
    replies = clients.round_trip(connection, commands)
    unknown = [i for i, reply in enumerate(replies) if isinstance(reply, NoScriptError)]
    if unknown:
        again = [*loads(), *(commands[i] for i in unknown)]
        for i, reply in zip(
            unknown, clients.round_trip(connection, again)[len(ALL) :], strict=True
        ):
            replies[i] = reply
    return replies


def run(redis: Redis, command: tuple[Any, ...]) -> Any:
    """Run a script's command, loading the scripts where Redis does not know them."""
    try:
        return redis.execute_command(*command)
    except NoScriptError:
        for load in loads():
            redis.execute_command(*load)
        return redis.execute_command(*command)
