"""Figures of the last minute, for people who look at them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from itertools import accumulate
from typing import Any

from redis import Redis

from gateway.metrics.now import look
from gateway.metrics.records import bucket_seconds
from gateway.queue import keys

SLOT, SLOTS = keys.RECENT_SLOT_SECONDS, 60 // keys.RECENT_SLOT_SECONDS
QUANTILES = {"p50": 0.5, "p99": 0.99}
NANO = 1e9


def snapshot(redis: Redis) -> dict[str, Any]:
    """Return figures of the last minute, and what is so now. Raises RedisError.

    Times are in seconds. `seconds` is the stretch that the figures are of: 12 slots of 5 seconds,
    and the one that is not over. `series` has each slot, the oldest first, `models` each model, the
    one with most calls first. Where no call has a duration, None is in place of its quantiles.
    """
    now = look(redis)
    current = int(now.at // SLOT)
    slots = range(current - SLOTS, current + 1)
    with redis.pipeline(transaction=False) as pipeline:
        for slot in slots:
            pipeline.hgetall(keys.recent(slot))
        pipeline.xlen(keys.RECORDS)
        *rows, backlog = pipeline.execute()
    figures = [{name.decode(): int(value) for name, value in row.items()} for row in rows]
    total: Counter[str] = sum(map(Counter, figures), Counter())
    seconds = now.at - slots[0] * SLOT
    calls, failed, lost = total["calls"], total["status failed"], total["status lost"]
    return {
        "at": now.at,
        "seconds": seconds,
        "calls": calls,
        "completed": total["status completed"],
        "failed": failed,
        "cancelled": total["status cancelled"],
        "lost": lost,
        "calls_per_second": calls / seconds,
        "error_rate": (failed + lost) / calls if calls else 0.0,
        "duration": _quantiles(total, "duration "),
        "time_to_first_token": _quantiles(total, "first "),
        "queue_wait": _quantiles(total, "queue "),
        "input_tokens_per_second": total["input"] / seconds,
        "output_tokens_per_second": total["output"] / seconds,
        "cost_usd": total["cost"] / NANO,
        "responses": {kind: total[f"http {kind}"] for kind in ("2xx", "4xx", "5xx")},
        "models": _models(total),
        "series": [
            {
                "at": slot * SLOT,
                "calls": row.get("calls", 0),
                "failed": row.get("status failed", 0) + row.get("status lost", 0),
                "output_tokens": row.get("output", 0),
            }
            for slot, row in zip(slots, figures, strict=True)
        ],
        "queued": now.queued,
        "parked": now.parked,
        "paused": now.paused,
        "scheduled": now.scheduled,
        "running": now.running,
        "oldest_queued": now.oldest_queued,
        "workers": now.workers,
        "slots": now.slots,
        "web_processes": now.webs,
        "ledger_backlog": backlog,
    }


def _quantiles(total: Mapping[str, int], prefix: str) -> dict[str, float] | None:
    buckets = sorted(
        (int(name.removeprefix(prefix)), count)
        for name, count in total.items()
        if name.startswith(prefix)
    )
    number = sum(count for _, count in buckets)
    if not number:
        return None
    return {name: _quantile(buckets, share * number) for name, share in QUANTILES.items()}


def _quantile(buckets: list[tuple[int, int]], rank: float) -> float:
    counts = accumulate(count for _, count in buckets)
    reached = (bucket for (bucket, _), count in zip(buckets, counts, strict=True) if count >= rank)
    return bucket_seconds(next(reached))


def _models(total: Mapping[str, int]) -> list[dict[str, Any]]:
    prefix = "model calls "
    names = [name.removeprefix(prefix) for name in total if name.startswith(prefix)]
    rows = [
        {
            "model": name,
            "calls": total[f"model calls {name}"],
            "failed": total[f"model failed {name}"],
            "output_tokens": total[f"model output {name}"],
            "cost_usd": total[f"model cost {name}"] / NANO,
        }
        for name in names
    ]
    return sorted(rows, key=lambda row: (-row["calls"], row["model"]))
