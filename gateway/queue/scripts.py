"""The Lua scripts of `gateway/queue/lua`, by name."""

from __future__ import annotations

import functools
import hashlib
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from redis import Redis
from redis.exceptions import NoScriptError

from gateway.queue import keys
from gateway.queue.clients import Command, DedicatedConnection

# Read at the start: later, no file descriptor may be left.
FILES = {path.stem: path.read_bytes() for path in Path(__file__).parent.glob("lua/*.lua")}

# Scripts that begin with the functions of account.lua.
ACCOUNTING = ("submit", "claim", "finish", "cancel", "promote", "move", "retry")
NAME = re.compile(rb"\$([A-Z_]+)")


@dataclass(frozen=True, slots=True)
class Script:
    """One script, by the name of its file; text and digest depend on the prefix of names."""

    name: str

    @property
    def text(self) -> bytes:
        return _load(self.name, keys.PREFIX)[0]

    @property
    def sha(self) -> str:
        """The digest that EVALSHA knows the script by."""
        return _load(self.name, keys.PREFIX)[1]

    def command(self, keys: list[Any], args: list[Any]) -> Command:
        """Return the EVALSHA command, for a batch."""
        return ("EVALSHA", self.sha, len(keys), *keys, *args)

    def __call__(self, redis: Redis, keys: list[Any], args: list[Any]) -> Any:
        """Run the script and return its reply. Raises RedisError.

        If Redis does not know it (after a restart or SCRIPT FLUSH), all scripts are loaded: a
        batch of two scripts of which Redis knows only the second would run in the wrong order.
        """
        return run(redis, self.command(keys, args))


@functools.cache
def _load(name: str, prefix: str) -> tuple[bytes, str]:
    text = FILES[name]
    if name in ACCOUNTING:
        # Names of keys are written into the text: as arguments, each call would pay for them.
        names = keys.script_names()
        account = NAME.sub(
            lambda match: b"'%b'" % names[match[1].decode()].encode(), FILES["account"]
        )
        head, _, body = text.partition(b"\n\n")  # the flags must stay in the first line
        text = b"%b\n\n%b\n%b" % (head, account, body)
    return text, hashlib.sha1(text, usedforsecurity=False).hexdigest()


SUBMIT = Script("submit")
CLAIM = Script("claim")
EMIT = Script("emit")
FINISH = Script("finish")
PIECE = Script("piece")
CANCEL = Script("cancel")
BREAKER = Script("breaker")
PROMOTE = Script("promote")
LEDGER = Script("ledger")
RECORD = Script("record")
RESTORE = Script("restore")
CORRECT = Script("correct")
LOOK = Script("look")
STORE = Script("store")
REMEMBER = Script("remember")
FORGET = Script("forget")
FORGET_LOG = Script("forget_log")
ANNOUNCE = Script("announce")
RETRY = Script("retry")
COUNT = Script("count")
MOVE = Script("move")
STEER = Script("steer")
WEBHOOK = Script("webhook")
WEBHOOK_END = Script("webhook_end")
ALL = (
    *(SUBMIT, CLAIM, EMIT, FINISH, CANCEL, BREAKER, PROMOTE, LEDGER, RECORD, RESTORE, CORRECT),
    *(LOOK, STORE, COUNT, MOVE, STEER, WEBHOOK, WEBHOOK_END, REMEMBER, FORGET, FORGET_LOG),
    *(ANNOUNCE, RETRY, PIECE),
)


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
