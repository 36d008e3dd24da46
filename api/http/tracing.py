"""The span of each HTTP request, until its response has ended."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from flask import Flask, Response, g, request

from gateway import tracing
from gateway.tracing import Tracing

if TYPE_CHECKING:
    from opentelemetry.trace import Span


def register(app: Flask, maker: Tracing | None) -> None:
    """Make a span of every request; without a maker, of none."""
    if maker is None:
        return

    @app.before_request
    def start() -> None:
        # Never the path itself, which may hold anything.
        route = request.url_rule.rule if request.url_rule is not None else None
        headers = request.headers
        parent = headers.get("traceparent", ""), headers.get("tracestate", "")
        g.span = maker.start(
            f"{request.method} {route or 'unknown'}",
            tracing.SERVER,
            tracing.received(*parent),
            {tracing.HTTP_METHOD: request.method, tracing.HTTP_ROUTE: route},
        )
        g.trace = maker.context(g.span)

    @app.after_request
    def follow(response: Response) -> Response:
        if (span := g.pop("span", None)) is not None:
            call = g.get("call")
            attributes = {
                tracing.HTTP_STATUS: response.status_code,
                tracing.REQUEST_ID: g.get("request_id"),
                tracing.KEY_ID: g.get("public_id"),
                tracing.CALL_ID: call.call_id if call is not None else None,
            }
            span.set_attributes({name: value for name, value in attributes.items() if value})
            if response.status_code >= 500:
                maker.fail(span, str(response.status_code))
            response.call_on_close(partial(_end, span))
        return response


def carried() -> dict[str, str]:
    """The context of the current request's span, for the call that it becomes."""
    context: dict[str, str] = g.get("trace") or {}
    return context


def _end(span: Span) -> None:
    span.end()
