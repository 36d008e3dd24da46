"""Links that sign a key in to the console, once. Redis has only the hash of their token."""

from __future__ import annotations

import hashlib
import secrets
from typing import cast

from redis import Redis

from gateway.queue import keys


def make(redis: Redis, public_id: str) -> str:
    """Return a token that signs this key in, once. It expires. Raises RedisError."""
    token = secrets.token_urlsafe(32)
    redis.set(_name(token), public_id, ex=keys.CONSOLE_LINK_SECONDS)
    return token


def use(redis: Redis, token: str) -> str | None:
    """Return the public id that a token signs in, and use it up; None: it is none any more.

    Raises RedisError.
    """
    public_id = cast("bytes | None", redis.getdel(_name(token)))
    return None if public_id is None else public_id.decode()


def _name(token: str) -> str:
    return keys.console_link(hashlib.sha256(token.encode()).hexdigest())
