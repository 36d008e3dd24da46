"""Ends the calls of workers that were killed together with the web processes that waited.

Those that nobody need wait for, and that may, run once more.

Without it, their bodies and registry entries would stay until a minute past their deadlines, and
the account would lack them.
"""

from __future__ import annotations

from typing import Any, cast

import orjson
from redis import Redis

from gateway.errors import WorkerLost
from gateway.queue import commands, keys
from gateway.queue.lease import Lease, LostProcesses


class Leftovers:
    """Finds calls that are marked as running and whose worker is lost."""

    def __init__(self, redis: Redis, lease: Lease) -> None:
        self._redis = redis
        self._lost_workers = LostProcesses(redis, lease)

    def sweep(self) -> int:
        """End the calls of workers that had no lease at the last sweep either; return how many.

        Those that no worker ended until a minute after their deadlines end too, so that each has a
        record. What a call has used is estimated: its prompt, because nobody knows what it wrote.

        Raises RedisError.
        """
        members = cast(
            "list[tuple[bytes, float]]", self._redis.zrange(keys.RQ_STARTED, 0, -1, withscores=True)
        )
        running = [member.decode().partition(":")[::2] for member, _ in members]
        with self._redis.pipeline(transaction=False) as pipeline:
            pipeline.time()
            for call_id, _ in running:
                pipeline.hmget(keys.job(call_id), "worker_name", "web", "stub")
            (now, _), *rows = pipeline.execute()
        names = [tuple(field.decode() if field else "" for field in row) for row in rows]
        lost = self._lost_workers.look(worker for worker, *_ in names if worker)
        ended = 0
        for (call_id, claim), (worker, web, stub), (member, end) in zip(
            running, names, members, strict=True
        ):
            if worker in lost or (worker and end < now):
                ended += self._end(call_id, claim, web, worker, orjson.loads(stub or b"{}"))
            if end < now:  # a call that it does not know has no other end
                self._redis.zrem(keys.RQ_STARTED, member)
        return ended

    def _end(
        self, call_id: str, claim: str, web: str, worker: str, estimate: dict[str, Any]
    ) -> bool:
        """End a call, or have it run once more; return whether it has ended."""
        # Of a call without a log, only the process that waits knows whether anything has arrived.
        if keys.is_log(web) and commands.retry(self._redis, call_id, claim, web):
            return False
        ending = commands.lost_commands(call_id, claim, web, worker, WorkerLost(), estimate)
        return commands.finish(self._redis, ending)
