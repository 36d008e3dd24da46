"""What every response carries, whoever made it: its request id, and CORS where it is allowed."""

from __future__ import annotations

import re
import uuid

from flask import Flask, Response, g, request

REQUEST_ID = re.compile(r"[\w-]{1,64}", re.ASCII)
HEADER_NAME = re.compile(r"[\w-]{1,64}", re.ASCII)
EXPOSED = "X-Request-Id, Retry-After, x-should-retry, X-Ignored-Parameters, Warning, request-id"
PREFLIGHT_SECONDS = "600"


def register(app: Flask, origins: tuple[str, ...]) -> None:
    """Add the headers to every response; `origins` may call from a browser ("*": any)."""

    @app.before_request
    def answer_preflight() -> Response | None:
        given = request.headers.get("X-Request-Id", "")
        g.request_id = given if REQUEST_ID.fullmatch(given) else uuid.uuid4().hex
        asked = request.headers.get("Access-Control-Request-Method")
        if request.method == "OPTIONS" and asked and _allowed(origins):
            return Response(status=204, headers=_preflight())
        return None

    @app.after_request
    def add_headers(response: Response) -> Response:
        response.headers["X-Request-Id"] = g.get("request_id") or uuid.uuid4().hex
        response.headers["X-Content-Type-Options"] = "nosniff"
        if origins:
            response.headers.add("Vary", "Origin")
            if _allowed(origins):
                response.headers["Access-Control-Allow-Origin"] = request.headers["Origin"]
                response.headers["Access-Control-Expose-Headers"] = EXPOSED
        return response


def _allowed(origins: tuple[str, ...]) -> bool:
    origin = request.headers.get("Origin")
    return bool(origin) and (origin in origins or "*" in origins)


def _preflight() -> dict[str, str]:
    # OpenAI's JavaScript client sends a dozen headers of its own: what is asked for is allowed.
    asked = request.headers.get("Access-Control-Request-Headers", "")
    names = [name for name in re.split(r"[,\s]+", asked) if HEADER_NAME.fullmatch(name)]
    return {
        "Access-Control-Allow-Methods": "GET, POST",
        "Access-Control-Allow-Headers": ", ".join(names[:64]) or "Authorization, Content-Type",
        "Access-Control-Max-Age": PREFLIGHT_SECONDS,
    }
