"""GET / and the base URL itself: what this is, and where its documentation is."""

from __future__ import annotations

from flask import Flask, Response, request, url_for

from api.http.auth import public
from api.http.json import json_response
from api.openapi import page
from gateway import SERVICE

SUMMARY = "An OpenAI-compatible gateway to large language models."


def register(app: Flask, prefix: str) -> None:
    """Serve the page at `prefix` and at every address above it, up to /."""
    while prefix:
        app.add_url_rule(prefix, "home", show, strict_slashes=False)
        prefix = prefix.rpartition("/")[0]
    app.add_url_rule("/", "home", show, strict_slashes=False)


@public
def show() -> Response:
    """The page for browsers, JSON for everybody else."""
    console, docs = url_for("console.home"), url_for("docs.show")
    if request.accept_mimetypes.best_match(["application/json", "text/html"]) == "text/html":
        text = page.render("home.html", summary=SUMMARY, console=console, docs=docs)
        response = page.respond(text)
    else:
        facts = {"service": SERVICE, "description": SUMMARY, "documentation": docs}
        response = json_response(facts)
    response.vary.add("Accept")
    return response
