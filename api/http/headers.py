"""Headers of every response: its request id, its call's and, where allowed, CORS."""

from __future__ import annotations

import os
import re
import time
from typing import Any

from flask import Flask, Request, Response, g, request

from api.http import limits, request_log

REQUEST_ID = re.compile(r"[\w-]{1,64}", re.ASCII)
HEADER_NAME = re.compile(r"[\w-]{1,64}", re.ASCII)
EXPOSED = (
    "X-Request-Id, X-Generation-Id, Retry-After, retry-after-ms, x-should-retry, x-limit-name, "
    "x-limit-scope, x-limit-reset, x-ratelimit-limit-requests, x-ratelimit-remaining-requests, "
    "x-ratelimit-reset-requests, x-ratelimit-limit-tokens, x-ratelimit-remaining-tokens, "
    "x-ratelimit-reset-tokens, X-Cache, X-Max-Tokens-Capped, X-Ignored-Parameters, X-Token-Count, "
    "Idempotent-Replayed, Warning, Deprecation, Sunset, request-id"
)
PREFLIGHT_SECONDS = "600"


def register(app: Flask, origins: tuple[str, ...]) -> None:
    """Add the headers to every response; browsers may call from `origins` ("*": from any)."""

    @app.before_request
    def answer_preflight() -> Response | None:
        current: Request = request._get_current_object()  # type: ignore[attr-defined]
        state: Any = g._get_current_object()
        request_id = current.headers.get("X-Request-Id", "")
        state.began = time.monotonic()
        state.request_id = request_id if REQUEST_ID.fullmatch(request_id) else os.urandom(16).hex()
        if current.method == "OPTIONS" and _allowed(origins):
            if current.headers.get("Access-Control-Request-Method"):
                return Response(status=204, headers=_preflight())
        return None

    @app.after_request
    def add_headers(response: Response) -> Response:
        state: Any = g._get_current_object()
        headers = response.headers
        headers.add("X-Request-Id", state.get("request_id") or os.urandom(16).hex())
        headers.add("X-Content-Type-Options", "nosniff")
        if (call := state.get("call")) is not None:  # it has become one: see api/handler.py
            for name, value in limits.headers(call).items():
                headers.add(name, value)
        if origins:
            headers.add("Vary", "Origin")
            if _allowed(origins):
                headers.add("Access-Control-Allow-Origin", request.headers["Origin"])
                headers.add("Access-Control-Expose-Headers", EXPOSED)
        request_log.follow(response)
        return response


def _allowed(origins: tuple[str, ...]) -> bool:
    origin = request.headers.get("Origin")
    return bool(origin) and (origin in origins or "*" in origins)


def _preflight() -> dict[str, str]:
    # OpenAI's JavaScript client sends a dozen headers of its own: all requested ones are allowed.
    requested = request.headers.get("Access-Control-Request-Headers", "")
    names = [name for name in re.split(r"[,\s]+", requested) if HEADER_NAME.fullmatch(name)]
    return {
        "Access-Control-Allow-Methods": "GET, POST, PATCH, DELETE",
        "Access-Control-Allow-Headers": ", ".join(names[:64]) or "Authorization, Content-Type",
        "Access-Control-Max-Age": PREFLIGHT_SECONDS,
    }
