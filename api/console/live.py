"""Live: calls per second, times, errors, workers and slots of the last minute, as they change."""

from __future__ import annotations

import time
from datetime import UTC, datetime
from typing import Any

import orjson
from flask import Response, url_for

from api.console import charts, formats
from api.console.page import console, fragment, page
from api.console.session import operators
from api.console.stream import stream
from api.http import sse
from api.services import services
from gateway.account.api_keys import KeyRecord
from gateway.metrics.live import snapshot

LOOK_SECONDS = 1.0
NEWEST = "console live"  # the figures that all viewers of this process share
MODELS = 8  # of the table


@console.get("/console/live")
@operators
def live(key: KeyRecord) -> Response:
    """The page, which keeps itself up to date."""
    return page("live.html", figures=_figures()[1], stream=url_for("console.live_stream"))


@console.get("/console/live/stream")
@operators
def live_stream(key: KeyRecord) -> Response:
    """The figures as server-sent events, one a second."""
    sent = 0.0

    def look() -> bytes | None:
        nonlocal sent
        rendered_at, html = _figures()
        if rendered_at == sent:
            return None
        sent = rendered_at
        return sse.event(orjson.dumps({"html": html}), "figures")

    return stream(look, LOOK_SECONDS)


def _figures() -> tuple[float, str]:
    """When the figures were made, and their HTML; made anew once a second, for all viewers."""
    pages, now = services().pages, time.monotonic()
    rendered_at, html = pages.get(NEWEST, (-LOOK_SECONDS, ""))
    if now - rendered_at >= LOOK_SECONDS * 0.9:
        # Before Redis is asked: viewers that come meanwhile get the figures before these.
        pages[NEWEST] = now, html
        figures = snapshot(services().broker.redis)
        html = fragment("figures.html", now=figures, chart=_chart(figures), most=MODELS)
        rendered_at = now
        pages[NEWEST] = now, html
    return rendered_at, html


def _chart(figures: dict[str, Any]) -> charts.Chart:
    slots = figures["series"]
    series = {
        "completed": [slot["calls"] - slot["failed"] for slot in slots],
        charts.FAILED: [slot["failed"] for slot in slots],
    }
    labels = [f"{datetime.fromtimestamp(slot['at'], UTC):%H:%M:%S}" for slot in slots]
    return charts.stacked(labels, series, formats.short)
