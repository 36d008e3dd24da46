"""One service for one prefix: a key in Redis says whose the names are.

Two services with the same names would run each other's calls with their own provider keys. They
differ in their pepper, so its fingerprint is the mark.
"""

from __future__ import annotations

import hashlib
import hmac

from redis import Redis

from gateway.queue import keys
from gateway.settings import ConfigurationError


def fingerprint(pepper: str) -> bytes:
    """Return what Redis may know of a pepper: enough to tell two apart."""
    return (
        hmac.new(pepper.encode(), b"owner of names in Redis", hashlib.sha256).hexdigest().encode()
    )


def check(redis: Redis, pepper: str, old_pepper: str = "") -> None:
    """Raise ConfigurationError if processes of another service run under this prefix.

    Those with the old pepper are this service's. Raises RedisError.
    """
    owner = redis.get(keys.OWNER)
    if owner in (None, fingerprint(pepper)) or old_pepper and owner == fingerprint(old_pepper):
        return
    if next(redis.scan_iter(match=keys.lease("*"), count=1000), None) is not None:
        raise ConfigurationError(
            "REDIS_PREFIX must be set to a name of this service's own: a service with another "
            f"KEY_PEPPER runs on this Redis with the prefix {keys.PREFIX!r}"
        )


def take(redis: Redis, pepper: str, old_pepper: str = "") -> None:
    """Mark the names as this service's; what `check` raises."""
    if not redis.set(keys.OWNER, fingerprint(pepper), nx=True):
        check(redis, pepper, old_pepper)
        redis.set(keys.OWNER, fingerprint(pepper))
