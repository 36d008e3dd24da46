"""GET /docs: the OpenAPI document as one page for people, without scripts or foreign files."""

from __future__ import annotations

import re
from html import escape

import orjson
from flask import Blueprint, Response, request

from api.http.auth import public
from api.openapi import document, page
from api.services import services

docs = Blueprint("docs", __name__, template_folder="templates")

# The caller writes the Host header: only what can be a host gets into the page.
HOST = re.compile(r"[\w.-]+(:\d+)?|\[[0-9a-f:]+\](:\d+)?", re.ASCII | re.IGNORECASE)


@docs.get("/docs")
@public
def show() -> Response:
    """The page, rendered once, with PUBLIC_URL or the address of the request in its examples."""
    pages = services().pages
    if docs.name not in pages:
        pages[docs.name] = _page()
    text: bytes = pages[docs.name]
    if public := services().settings.public_url.rstrip("/"):
        text = text.replace(b"$HOST", escape(public).encode())
    elif HOST.fullmatch(request.host):
        text = text.replace(b"$HOST", request.host_url.rstrip("/").encode())
    return page.respond(text)


def _page() -> bytes:
    catalogue = services().catalogue
    configured = catalogue.configured()
    return page.render(
        "docs.html",
        document=orjson.loads(document.rendered()),
        models=[(row, row.provider in configured) for row in catalogue.rows()],
        spans=_spans,
    )


def _spans(text: str) -> list[tuple[bool, str]]:
    """The pieces of a text, each with whether it stood between backticks."""
    return [(bool(index % 2), piece) for index, piece in enumerate(text.split("`"))]
