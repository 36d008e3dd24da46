"""What Redis knows of a service's health: workers, the queue, and its own memory."""

from __future__ import annotations

from dataclasses import dataclass

from redis import Redis

from gateway.queue import event_logs, keys
from gateway.queue.lease import live_workers

LOOKED_AT = 10  # calls at each end of the queue
# Shares of maxmemory to warn at: from 0.8 on, all calls are refused, and from event_logs.LOG_SHARE
# on those with a log.
MEMORY_SHARE, LOGS_SHARE = 0.7, 0.8 * event_logs.LOG_SHARE
QUEUE_SHARE = 0.8  # of QUEUE_LIMIT
WAIT_SECONDS = 60.0  # that the calls in front of the queue may have waited


@dataclass(frozen=True, slots=True)
class QueueHealth:
    """The state of the queue. `memory_limit` is 0 where Redis has none or does not say."""

    workers: int
    waiting: int  # calls, without those that wait for room among the calls of their key
    oldest_seconds: float  # of those that were looked at
    memory_used: int
    memory_limit: int

    @property
    def memory_share(self) -> float:
        """The used share of `memory_limit`."""
        return self.memory_used / self.memory_limit if self.memory_limit else 0.0

    def reasons(self, queue_limit: int) -> list[str]:
        """Why calls are slow or soon refused: `queue_backlog`, and of Redis' memory one of
        `redis_memory` (all calls) and `redis_memory_logs` (those with a log); or none.
        """
        long = self.waiting >= QUEUE_SHARE * queue_limit or self.oldest_seconds > WAIT_SECONDS
        full = self.memory_share >= MEMORY_SHARE
        logs = self.memory_share >= LOGS_SHARE
        memory = ["redis_memory"] if full else ["redis_memory_logs"] if logs else []
        return ["queue_backlog"] * long + memory


def look(redis: Redis) -> QueueHealth:
    """Read the state of the queue. Raises RedisError."""
    workers = len(live_workers(redis))
    with redis.pipeline(transaction=False) as pipeline:
        pipeline.llen(keys.RQ_QUEUE)
        pipeline.lrange(keys.RQ_QUEUE, 0, LOOKED_AT - 1)
        pipeline.lrange(keys.RQ_QUEUE, -LOOKED_AT, -1)
        pipeline.time()
        pipeline.info("memory")
        waiting, first, last, (seconds, _), memory = pipeline.execute(raise_on_error=False)
    for reply in (waiting, first, last):
        if isinstance(reply, Exception):
            raise reply
    if isinstance(memory, Exception):  # a user that may not ask
        memory = {}
    with redis.pipeline(transaction=False) as pipeline:
        for call_id in {*first, *last}:
            pipeline.hget(keys.job(call_id.decode()), "queued_ms")
        queued = [int(each) for each in pipeline.execute() if each]
    oldest = max(0.0, seconds - min(queued) / 1000) if queued else 0.0
    used, limit = memory.get("used_memory", 0), memory.get("maxmemory", 0)
    return QueueHealth(workers, waiting, oldest, int(used), int(limit))
