"""GET /health: the process can serve. GET /health/ready: it can answer calls."""

from __future__ import annotations

import orjson
from flask import Blueprint, Response
from redis.exceptions import RedisError

from api.http.auth import public
from api.services import services
from gateway import SERVICE, VERSION, descriptors
from gateway.account.ledger import Health
from gateway.queue import commands

health = Blueprint("health", __name__)

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

    A ledger that is behind is `degraded` and no reason for 503: calls do not need it.
    """
    broker = services().broker
    redis, workers, account = True, 0, Health(0, 0.0)
    try:
        workers = len(commands.live_workers(broker.redis))
        account = services().ledger.health()
    except RedisError:
        redis = False
    ok = redis and workers > 0 and not broker.draining
    facts = {
        "status": "unavailable" if not ok else "degraded" if account.degraded else "ok",
        "redis": "ok" if redis else "unavailable",
        "workers": workers,
        "draining": broker.draining,
        "records_waiting": account.backlog,
        "records_lag_seconds": round(account.lag_seconds, 1),
    }
    return Response(orjson.dumps(facts), 200 if ok else 503, content_type="application/json")
