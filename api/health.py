"""GET /health, for anyone: is this process up? GET /health/ready: can it do its job?"""

from __future__ import annotations

import orjson
from flask import Blueprint, Response, current_app
from redis.exceptions import RedisError

from api.auth import public
from api.exchange import Exchange
from gateway import SERVICE, VERSION, dispatch

health = Blueprint("health", __name__)

# By hand, for the order of the keys and the spaces that the documentation shows.
ALIVE = f'{{"status": "ok", "service": "{SERVICE}", "version": "{VERSION}"}}'


@health.get("/health")
@public
def alive() -> Response:
    """Answers as long as this process does."""
    return Response(ALIVE, content_type="application/json")


@health.get("/health/ready")
@public
def ready() -> Response:
    """200 where Redis answers, a worker lives and this process is not being stopped; else 503."""
    exchange: Exchange = current_app.extensions["exchange"]
    redis, workers = True, 0
    try:
        workers = dispatch.live_workers(exchange.redis)
    except RedisError:
        redis = False
    ok = redis and workers > 0 and not exchange.draining
    facts = {
        "status": "ok" if ok else "unavailable",
        "redis": "ok" if redis else "unavailable",
        "workers": workers,
        "draining": exchange.draining,
    }
    return Response(orjson.dumps(facts), 200 if ok else 503, content_type="application/json")
