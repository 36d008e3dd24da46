"""Measures each request, from its head to the end of its response."""

from __future__ import annotations

import time
from functools import partial

from flask import Flask, Request, Response, g, request

from api.http import line
from gateway.metrics.families import HTTP_DURATION
from gateway.metrics.labels import METHODS, one_of
from gateway.metrics.reporter import Reporter

UNMATCHED = "unmatched"  # in place of a route: there is no such address


def register(app: Flask, reporter: Reporter) -> None:
    """Count every request of the app by method, route and status, and time it."""

    @app.after_request
    def end(response: Response) -> Response:
        began = g.get("began")
        current: Request = request._get_current_object()  # type: ignore[attr-defined]
        # A line of a batch is no request over HTTP.
        if began is not None and line.the_line() is None:
            rule = current.url_rule
            labels = (
                one_of(METHODS, current.method),
                UNMATCHED if rule is None else rule.rule,
                str(response.status_code),
            )
            response.call_on_close(partial(_note, reporter, labels, began))
        return response


def _note(reporter: Reporter, labels: tuple[str, ...], began: float) -> None:
    microseconds = int((time.monotonic() - began) * 1e6)
    reporter.counts.observe(HTTP_DURATION, labels, microseconds)
    reporter.recent.add(time.time() * 1000, [(f"http {labels[2][0]}xx", 1)])
