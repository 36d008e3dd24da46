"""Ends the calls of workers that were killed together with the web processes that waited.

Without it, their bodies and registry entries would stay until a minute past their deadlines.
"""

from __future__ import annotations

from typing import cast

from redis import Redis

from gateway.errors import WorkerLost
from gateway.queue import commands, keys
from gateway.queue.lease import Lease, LostProcesses
from gateway.queue.protocol import Outcome


class Leftovers:
    """Finds calls that are marked as running and whose worker is lost."""

    def __init__(self, redis: Redis, lease: Lease) -> None:
        self._redis = redis
        self._lost_workers = LostProcesses(redis, lease)

    def sweep(self) -> int:
        """End the calls of workers that had no lease at the last sweep either; return how many.

        Raises RedisError.
        """
        members = cast("list[bytes]", self._redis.zrange(keys.RQ_STARTED, 0, -1))
        running = [member.decode().partition(":")[::2] for member in members]
        with self._redis.pipeline(transaction=False) as pipeline:
            for call_id, _ in running:
                pipeline.hmget(keys.job(call_id), "worker_name", "web")
            rows = pipeline.execute()
        names = [tuple(field.decode() if field else "" for field in row) for row in rows]
        lost = self._lost_workers.look(worker for worker, _ in names if worker)
        ended = 0
        for (call_id, claim), (worker, web) in zip(running, names, strict=True):
            if worker in lost:
                outcome = Outcome(error=WorkerLost())
                command = commands.finish_command(call_id, claim, web, worker, outcome)
                ended += commands.finish(self._redis, command)
        return ended
