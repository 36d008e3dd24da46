"""Authenticates a request by the API key in its Authorization or x-api-key header."""

from __future__ import annotations

import functools
import hmac
from collections.abc import Callable
from typing import Any, TypeAlias

from flask import g, request
from redis.exceptions import RedisError

from api.http.line import the_line
from api.services import services
from gateway.account.api_keys import KeyRecord, KeyStore
from gateway.account.record_store import ADMIN, Actor
from gateway.errors import AuthenticationFailed, PermissionDenied, QueueUnavailable

MISSING = (
    "You didn't provide an API key. You need to provide your API key in an Authorization header "
    "using Bearer auth (i.e. Authorization: Bearer YOUR_KEY)."
)
NO_BEARER = "Incorrect Authorization header. Expected: Authorization: Bearer YOUR_KEY."
LONGEST_HEADER = 256  # characters; a key of this service has 75
LONGEST_FORWARDED = 200  # characters of X-Forwarded-For that the audit log keeps
# Access that the key does not have -> why.
REFUSED = {
    "key": "An operator key calls no model. Use an ordinary API key.",
    "operator": "This needs an operator key: flask keys create --operator NAME.",
}


class MissingKey(AuthenticationFailed):
    """Raised when there is no key at all. OpenAI's error for that has no code."""

    code = None
    message = MISSING


def authenticate(
    keys: KeyStore, header: str | None, plain: str | None = None, admin_key: str = ""
) -> KeyRecord:
    """The record of the key in an Authorization header or, without one, of a plain key.

    `admin_key` is a key as well: that of an operator without a record in Redis. Raises
    AuthenticationFailed, and QueueUnavailable if Redis does not answer.
    """
    if not header and not plain:
        raise MissingKey
    # Only one key is looked up, even if both headers are present.
    scheme, _, key = header.partition(" ") if header else ("bearer", "", plain or "")
    if scheme.lower() != "bearer":
        raise AuthenticationFailed(NO_BEARER)
    if len(header or key) > LONGEST_HEADER:
        raise AuthenticationFailed("Incorrect API key provided: ***.")
    if admin_key and hmac.compare_digest(admin_key.encode(), key.encode()):
        return admin()
    try:
        return keys.verify(key)
    except RedisError as error:
        raise QueueUnavailable(retry_after=2) from error


def admin() -> KeyRecord:
    """The record of ADMIN_KEY, which Redis does not have."""
    return KeyRecord(ADMIN, name=ADMIN, hmac="", operator=True)


View: TypeAlias = Callable[..., Any]


def keyed(view: View) -> View:
    """A view that is called with the caller's KeyRecord as its first argument.

    An operator key is refused, as OpenRouter refuses its management keys: it would cost more to
    lose if it could be used in clients.
    """
    return _with_key(view, "key")


def operator(view: View) -> View:
    """A view for operators, called with the KeyRecord of an operator key or of ADMIN_KEY."""
    return _with_key(view, "operator")


def reader(view: View) -> View:
    """A view for callers and operators, called with the KeyRecord of either."""
    return _with_key(view, "reader")


def public(view: View) -> View:
    """Mark a view that needs no key. A test fails for a route of none of these four kinds."""
    view.access = "public"  # type: ignore[attr-defined]
    return view


def actor(key: KeyRecord) -> Actor:
    """Who changes something with the present request, for the audit log."""
    forwarded = request.headers.get("X-Forwarded-For", "")[:LONGEST_FORWARDED]
    text = "".join(char for char in forwarded if char.isprintable())
    return Actor(key.public_id, request.remote_addr or "", text)


def _with_key(view: View, access: str) -> View:
    @functools.wraps(view)
    def checked(*args: Any, **kwargs: Any) -> Any:
        line, installed = the_line(), services()
        if line is not None:
            key = installed.keys.valid(line.key_id)
            g.public_id = key.public_id
            return view(key, *args, **kwargs)
        headers = request.headers
        bearer, plain = headers.get("Authorization"), headers.get("x-api-key")
        key = authenticate(installed.keys, bearer, plain, installed.settings.admin_key)
        if key.operator and access == "key" or not key.operator and access == "operator":
            raise PermissionDenied(REFUSED[access])
        if key.operator and key.public_id != ADMIN:
            # Nothing else compares the record with the one in Redis, as submit does for calls.
            key = installed.keys.refresh(key)
        g.public_id = key.public_id
        return view(key, *args, **kwargs)

    checked.access = access  # type: ignore[attr-defined]
    return checked
