"""GET /docs: the OpenAPI document as one page for people, without scripts or foreign files."""

from __future__ import annotations

import base64
import hashlib
from pathlib import Path

import orjson
from flask import Blueprint, Response, render_template

from api.http.auth import public
from api.openapi import document
from api.services import services

docs = Blueprint("docs", __name__, template_folder="templates")

STYLE = Path(__file__).parent / "templates" / "docs.css"
NOTHING_ELSE = "default-src 'none'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"


@docs.get("/docs")
@public
def show() -> Response:
    """The page; rendered when first asked for."""
    pages = services().pages
    if docs.name not in pages:
        pages[docs.name] = _page()
    page, policy = pages[docs.name]
    response = Response(page, content_type="text/html; charset=utf-8")
    response.headers["Content-Security-Policy"] = policy
    response.headers["Referrer-Policy"] = "no-referrer"
    return response


def _page() -> tuple[bytes, str]:
    """The page, and the content security policy that allows its style sheet and nothing else."""
    style = STYLE.read_text("utf-8")
    digest = base64.b64encode(hashlib.sha256(style.encode()).digest()).decode()
    page = render_template(
        "docs.html",
        document=orjson.loads(document.rendered()),
        style=style,
        spans=_spans,
    )
    return page.encode(), f"{NOTHING_ELSE}; style-src 'sha256-{digest}'"


def _spans(text: str) -> list[tuple[bool, str]]:
    """The pieces of a text, each with whether it stood between backticks."""
    return [(bool(index % 2), piece) for index, piece in enumerate(text.split("`"))]
