"""GET /health: the process can serve. GET /health/ready: it can answer calls."""

from __future__ import annotations

from flask import Blueprint, Response
from redis.exceptions import RedisError

from api.http.auth import public
from api.http.json import json_response
from api.services import services
from gateway import SERVICE, VERSION, descriptors
from gateway.account.ledger import Health
from gateway.queue.health import QueueHealth, look

health = Blueprint("health", __name__)

RECORDS_SHARE = 0.5  # of RECORDS_BACKLOG

# Written by hand for the key order and the spaces that the documentation shows.
TEXT = '{{"status": "{status}", "service": "{service}", "version": "{version}"}}'
ALIVE, BROKEN = (
    TEXT.format(status=status, service=SERVICE, version=VERSION) for status in ("ok", "unavailable")
)


@health.get("/health")
@public
def alive() -> Response:
    """Return 200 unless this process can serve nobody before it is restarted; then 503."""
    ok = services().broker.working() and not descriptors.exhausted()
    return Response(ALIVE if ok else BROKEN, 200 if ok else 503, content_type="application/json")


@health.get("/health/ready")
@public
def ready() -> Response:
    """Return 200 if Redis answers, a worker runs and this process is not draining; else 503.

    What makes calls slow, or delays only the account, is `degraded` and no reason for 503.
    """
    parts = services()
    broker, reasons = parts.broker, []
    redis, queue, account = True, QueueHealth(0, 0, 0.0, 0, 0), Health(0, 0.0)
    try:
        queue = look(broker.redis)
        account = parts.ledger.health()
    except RedisError:
        redis = False
        reasons.append("redis_away")
    if redis and not queue.workers:
        reasons.append("no_workers")
    if broker.draining:
        reasons.append("draining")
    ok = not reasons
    if account.degraded or account.backlog >= RECORDS_SHARE * parts.settings.records_backlog:
        reasons.append("records_backlog")
    reasons += queue.reasons(parts.settings.queue_limit)
    facts = {
        "status": "unavailable" if not ok else "degraded" if reasons else "ok",
        "reasons": reasons,
        "redis": "ok" if redis else "unavailable",
        "workers": queue.workers,
        "draining": broker.draining,
        "calls_waiting": queue.waiting,
        "longest_wait_seconds": round(queue.oldest_seconds, 1),
        "redis_memory_share": round(queue.memory_share, 3),
        "records_waiting": account.backlog,
        "records_lag_seconds": round(account.lag_seconds, 1),
    }
    return json_response(facts, 200 if ok else 503)
