"""Calls through the scripts of a real Redis whose clock a test sets."""

from __future__ import annotations

import uuid
from dataclasses import dataclass, field
from typing import Any, cast

import orjson
from redis import Redis

from gateway.catalogue.target import Target
from gateway.errors import WorkerLost
from gateway.queue import commands, keys, scripts
from gateway.queue.clients import DedicatedConnection
from gateway.queue.protocol import AdmissionRequest, CallSpec, Outcome
from gateway.settings import Settings
from workers.claims import Claims

WEB, WORKER, HMAC = "web-1", "worker-1", "h" * 64
KEY = "KeyOfTheTest"  # a public id
CLOCK = "test:clock"  # what TIME replies in the scripts
MONDAY = 1_767_571_200  # 2026-01-05 00:00 UTC


@dataclass
class Calls:
    """Keys, calls, and a clock that stands still unless `pass_time` is called."""

    redis: Redis
    settings: Settings
    now_ms: int = MONDAY * 1000
    replies: dict[str, list[Any]] = field(default_factory=dict)  # of submit, by call id
    shas: dict[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.claims = Claims(self.redis, DedicatedConnection(self.redis), WORKER, lambda: 0.0)
        self.redis.set(keys.lease(WEB), 1)
        self.pass_time(0)

    def pass_time(self, milliseconds: int) -> None:
        self.now_ms += milliseconds
        seconds, rest = divmod(self.now_ms, 1000)
        with self.redis.pipeline() as transaction:
            transaction.delete(CLOCK)
            transaction.rpush(CLOCK, seconds, rest * 1000)
            transaction.execute()

    def run(self, command: tuple[Any, ...]) -> Any:
        """Run a script's command by this clock."""
        return self.redis.execute_command("EVALSHA", self.by_clock(command[1]), *command[2:])

    def by_clock(self, sha: str) -> str:
        """The digest of the script that takes the time from this clock; Redis knows it."""
        if sha not in self.shas:
            (script,) = (script for script in scripts.ALL if script.sha == sha)
            clock = b"redis.call('LRANGE', '%b', 0, 1)" % CLOCK.encode()
            text = script.text.replace(b"redis.call('TIME')", clock)
            self.shas[sha] = cast("str", self.redis.script_load(text))
        return self.shas[sha]

    def key(self, public_id: str = KEY, **fields: Any) -> str:
        self.redis.delete(keys.key(public_id))
        self.redis.hset(keys.key(public_id), mapping={"hmac": HMAC, **fields})
        return public_id

    def owner(self, name: str, **fields: Any) -> str:
        self.redis.delete(keys.owner_record(name))
        self.redis.hset(keys.owner_record(name), mapping={"name": name, **fields})
        return name

    def command(
        self,
        public_id: str = KEY,
        call_id: str = "",
        account: dict[str, Any] | None = None,
        seconds: float = 600,
        hmac: str = HMAC,
        hit: bytes = b"",
        web: str = WEB,
        body: bytes = b"{}",
        **request: Any,
    ) -> tuple[Any, ...]:
        call_id = call_id or uuid.uuid4().hex
        target = Target("demo/echo", "demo", "echo")
        spec = CallSpec(call_id, web, False, (target,), key=public_id, account=account or {})
        admission = AdmissionRequest(public_id, hmac, **request)
        return commands.submit_command(self.settings, spec, body, admission, seconds, hit=hit)

    def submit(self, public_id: str = KEY, call_id: str = "", **request: Any) -> str:
        """Submit a call and return its id; `replies` has the reply."""
        call_id = call_id or uuid.uuid4().hex
        self.replies[call_id] = self.run(self.command(public_id, call_id, **request))
        return call_id

    def admitted(self, public_id: str = KEY, **request: Any) -> dict[str, Any]:
        """Submit a call and return what was admitted."""
        word, detail = self.replies[self.submit(public_id, **request)]
        assert word == b"ok", (word, detail)
        return orjson.loads(detail)  # type: ignore[no-any-return]

    def refused(self, public_id: str = KEY, **request: Any) -> dict[str, Any]:
        """Submit a call that a limit refuses, and return which; nothing must have changed."""
        before = self.dump()
        word, detail = self.replies[self.submit(public_id, **request)]
        assert word == b"limit", (word, detail)
        assert self.dump() == before, "a refusal uses up nothing"
        return orjson.loads(detail)  # type: ignore[no-any-return]

    def dump(self) -> dict[bytes, bytes]:
        """Everything in Redis that does not expire within a moment."""
        return {
            name: self.redis.dump(name) or b""
            for name in self.redis.keys()
            if name != keys.MEMORY.encode()
        }

    def claim(self, slots: int = 1) -> list[str]:
        """Have the worker take calls, and return their ids in the order in which they start."""
        reply = self.run(self.claims.command("c1", slots))
        return [call_id.decode() for call_id in reply[::5]]

    def finish(self, call_id: str, nano: int = 0, tokens: int = 0, record: bytes = b"{}") -> bool:
        outcome = Outcome(answer=b"{}")
        [command] = commands.finish_commands(
            call_id, "c1", WEB, WORKER, outcome, record, nano, tokens
        )
        return bool(self.run(command))

    def lose(self, call_id: str, **estimate: Any) -> bool:
        [command] = commands.lost_commands(call_id, "c1", WEB, WORKER, WorkerLost(), estimate, 7)
        return bool(self.run(command))

    def cancel(self, call_id: str) -> bytes:
        return commands.cancel(self._client(), call_id)

    def promote(self) -> int:
        return commands.promote(self._client())

    def _client(self) -> Any:
        """A client whose scripts run by this clock."""

        class Running:
            execute_command = staticmethod(lambda *command: self.run(command))

        return Running()

    def status(self, call_id: str) -> str:
        return commands.states(self.redis, [call_id])[0].status

    def numbers(self, name: str) -> dict[str, str]:
        """A hash of Redis, as strings."""
        rows: Any = self.redis.hgetall(name)
        return {field.decode(): value.decode() for field, value in rows.items()}

    def records(self) -> list[dict[str, Any]]:
        """The records so far, each with what the script knows as `q` and the alerts as `a`."""
        entries: Any = self.redis.xrange(keys.RECORDS)
        return [
            {
                **orjson.loads(fields[b"r"]),
                "q": orjson.loads(fields[b"q"]),
                "a": orjson.loads(fields.get(b"a", b"[]")),
            }
            for _, fields in entries
        ]


def flood(settings: Settings, now_ms: int, number: int, request: dict[str, Any]) -> int:
    """Submit so many calls of KEY in batches, in a process of its own; return how many are in."""
    with Redis.from_url(settings.redis_url, protocol=2) as redis:
        calls = Calls(redis, settings, now_ms)
        accepted = 0
        for start in range(0, number, 20):
            with redis.pipeline(transaction=False) as pipeline:
                for _ in range(min(20, number - start)):
                    command = calls.command(**request)
                    pipeline.execute_command("EVALSHA", calls.by_clock(command[1]), *command[2:])
                accepted += sum(reply[0] == b"ok" for reply in pipeline.execute())
        return accepted
