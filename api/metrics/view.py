"""GET /metrics: all metrics of the service, for Prometheus."""

from __future__ import annotations

import hmac
from collections.abc import Iterator
from typing import Any

from flask import Blueprint, Response, request

from api.http.auth import operator
from api.services import services
from gateway.account.api_keys import KeyRecord
from gateway.account.key_fields import Limits
from gateway.metrics.labels import ModelLabels
from gateway.queue.keys import owner_scope

metrics = Blueprint("metrics", __name__)


@metrics.get("/metrics")
def show() -> Any:
    """Return the metrics of all processes to who has METRICS_TOKEN or an operator key."""
    token = services().settings.metrics_token
    scheme, _, sent = request.headers.get("Authorization", "").partition(" ")
    if token and scheme.lower() == "bearer" and hmac.compare_digest(token.encode(), sent.encode()):
        return _page()
    return _for_operator()


show.access = "operator"  # type: ignore[attr-defined]


@operator
def _for_operator(_: KeyRecord) -> Response:
    return _page()


def _page() -> Response:
    # Not at the top: most services have no Prometheus, and its client takes 4 MB.
    from prometheus_client import CONTENT_TYPE_PLAIN_0_0_4

    from gateway.metrics.collector import text

    here = services()
    if metrics.name not in here.pages:
        here.pages[metrics.name] = ModelLabels(here.catalogue)
    labels = here.pages[metrics.name]
    scopes = _scopes() if here.settings.metrics_by_key else ()
    body = text(here.broker.redis, labels, here.settings.breaker_failures, scopes)
    return Response(body, content_type=CONTENT_TYPE_PLAIN_0_0_4)


def _scopes() -> Iterator[tuple[str, Limits]]:
    yield from ((key.public_id, key) for key in services().keys.all())
    yield from ((owner_scope(owner.id), owner) for owner in services().owners.all())
