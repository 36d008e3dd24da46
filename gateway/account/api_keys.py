"""API keys: their form, and the records that Redis holds of them.

`mk_inference_<public id, 12>_<secret, 43><checksum, 6>`, all base 62. The secret is 256 random
bits, so one keyed hash is as good as a slow one. The checksum tells a typo from a guess without
asking Redis. Redis keeps only the HMAC of the secret; its key (the pepper) is not in Redis.
"""

from __future__ import annotations

import hashlib
import hmac
import logging
import re
import secrets
import string
import time
import zlib
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import cast

from cachetools import TTLCache
from gevent.event import AsyncResult
from redis import Redis
from redis.exceptions import ConnectionError

from gateway.errors import AuthenticationFailed
from gateway.logs import Tally
from gateway.queue import keys

log = logging.getLogger(__name__)

PREFIX = "mk_inference_"
DIGITS = string.digits + string.ascii_uppercase + string.ascii_lowercase
PATTERN = re.compile(r"mk_inference_([0-9A-Za-z]{12})_([0-9A-Za-z]{43})([0-9A-Za-z]{6})", re.ASCII)

CACHE_SECONDS = 10.0
CACHE_KEYS = 10_000


@dataclass(frozen=True, slots=True)
class KeyRecord:
    """One API key as the operator sees it; times are seconds since 1970, 0 for never."""

    public_id: str
    name: str
    hmac: str
    created: int = 0
    last_used: int = 0
    revoked: int = 0
    version: int = 0
    owner: str = ""


def base62(number: int, length: int) -> str:
    """Return `number` in base 62, most significant digit first, padded to `length` digits."""
    digits = []
    for _ in range(length):
        number, digit = divmod(number, 62)
        digits.append(DIGITS[digit])
    return "".join(reversed(digits))


def checksum(public_id: str, secret: str) -> str:
    """Return the last six digits of a key: the CRC-32 of everything before them, in base 62."""
    return base62(zlib.crc32(f"{PREFIX}{public_id}_{secret}".encode()), 6)


def parse(key: str) -> tuple[str, str]:
    """Return public id and secret of a well-formed key; raise AuthenticationFailed for others."""
    match = PATTERN.fullmatch(key)
    if match is None:
        raise AuthenticationFailed("Incorrect API key provided: ***.")
    if not hmac.compare_digest(match[3], checksum(match[1], match[2])):
        raise AuthenticationFailed(incorrect(match[1]))
    return match[1], match[2]


class KeyStore:
    """Creates, verifies and revokes keys. All methods raise RedisError if Redis is away."""

    def __init__(self, redis: Redis, pepper: str, clock: Callable[[], float] = time.time) -> None:
        self._redis = redis
        self._pepper = pepper.encode()
        self._clock = clock
        # Unknown ids too: otherwise the time of a refusal would tell which ids exist.
        self._cache: TTLCache[str, KeyRecord | None] = TTLCache(
            CACHE_KEYS, CACHE_SECONDS, timer=lambda: time.monotonic()
        )
        self._failed = Tally(log, "keys: not read: %s")
        self._reads: dict[str, AsyncResult] = {}  # on their way, by public id

    def create(self, name: str) -> str:
        """Create a key and return it whole. Redis only keeps a hash of it."""
        public_id = base62(secrets.randbelow(62**12), 12)
        secret = base62(secrets.randbits(256), 43)
        fields = {"hmac": self._hmac(secret), "name": name, "created": int(self._clock())}
        self._redis.hset(keys.key(public_id), mapping=fields)  # type: ignore[arg-type]
        return f"{PREFIX}{public_id}_{secret}{checksum(public_id, secret)}"

    def verify(self, key: str) -> KeyRecord:
        """Return the record of a valid key; raise AuthenticationFailed, alike for every reason.

        A record is cached for CACHE_SECONDS. The submit script compares it with the one in Redis,
        so that calls with a revoked key are refused at once. Requests that come while a record is
        being read share that read: on their own they would wait for the pool's few connections.
        """
        public_id, secret = parse(key)
        record = self._find(public_id)
        expected = record.hmac if record else self._hmac("")
        matches = hmac.compare_digest(expected, self._hmac(secret))
        if record is None or not matches or record.revoked:
            raise AuthenticationFailed(incorrect(public_id))
        return record

    def revoke(self, public_id: str) -> bool:
        """Refuse the key from now on; return whether there is such a key."""
        if not self._redis.exists(keys.key(public_id)):
            return False
        self._redis.hset(keys.key(public_id), "revoked", str(int(self._clock())))
        self._cache.pop(public_id, None)
        return True

    def all(self) -> Iterator[KeyRecord]:
        """Yield every key, in no order. It scans Redis: for commands, not for requests."""
        for name in self._redis.scan_iter(match=keys.key("*"), count=1000):
            public_id = str(name, "ascii").rpartition(":")[2]
            record = self._read(public_id)
            if record is not None:
                yield record

    def _find(self, public_id: str) -> KeyRecord | None:
        try:
            return self._cache[public_id]
        except KeyError:
            pass
        if public_id in self._reads:
            shared: KeyRecord | None = self._reads[public_id].get()
            return shared
        read = self._reads[public_id] = AsyncResult()
        try:
            record = self._cache[public_id] = self._read(public_id)
            read.set(record)
            return record
        except Exception as error:
            self._failed.add(type(error).__name__)
            read.set_exception(error)
            raise
        finally:
            del self._reads[public_id]
            if not read.ready():  # this greenlet was killed
                read.set_exception(ConnectionError("the read of the key was broken off"))

    def _read(self, public_id: str) -> KeyRecord | None:
        fields = cast("dict[bytes, bytes]", self._redis.hgetall(keys.key(public_id)))
        if not fields or b"hmac" not in fields:
            return None
        names = ("created", "last_used", "revoked", "version")
        numbers = {k: int(fields.get(k.encode(), 0)) for k in names}
        return KeyRecord(
            public_id,
            fields.get(b"name", b"").decode(),
            fields[b"hmac"].decode(),
            owner=fields.get(b"owner", b"").decode(),
            **numbers,
        )

    def _hmac(self, secret: str) -> str:
        return hmac.new(self._pepper, secret.encode(), hashlib.sha256).hexdigest()


def revoked(redis: Redis, public_ids: Iterable[str]) -> set[str]:
    """Return which of these keys are revoked, in one round trip. Raises RedisError."""
    names = list(public_ids)
    with redis.pipeline(transaction=False) as pipeline:
        for name in names:
            pipeline.hget(keys.key(name), "revoked")
        values = pipeline.execute()
    return {name for name, value in zip(names, values, strict=True) if value}


def incorrect(public_id: str) -> str:
    """Return the message for a refused key; it shows four characters of the public id."""
    return f"Incorrect API key provided: {PREFIX}{public_id[:4]}***."
