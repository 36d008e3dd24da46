"""Sign-in and sign-out: with a key, or with a link that works once."""

from __future__ import annotations

import re
from urllib.parse import urlsplit

from flask import Response, request, url_for

from api.console import session
from api.console.page import console, page, see_other
from api.http.auth import authenticate, public
from api.services import services
from gateway.account import sign_in_links
from gateway.account.api_keys import KeyRecord
from gateway.errors import AuthenticationFailed, GatewayError, InvalidRequest

TOKEN = re.compile(r"[\w-]{20,100}", re.ASCII)
USED = "This link has been used or has expired. Sign in with a key."


@console.get("/console", strict_slashes=False)
@session.signed_in
def home(key: object) -> Response:
    """The first page of somebody who is signed in."""
    return see_other(url_for("console.playground"))


@console.get("/console/sign-in")
@public
def sign_in() -> Response:
    """The form, or with a link's token the button that uses it."""
    return _form()


@console.post("/console/sign-in")
@public
def submit_sign_in() -> Response:
    """Start a session for the key in the form, or for that of a link."""
    try:
        session.check_token(session.form_token(request.cookies.get(session.FORM_COOKIE, "")))
        link, typed = (request.form.get(name, "").strip() for name in ("link", "key"))
        if not link and not typed:
            raise InvalidRequest("Enter an API key.")
        session.count_attempt()
        if link:
            key = _linked(link)
        else:
            key = authenticate(services().keys, None, typed, services().settings.admin_key)
    except GatewayError as error:
        return _form(error)
    session.uncount_attempt()
    return session.start(see_other(_next()), key)


@console.post("/console/sign-out")
@session.signed_in
def sign_out(key: object) -> Response:
    """End the session."""
    return session.end(see_other(url_for("console.sign_in")))


def _linked(token: str) -> KeyRecord:
    """The key that a link signs in, once; raises AuthenticationFailed."""
    public_id = sign_in_links.use(services().broker.redis, token)
    key = session.valid_record(public_id) if public_id else None
    if key is None:
        raise AuthenticationFailed(USED)
    return key


def _form(error: GatewayError | None = None) -> Response:
    id = session.new_form(request.cookies.get(session.FORM_COOKIE))
    link = request.args.get("link", "") if error is None else ""
    response = page(
        "sign_in.html",
        error.status if error else 200,
        error=error.message if error else "",
        token=session.form_token(id),
        link=link if TOKEN.fullmatch(link) else "",
        next=_next(),
    )
    session.set_cookie(response, session.FORM_COOKIE, id)
    return response


def _next() -> str:
    """The page of the console that was asked for first."""
    path = request.values.get("next", "")
    url = urlsplit(path)
    ours = not url.scheme and not url.netloc and url.path.startswith(f"{session.PATH}/")
    return path if ours and path.isprintable() and "\\" not in path else url_for("console.home")
