"""Authenticates a request by the API key in its Authorization or x-api-key header."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

from flask import g, request
from redis.exceptions import RedisError

from api.services import services
from gateway.account.api_keys import KeyRecord, KeyStore
from gateway.errors import AuthenticationFailed, QueueUnavailable

MISSING = (
    "You didn't provide an API key. You need to provide your API key in an Authorization header "
    "using Bearer auth (i.e. Authorization: Bearer YOUR_KEY)."
)
LONGEST_HEADER = 256  # characters; a key of this service has 75


class MissingKey(AuthenticationFailed):
    """Raised when there is no key at all. OpenAI's error for that has no code."""

    code = None
    message = MISSING


def authenticate(keys: KeyStore, header: str | None, plain: str | None = None) -> KeyRecord:
    """The record of the key in an Authorization header or, without one, of a plain key.

    Raises AuthenticationFailed, and QueueUnavailable if Redis does not answer.
    """
    if not header and not plain:
        raise MissingKey
    # Only one key is looked up, even if both headers are present.
    scheme, _, key = header.partition(" ") if header else ("bearer", "", plain or "")
    if scheme.lower() != "bearer" or len(header or key) > LONGEST_HEADER:
        raise AuthenticationFailed("Incorrect API key provided: ***.")
    try:
        return keys.verify(key)
    except RedisError as error:
        raise QueueUnavailable(retry_after=2) from error


def keyed(view: Callable[..., Any]) -> Callable[..., Any]:
    """A view that is called with the caller's KeyRecord as its first argument."""

    @functools.wraps(view)
    def checked(*args: Any, **kwargs: Any) -> Any:
        bearer, plain = request.headers.get("Authorization"), request.headers.get("x-api-key")
        key = authenticate(services().keys, bearer, plain)
        g.public_id = key.public_id
        return view(key, *args, **kwargs)

    checked.access = "key"  # type: ignore[attr-defined]
    return checked


def public(view: Callable[..., Any]) -> Callable[..., Any]:
    """Mark a view that needs no key. A test fails for a route that is neither public nor keyed."""
    view.access = "public"  # type: ignore[attr-defined]
    return view
