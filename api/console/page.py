"""Renders the console's pages: layout, navigation, headers, and errors."""

from __future__ import annotations

import contextlib
import functools
import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from flask import (
    Response,
    current_app,
    g,
    make_response,
    redirect,
    render_template,
    request,
    url_for,
)
from redis.exceptions import RedisError

from api.console import formats, session
from api.http import errors
from api.http.auth import public
from api.http.errors import ApiBlueprint
from gateway.errors import GatewayError, NotFound

STATIC = Path(__file__).parent / "static"
TYPES = {".css": "text/css", ".js": "text/javascript", ".svg": "image/svg+xml"}
YEAR = 365 * 86_400  # seconds
POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; "
    "connect-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
)
HEADERS = {
    "Content-Security-Policy": POLICY,
    # Not no-referrer: browsers would then send forms without their origin.
    "Referrer-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cache-Control": "no-store",
}
# Status -> title of the page of an error.
TITLES = {
    400: "That did not work",
    403: "Not allowed",
    404: "Not found",
    409: "That did not work",
    429: "Slow down",
    503: "Not available now",
}


@dataclass(frozen=True, slots=True)
class Entry:
    """An entry of the navigation: endpoint and label, which is also the name of its icon."""

    endpoint: str
    label: str
    operators: bool = False
    callers: bool = False


NAVIGATION = (
    Entry("playground", "Playground"),
    Entry("calls", "Calls"),
    Entry("usage", "Usage"),
    Entry("own_key", "Key", callers=True),
    Entry("keys", "Keys", operators=True),
    Entry("owners", "Owners", operators=True),
    Entry("models", "Models"),
    Entry("queue", "Queue", operators=True),
    Entry("live", "Live", operators=True),
    Entry("batches", "Batches"),
)


def error_page(error: GatewayError) -> Response:
    """An error as a page; signed out, the way to the sign-in; for scripts, OpenAI's envelope."""
    if "text/html" not in request.headers.get("Accept", ""):
        return errors.openai(error)
    if isinstance(error, session.SignInRequired) and request.method == "GET":
        return see_other(url_for("console.sign_in", next=request.full_path.rstrip("?")))
    if "session" not in g and error.status in (404, 405):  # an address that no view has
        with contextlib.suppress(RedisError):
            g.session = session.current()
    title = TITLES.get(error.status, "Something went wrong")
    return page("error.html", error.status, title=title, message=error.message)


console = ApiBlueprint("console", __name__, error_page, template_folder="templates")


def page(template: str, status: int = 200, **values: Any) -> Response:
    """The page that a template of `templates/console` makes of these values."""
    text = fragment(template, **values)
    return Response(text, status, HEADERS, content_type="text/html; charset=utf-8")


def fragment(template: str, **values: Any) -> str:
    """The text that a template of `templates/console` makes of these values."""
    signed_in = g.get("session")
    return render_template(
        f"console/{template}",
        session=signed_in,
        entries=_entries(signed_in.key.operator) if signed_in else (),
        asset=asset,
        **formats.FUNCTIONS,
        **values,
    )


def see_other(address: str) -> Response:
    """A redirect after a form, which the browser follows with GET."""
    response = make_response(redirect(address, 303))
    response.headers["Cache-Control"] = "no-store"
    return response


def done(texts: Mapping[str, str]) -> str:
    """Return which of these texts says what the last form has done; "" for none."""
    return texts.get(request.args.get("done", ""), "")


def asset(name: str) -> str:
    """The address of a file in `static`, which changes with its content."""
    return url_for("console.static", name=name, v=_files()[name].digest)


@console.get("/console/static/<name>")
@public
def static(name: str) -> Response:
    """A style sheet, script or image of the console."""
    file = _files().get(name)
    if file is None:
        raise NotFound("There is no such file.")
    response = Response(file.content, content_type=f"{TYPES[file.suffix]}; charset=utf-8")
    response.set_etag(file.digest)
    latest = request.args.get("v") == file.digest
    response.headers["Cache-Control"] = (
        f"public, max-age={YEAR}, immutable" if latest else "no-cache"
    )
    response.make_conditional(request)
    return response


@dataclass(frozen=True, slots=True)
class File:
    """A file in `static`."""

    content: bytes
    digest: str
    suffix: str


@functools.cache
def _files() -> dict[str, File]:
    files = {}
    for path in STATIC.iterdir():
        content = path.read_bytes()
        digest = hashlib.sha256(content).hexdigest()[:16]
        files[path.name] = File(content, digest, path.suffix)
    return files


def _entries(operator: bool) -> list[tuple[str, str, bool]]:
    """Address, label and whether this is the present page, of what somebody sees."""
    section = (request.endpoint or "").rpartition(".")[2]
    return [
        (url_for(f"console.{entry.endpoint}"), entry.label, section.startswith(entry.endpoint))
        for entry in NAVIGATION
        if not (entry.operators and not operator) and not (entry.callers and operator)
        if f"console.{entry.endpoint}" in current_app.view_functions
    ]
