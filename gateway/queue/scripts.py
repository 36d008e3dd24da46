"""The Lua scripts of `gateway/lua`, by name."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from redis import Redis
from redis.exceptions import NoScriptError

from gateway.queue.clients import Command, DedicatedConnection

LUA = Path(__file__).parent / "lua"


@dataclass(frozen=True, slots=True)
class Script:
    """One script: its text and the digest that EVALSHA knows it by."""

    text: bytes
    sha: str

    def command(self, keys: list[Any], args: list[Any]) -> Command:
        """Return the EVALSHA command, for a batch."""
        return ("EVALSHA", self.sha, len(keys), *keys, *args)

    def __call__(self, redis: Redis, keys: list[Any], args: list[Any]) -> Any:
        """Run the script and return its reply. Raises RedisError.

        If Redis does not know it (after a restart or SCRIPT FLUSH), all scripts are loaded: a
        batch of two scripts of which Redis knows only the second would run in the wrong order.
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
LEDGER = _load("ledger")
RECORD = _load("record")
RESTORE = _load("restore")
LOOK = _load("look")
STORE = _load("store")
ALL = (SUBMIT, CLAIM, EMIT, FINISH, CANCEL, BREAKER, LEDGER, RECORD, RESTORE, LOOK, STORE)


def load_commands() -> list[Command]:
    """Return the commands that make every script known to Redis."""
    return [("SCRIPT", "LOAD", script.text) for script in ALL]


def run_all(connection: DedicatedConnection, commands: list[Command]) -> list[Any]:
    """Run the commands of scripts and return the reply to each.

    Scripts that Redis does not know are loaded, and their commands run in a second round trip.
    The reply to a command that Redis refuses is its ResponseError. Raises ConnectionError and
    TimeoutError: some of the commands may have run then.
    """
    replies = connection.round_trip(commands)
    unknown = [i for i, reply in enumerate(replies) if isinstance(reply, NoScriptError)]
    if unknown:
        again = [*load_commands(), *(commands[i] for i in unknown)]
        for i, reply in zip(unknown, connection.round_trip(again)[len(ALL) :], strict=True):
            replies[i] = reply
    return replies


def run(redis: Redis, command: Command) -> Any:
    """Run a script's command and return its reply; load the scripts if Redis does not know them.

    Raises RedisError.
    """
    try:
        return redis.execute_command(*command)
    except NoScriptError:
        for load in load_commands():
            redis.execute_command(*load)
        return redis.execute_command(*command)
