"""Who is signed in to the console: a signed cookie, a session in Redis, and tokens against CSRF.

The cookie holds the public id of a key, the id of the session, and a mark of the hash of the secret
that signed in. So a session ends when it is signed out, when its key is revoked, disabled or
expired, and when that secret is no longer valid. The secret itself is stored nowhere.
"""

from __future__ import annotations

import functools
import hashlib
import hmac
import secrets
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeAlias

from flask import Response, g, request
from itsdangerous import BadSignature, URLSafeSerializer

from api.http.auth import admin
from api.services import services
from gateway.account.api_keys import KeyRecord
from gateway.account.record_store import ADMIN
from gateway.errors import AuthenticationFailed, PermissionDenied, RateLimited
from gateway.queue import keys

PATH = "/console"
COOKIE = "console_session"
FORM_COOKIE = "console_form"  # what the token of the sign-in form belongs to
TOKEN_FIELD, TOKEN_HEADER = "csrf_token", "X-CSRF-Token"
LONGEST_FORM = 128_000  # bytes
# Failed attempts to sign in within SIGN_IN_SECONDS: of a client, and over one connection's address,
# which may be that of a proxy. The client's is what the nearest proxy says.
CLIENT_ATTEMPTS, ADDRESS_ATTEMPTS = 10, 100
MAX_SESSIONS = 100  # of a key
LONGEST_ADDRESS = 64  # characters

View: TypeAlias = Callable[..., Any]


EXPIRED = "This form has expired. Load the page again."
TOO_MANY = "Too many failed attempts. Try again in a few minutes."


class SignInRequired(AuthenticationFailed):
    """Raised where nobody is signed in, or no longer."""

    code = None
    message = "You are signed out. Sign in again."


@dataclass(frozen=True, slots=True)
class Session:
    """Somebody who is signed in, with the key's record as Redis has it now."""

    id: str
    key: KeyRecord

    @property
    def token(self) -> str:
        """What forms and scripts of this session send along."""
        return form_token(self.id)


def signed_in(view: View) -> View:
    """A view for everybody who is signed in, called with their KeyRecord."""
    return _with_session(view, "session")


def operators(view: View) -> View:
    """A view for operators who are signed in, called with their KeyRecord."""
    return _with_session(view, "operator session")


def _with_session(view: View, access: str) -> View:
    @functools.wraps(view)
    def checked(*args: Any, **kwargs: Any) -> Any:
        session = current()
        if session is None:
            raise SignInRequired
        g.session = session
        g.public_id = session.key.public_id
        if request.method not in ("GET", "HEAD"):
            check_token(session.token)
        if access == "operator session" and not session.key.operator:
            raise PermissionDenied("This page needs an operator key.")
        return view(session.key, *args, **kwargs)

    checked.access = access  # type: ignore[attr-defined]
    return checked


def start(response: Response, key: KeyRecord) -> Response:
    """Sign this key in with a new session, whose cookie the response sets.

    A key has MAX_SESSIONS: the oldest of more ends. Raises RedisError.
    """
    id = secrets.token_urlsafe(24)
    redis: Any = services().broker.redis  # its types join the results of all clients
    index = keys.console_sessions(key.public_id)
    with redis.pipeline() as pipeline:
        pipeline.set(keys.console_session(id), key.public_id, ex=keys.CONSOLE_SESSION_SECONDS)
        pipeline.zadd(index, {id: time.time()})
        pipeline.expire(index, keys.CONSOLE_SESSION_SECONDS)
        pipeline.zrange(index, 0, -MAX_SESSIONS - 1)
        oldest = pipeline.execute()[-1]
    if oldest:
        redis.delete(*(keys.console_session(each.decode()) for each in oldest))
        redis.zrem(index, *oldest)
    value = _signer().dumps([key.public_id, id, _mark(key.hmac or services().settings.admin_key)])
    set_cookie(response, COOKIE, value)
    return response


def end(response: Response) -> Response:
    """Sign out: end the session of this request, if there is one. Raises RedisError."""
    if (session := current()) is not None:
        services().broker.redis.delete(keys.console_session(session.id))
    response.delete_cookie(COOKIE, path=PATH)
    return response


def current() -> Session | None:
    """The session of this request, if its key is still valid. Raises RedisError."""
    try:
        public_id, id, mark = _signer().loads(request.cookies.get(COOKIE, ""))
    except (BadSignature, ValueError, TypeError):
        return None
    redis = services().broker.redis
    if redis.getex(keys.console_session(id), ex=keys.CONSOLE_SESSION_SECONDS) is None:
        return None
    key = valid_record(public_id)
    if key is None or not any(hmac.compare_digest(mark, each) for each in _marks(key)):
        return None
    return Session(id, key)


def valid_record(public_id: str) -> KeyRecord | None:
    """The record of a key, as Redis has it now; None if it is not valid. Raises RedisError."""
    if public_id == ADMIN:
        return admin() if services().settings.admin_key else None
    record = services().keys.get(public_id)
    return record if record is not None and record.valid(time.time()) else None


def new_form(response_cookie: str | None) -> str:
    """What the token of a form without a session belongs to; it goes into FORM_COOKIE."""
    return response_cookie or secrets.token_urlsafe(24)


def form_token(id: str) -> str:
    """The token of the forms of a session, or of the sign-in form of a FORM_COOKIE."""
    return _mac(f"csrf {id}")


def check_token(expected: str) -> None:
    """Raise PermissionDenied unless the request comes from a page of ours, with this token."""
    if request.headers.get("Sec-Fetch-Site", "same-origin") not in ("same-origin", "none"):
        raise PermissionDenied(EXPIRED)
    sent = request.headers.get(TOKEN_HEADER)
    if sent is None:
        request.max_content_length = LONGEST_FORM
        sent = request.form.get(TOKEN_FIELD, "")
    if not hmac.compare_digest(sent.encode(), expected.encode()):
        raise PermissionDenied(EXPIRED)


def set_cookie(response: Response, name: str, value: str) -> None:
    """Set a cookie for the console that no script reads and no other site sends."""
    secure = request.is_secure or request.headers.get("X-Forwarded-Proto") == "https"
    response.set_cookie(name, value, path=PATH, httponly=True, samesite="Lax", secure=secure)


def count_attempt() -> None:
    """Count an attempt to sign in; raise RateLimited, or RedisError."""
    with services().broker.redis.pipeline() as pipeline:
        for name, _ in _counters():
            pipeline.set(name, 0, ex=keys.SIGN_IN_SECONDS, nx=True)
            pipeline.incr(name)
        counts = pipeline.execute()[1::2]
    limits = (limit for _, limit in _counters())
    if any(count > limit for count, limit in zip(counts, limits, strict=True)):
        raise RateLimited(TOO_MANY, retry_after=keys.SIGN_IN_SECONDS)


def uncount_attempt() -> None:
    """Take an attempt back that was none of a wrong key. Raises RedisError."""
    with services().broker.redis.pipeline() as pipeline:
        for name, _ in _counters():
            pipeline.set(name, 1, ex=keys.SIGN_IN_SECONDS, nx=True)  # it may just have expired
            pipeline.decr(name)
        pipeline.execute()


def _counters() -> list[tuple[str, int]]:
    address = request.remote_addr or ""
    client = request.headers.get("X-Forwarded-For", "").rpartition(",")[2].strip() or address
    return [
        (keys.console_sign_ins(f"client:{client[:LONGEST_ADDRESS]}"), CLIENT_ATTEMPTS),
        (keys.console_sign_ins(f"address:{address}"), ADDRESS_ATTEMPTS),
    ]


def _marks(key: KeyRecord) -> list[str]:
    """The marks of the secrets of this key that are valid now."""
    if key.public_id == ADMIN:
        return [_mark(services().settings.admin_key)]
    old = key.hmac_old if key.hmac_old_until > time.time() else ""
    return [_mark(each) for each in (key.hmac, old) if each]


def _mark(digest: str) -> str:
    return _mac(f"secret {digest}")[:32]


def _mac(text: str) -> str:
    return hmac.new(_secret(), text.encode(), hashlib.sha256).hexdigest()


def _signer() -> URLSafeSerializer:
    return URLSafeSerializer(_secret(), salt=COOKIE)


def _secret() -> bytes:
    """The key that signs cookies and tokens."""
    pepper = services().settings.key_pepper.encode()
    return hmac.new(pepper, b"console sessions", hashlib.sha256).digest()
