"""API keys: how they look, and the records that Redis holds of them.

`mk_inference_<public id, 12>_<secret, 43><checksum, 6>`, all base 62. The secret is 256 random
bits, so one keyed hash is as good as a slow one; the checksum lets a typo be told from a guess
without asking Redis. Only the HMAC of the secret is kept, and its key (the pepper) is not in Redis.
"""

from __future__ import annotations

import hashlib
import hmac
import re
import secrets
import string
import time
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import cast

from redis import Redis

from gateway.errors import AuthenticationFailed
from gateway.queue import keys

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


def base62(number: int, length: int) -> str:
    """`number` in base 62, most significant digit first, padded to `length`."""
    digits = []
    for _ in range(length):
        number, digit = divmod(number, 62)
        digits.append(DIGITS[digit])
    return "".join(reversed(digits))


def checksum(public_id: str, secret: str) -> str:
    """Six base-62 digits of the CRC-32 over all that stands before them."""
    return base62(zlib.crc32(f"{PREFIX}{public_id}_{secret}".encode()), 6)


def parse(key: str) -> tuple[str, str]:
    """Public id and secret of a well-formed key; raises AuthenticationFailed."""
    match = PATTERN.fullmatch(key)
    if match is None:
        raise AuthenticationFailed("Incorrect API key provided: ***.")
    if not hmac.compare_digest(match[3], checksum(match[1], match[2])):
        raise AuthenticationFailed(incorrect(match[1]))
    return match[1], match[2]


class KeyStore:
    """Creates, finds and revokes keys."""

    def __init__(self, redis: Redis, pepper: str, clock: Callable[[], float] = time.time) -> None:
        self._redis = redis
        self._pepper = pepper.encode()
        self._clock = clock
        self._cache: dict[str, tuple[float, KeyRecord | None]] = {}

    def create(self, name: str) -> str:
        """A new key, whole. It is shown here and never again."""
        public_id = base62(secrets.randbelow(62**12), 12)
        secret = base62(secrets.randbits(256), 43)
        fields = {"hmac": self._hmac(secret), "name": name, "created": int(self._clock())}
        self._redis.hset(keys.key(public_id), mapping=fields)  # type: ignore[arg-type]
        return f"{PREFIX}{public_id}_{secret}{checksum(public_id, secret)}"

    def verify(self, key: str) -> KeyRecord:
        """The record of a good key; raises AuthenticationFailed, the same for every reason.

        A record is remembered for CACHE_SECONDS; the submit script compares it with the one in
        Redis once more, so that a revoked key is refused at once.
        """
        public_id, secret = parse(key)
        record = self._find(public_id)
        expected = record.hmac if record else self._hmac("")
        matches = hmac.compare_digest(expected, self._hmac(secret))
        if record is None or not matches or record.revoked:
            raise AuthenticationFailed(incorrect(public_id))
        return record

    def revoke(self, public_id: str) -> bool:
        """Whether there is such a key; from now on it is refused."""
        if not self._redis.exists(keys.key(public_id)):
            return False
        self._redis.hset(keys.key(public_id), "revoked", str(int(self._clock())))
        self._cache.pop(public_id, None)
        return True

    def all(self) -> Iterator[KeyRecord]:
        """Every key, in no order. Scans Redis: for commands, not for requests."""
        for name in self._redis.scan_iter(match=keys.key("*"), count=1000):
            public_id = str(name, "ascii").rpartition(":")[2]
            record = self._read(public_id)
            if record is not None:
                yield record

    def _find(self, public_id: str) -> KeyRecord | None:
        now = time.monotonic()
        known = self._cache.get(public_id)
        if known is not None and known[0] > now:
            return known[1]
        record = self._read(public_id)
        # Unknown ids too: otherwise the time of a refusal would tell which ids exist.
        if len(self._cache) >= CACHE_KEYS:
            self._cache.clear()
        self._cache[public_id] = (now + CACHE_SECONDS, record)
        return record

    def _read(self, public_id: str) -> KeyRecord | None:
        fields = cast("dict[bytes, bytes]", self._redis.hgetall(keys.key(public_id)))
        if not fields or b"hmac" not in fields:
            return None
        numbers = {k: int(fields.get(k.encode(), 0)) for k in ("created", "last_used", "revoked")}
        return KeyRecord(
            public_id, fields.get(b"name", b"").decode(), fields[b"hmac"].decode(), **numbers
        )

    def _hmac(self, secret: str) -> str:
        return hmac.new(self._pepper, secret.encode(), hashlib.sha256).hexdigest()


def incorrect(public_id: str) -> str:
    """The one text for every key that is refused; shows no more than the public id's beginning."""
    return f"Incorrect API key provided: {PREFIX}{public_id[:4]}***."
