"""Pages for people: with their style sheet inside, and a policy that allows nothing else."""

from __future__ import annotations

import base64
import hashlib
from functools import cache
from pathlib import Path
from typing import Any

from flask import Response, render_template

STYLE = Path(__file__).parent / "templates" / "docs.css"
NOTHING_ELSE = "default-src 'none'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"


def render(template: str, **values: Any) -> bytes:
    """The page that the template makes of these values and of `style`, the style sheet."""
    return render_template(template, style=_style(), **values).encode()


def respond(page: bytes) -> Response:
    """The page as a response that may load and run nothing but its own style sheet."""
    digest = base64.b64encode(hashlib.sha256(_style().encode()).digest()).decode()
    response = Response(page, content_type="text/html; charset=utf-8")
    response.headers["Content-Security-Policy"] = f"{NOTHING_ELSE}; style-src 'sha256-{digest}'"
    response.headers["Referrer-Policy"] = "no-referrer"
    return response


@cache
def _style() -> str:
    return STYLE.read_text("utf-8")
