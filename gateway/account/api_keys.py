"""API keys: their form, and the records that Redis holds of them.

`mk_inference_<public id, 12>_<secret, 43><checksum, 6>`, all base 62. The secret is 256 random
bits, so one keyed hash is as good as a slow one. The checksum tells a typo from a guess without
asking Redis. Redis keeps only the HMAC of the secret; its key (the pepper) is not in Redis.
"""

from __future__ import annotations

import hmac
import logging
import re
import secrets
import string
import time
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import KW_ONLY, dataclass, field, replace
from typing import Any

from cachetools import TTLCache
from gevent.event import AsyncResult
from redis import Redis
from redis.exceptions import ConnectionError

from gateway.account.key_fields import Limits
from gateway.account.record_store import COMMAND, Actor, Edit, RecordStore
from gateway.errors import AuthenticationFailed, InvalidRequest, QueueUnavailable
from gateway.logs import Tally
from gateway.queue import keys, owner

log = logging.getLogger(__name__)

PREFIX = "mk_inference_"
DIGITS = string.digits + string.ascii_uppercase + string.ascii_lowercase
PATTERN = re.compile(r"mk_inference_([0-9A-Za-z]{12})_([0-9A-Za-z]{43})([0-9A-Za-z]{6})", re.ASCII)

RESTORE_SECONDS = 5  # after which a call is tried again where Redis was emptied
CACHE_SECONDS = 10.0
CACHE_KEYS = 10_000
REPLAY_SECONDS = 600  # for which a repeated rotation returns its secret again
USED = (
    "This Idempotency-Key has rotated this API key before, with another grace_seconds or more than "
    "ten minutes ago. Use a new one for another rotation."
)


@dataclass(frozen=True, slots=True)
class KeyRecord(Limits):
    """One API key. Times are seconds since 1970, 0 for never; see Limits for the other limits.

    `models` are the models that it may use (None: all); one that ends in `*` stands for all that
    begin like it. `hmac_old` is that of the secret before the last rotation, valid until
    `hmac_old_until`. An `operator` key manages keys and calls no model. `cache_seconds` is how long
    its responses are kept for the same request (None: not at all). The prompts of its batches may
    have `batch_tokens_queued` tokens together (None: no limit). `retry_on_worker_loss`: its calls
    run once more if their worker is lost before anything of their response has come. `rotation`
    marks the last rotation with an Idempotency-Key. `webhook_url` is where the key's events go; the
    secret that signs them comes from `webhook_nonce`, see gateway/webhooks.py.
    """

    public_id: str
    name: str
    hmac: str = field(repr=False)
    created: int = 0
    last_used: int = 0
    revoked: int = 0
    _: KW_ONLY
    hmac_old: str = field(default="", repr=False)
    hmac_old_until: int = 0
    rotation: str = field(default="", repr=False)
    owner: str = ""
    models: tuple[str, ...] | None = None
    priority: str = "standard"
    weight: int = 1
    operator: bool = False
    cache_seconds: int | None = None
    batch_tokens_queued: int | None = None
    retry_on_worker_loss: bool = False
    webhook_url: str = ""
    webhook_nonce: str = field(default="", repr=False)
    expires: int = 0
    created_by: str = ""
    rotated: int = 0

    def valid(self, now: float) -> bool:
        """Whether the key is neither revoked nor disabled nor expired at this time."""
        return not self.revoked and not self.disabled and not 0 < self.expires <= now

    def allows(self, *names: str) -> bool:
        """Whether the key may use a model with one of these names."""
        return self.models is None or any(
            name.startswith(model[:-1]) if model.endswith("*") else name == model
            for model in self.models
            for name in names
        )


NO_HASH = "0" * 64  # compared in place of a hash that is not there


@dataclass(frozen=True, slots=True)
class Rotation:
    """A key with its new secret. `replayed`: a rotation that was made before, returned again."""

    key: str = field(repr=False)
    record: KeyRecord
    replayed: bool = False


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


def whole(public_id: str, secret: str) -> str:
    """Return the key of this public id and secret."""
    return f"{PREFIX}{public_id}_{secret}{checksum(public_id, secret)}"


def public_id(key: str) -> str:
    """Return the public id of a key, or of a string that may be one already."""
    return key.removeprefix(PREFIX)[:12]


def parse(key: str) -> tuple[str, str]:
    """Return public id and secret of a well-formed key; raise AuthenticationFailed for others."""
    match = PATTERN.fullmatch(key)
    if match is None:
        raise AuthenticationFailed("Incorrect API key provided: ***.")
    if not hmac.compare_digest(match[3], checksum(match[1], match[2])):
        raise AuthenticationFailed(incorrect(match[1]))
    return match[1], match[2]


class KeyStore:
    """Creates, verifies and changes keys. All methods raise RedisError if Redis is away.

    Keys that were hashed with `old_pepper` are valid too, and are hashed with `pepper` when they
    are used. `copied`: a database has copies of the keys. Until an emptied Redis has them again, an
    unknown key is QueueUnavailable.
    """

    def __init__(
        self,
        redis: Redis,
        pepper: str,
        clock: Callable[[], float] = time.time,
        old_pepper: str = "",
        copied: bool = False,
    ) -> None:
        self._redis, self._pepper = redis, pepper
        # hmac.digest would prepare the pepper for each secret: 27 instead of 11 µs in a profile.
        peppers = [each.encode() for each in (pepper, old_pepper) if each]
        self._macs = [hmac.new(each, digestmod="sha256") for each in peppers]
        self._clock = clock
        self._copied = copied
        self._records = _store(redis, clock)
        # Unknown ids too: otherwise the time of a refusal would tell which ids exist.
        self._cache: TTLCache[str, KeyRecord | None] = TTLCache(
            CACHE_KEYS, CACHE_SECONDS, timer=lambda: time.monotonic()
        )
        self._failed = Tally(log, "keys: not read: %s")
        self._reads: dict[str, AsyncResult] = {}  # on their way, by public id

    def create(self, name: str, by: Actor = COMMAND, **values: Any) -> str:
        """Create a key and return it whole. Redis only keeps a hash of it.

        `values` are those of a KeyRecord. Raises InvalidRequest for an owner that does not exist.
        """
        secret = base62(secrets.randbits(256), 43)
        values |= {"name": name, "hmac": self._hmac(secret), "created_by": by.id}
        while True:
            public_id = base62(secrets.randbelow(62**12), 12)
            if self._records.create(public_id, values, by):
                return whole(public_id, secret)

    def get(self, public_id: str) -> KeyRecord | None:
        """Return the record that Redis has now, or None; revoked keys have one too."""
        return self._records.read(public_id)

    def valid(self, public_id: str) -> KeyRecord:
        """Return the record that Redis has now, for a call that this service makes for the key.

        Raises AuthenticationFailed unless the key is valid.
        """
        record = self._records.read(public_id)
        if record is None or not record.valid(self._clock()):
            raise AuthenticationFailed(incorrect(public_id))
        return record

    def all(self) -> Iterator[KeyRecord]:
        """Yield every key, in no order. It scans Redis: not for each call."""
        return self._records.all()

    def change(
        self, public_id: str, edit: Edit[KeyRecord], by: Actor = COMMAND
    ) -> KeyRecord | None:
        """Set the values that `edit(record)` returns; None stands for no value.

        Returns the record as it is then, or None if there is no such key or it is revoked. Raises
        InvalidRequest for an owner that does not exist, and what `edit` raises.
        """
        return self._change(public_id, edit, by, "updated")

    def revoke(self, public_id: str, by: Actor = COMMAND) -> bool:
        """Refuse the key from now on; return False if there is no such key or it is revoked."""
        now = int(self._clock())
        return self._change(public_id, lambda record: {"revoked": now}, by, "revoked") is not None

    def rotate(
        self, public_id: str, grace_seconds: int, by: Actor = COMMAND, idempotency_key: str = ""
    ) -> Rotation | None:
        """Give a key a new secret; the present one stays valid for `grace_seconds`.

        One that was still valid from an earlier rotation is refused from now on. Called again with
        the same idempotency key within REPLAY_SECONDS, it returns the same secret and changes
        nothing: the secret is derived from the pepper, that key and a nonce in the record. Returns
        None if there is no such key or it is revoked. Raises InvalidRequest (409) if the
        idempotency key was used before, for another grace period or more than REPLAY_SECONDS ago.
        """
        secret = base62(secrets.randbits(256), 43)
        nonce, mark = secrets.token_hex(16), self._hmac(f"rotation: {idempotency_key}")
        replayed = False

        def edit(record: KeyRecord) -> Mapping[str, Any]:
            nonlocal secret, replayed
            now = int(self._clock())
            replayed = bool(idempotency_key) and record.rotation.endswith(mark)
            if replayed:
                secret = self._derived(record.rotation, idempotency_key)
                grace = max(0, record.hmac_old_until - record.rotated)
                late = now > record.rotated + REPLAY_SECONDS
                if late or grace != grace_seconds or record.hmac != self._hmac(secret):
                    raise InvalidRequest(USED, status=409, code="idempotency_conflict")
                return {}
            rotation = f"{nonce}:{mark}" if idempotency_key else ""
            if rotation:
                secret = self._derived(rotation, idempotency_key)
            return {
                "hmac": self._hmac(secret),
                "hmac_old": record.hmac if grace_seconds else "",
                "hmac_old_until": now + grace_seconds if grace_seconds else 0,
                "rotation": rotation,
                "rotated": now,
            }

        record = self._change(public_id, edit, by, "rotated")
        return Rotation(whole(public_id, secret), record, replayed) if record else None

    def verify(self, key: str) -> KeyRecord:
        """Return the record of a valid key; raise AuthenticationFailed, alike for every reason.

        `hmac` in the record returned is that of the secret in `key`, be it the present one or the
        one before it. A record is cached for CACHE_SECONDS. The submit script compares it with the
        one in Redis, so that calls with a revoked key are refused at once. Requests that come
        while a record is being read share that read: on their own they would wait for the pool's
        few connections.
        """
        public_id, secret = parse(key)
        record = self._find(public_id)
        matching, digest = self._matching(record, secret)
        if record is not None and matching and matching != digest:
            record = self._renew(record, matching, digest)
            matching, _ = self._matching(record, secret)
        if record is None or not matching or not record.valid(self._clock()):
            raise AuthenticationFailed(incorrect(public_id))
        return record if matching == record.hmac else replace(record, hmac=matching)

    def refresh(self, record: KeyRecord) -> KeyRecord:
        """Return the record as Redis has it now, for one that `verify` returned and that changed.

        Raises AuthenticationFailed if its secret is no longer valid.
        """
        self._cache.pop(record.public_id, None)
        current = self._find(record.public_id)
        hashes = [each for each in self._hashes(current) if each]
        if current is None or record.hmac not in hashes or not current.valid(self._clock()):
            raise AuthenticationFailed(incorrect(record.public_id))
        return replace(current, hmac=record.hmac)

    def forget(self, public_id: str) -> None:
        """Read the record anew when it is used next: another process has changed it."""
        self._cache.pop(public_id, None)
        self._reads.pop(public_id, None)  # it may have begun before the change

    def _change(
        self, public_id: str, edit: Edit[KeyRecord], by: Actor, action: str
    ) -> KeyRecord | None:
        record = self._records.change(
            public_id, lambda record: None if record.revoked else edit(record), by, action
        )
        self.forget(public_id)
        return record

    def _hashes(self, record: KeyRecord | None) -> tuple[str, str]:
        """The hashes of the secrets that are valid now, "" for none."""
        if record is None:
            return "", ""
        in_grace = self._clock() < record.hmac_old_until
        return record.hmac, record.hmac_old if in_grace else ""

    def _matching(self, record: KeyRecord | None, secret: str) -> tuple[str, str]:
        """The hash in the record that is the secret's, or "", and the one that it should be.

        It takes the same time for every record and secret.
        """
        digests = [_hmac(mac, secret) for mac in self._macs]
        matching = ""
        for stored in self._hashes(record):
            for digest in digests:
                if hmac.compare_digest(stored or NO_HASH, digest):
                    matching = stored
        return matching, digests[0]

    def _renew(self, record: KeyRecord, before: str, after: str) -> KeyRecord | None:
        """Replace a hash that the old pepper made; return the record as it is then.

        Not while `gw:owner` says that another pepper is the present one: processes on both sides
        of a deploy would undo each other's hashes.
        """
        if self._redis.get(keys.OWNER) not in (None, owner.fingerprint(self._pepper)):
            return record

        def edit(current: KeyRecord) -> Mapping[str, Any]:
            hashes = {name: getattr(current, name) for name in ("hmac", "hmac_old")}
            return {name: after for name, stored in hashes.items() if stored == before}

        renewed = self._records.change(record.public_id, edit, None)
        self._cache[record.public_id] = renewed
        return renewed

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
            record = self._records.read(public_id)
            if record is None and self._copied and not self._redis.exists(keys.LEDGER_RESTORED):
                # An emptied Redis, before a worker has restored it: not a wrong key.
                raise QueueUnavailable(retry_after=RESTORE_SECONDS)
            if self._reads.get(public_id) is read:
                self._cache[public_id] = record
            read.set(record)
            return record
        except Exception as error:
            self._failed.add(type(error).__name__)
            read.set_exception(error)
            raise
        finally:
            if self._reads.get(public_id) is read:
                del self._reads[public_id]
            if not read.ready():  # this greenlet was killed
                read.set_exception(ConnectionError("the read of the key was broken off"))

    def _hmac(self, text: str) -> str:
        return _hmac(self._macs[0], text)

    def _derived(self, rotation: str, idempotency_key: str) -> str:
        """The secret of a rotation: nobody without the pepper can compute it."""
        return base62(int(self._hmac(f"{rotation}:{idempotency_key}"), 16), 43)


def _store(redis: Redis, clock: Callable[[], float] = time.time) -> RecordStore[KeyRecord]:
    def blank(public_id: str) -> KeyRecord:
        return KeyRecord(public_id, name="", hmac="")

    return RecordStore(redis, blank, keys.key, b"hmac", "key", clock)


def _hmac(mac: hmac.HMAC, text: str) -> str:
    mac = mac.copy()
    mac.update(text.encode())
    return mac.hexdigest()


def revoked(redis: Redis, public_ids: Iterable[str]) -> set[str]:
    """Return which of these keys are revoked or disabled, or have a disabled owner.

    Raises RedisError.
    """
    names = list(public_ids)
    with redis.pipeline(transaction=False) as pipeline:
        for name in names:
            pipeline.hmget(keys.key(name), "revoked", "disabled", "owner")
        records = dict(zip(names, pipeline.execute(), strict=True))
        owners = sorted({record[2] for record in records.values() if record[2]})
        for owner in owners:
            pipeline.hget(keys.owner_record(owner.decode()), "disabled")
        disabled = dict(zip(owners, pipeline.execute(), strict=True)) if owners else {}
    return {
        name
        for name, (revoked_at, off, owner) in records.items()
        if revoked_at or off or disabled.get(owner)
    }


def webhook_keys(redis: Redis, owner_id: str) -> list[str]:
    """Return the public ids of an owner's keys that have a webhook and are not revoked.

    It scans Redis: not for each call. Raises RedisError.
    """
    return [
        record.public_id
        for record in _store(redis).all()
        if record.owner == owner_id and record.webhook_url and not record.revoked
    ]


def incorrect(public_id: str) -> str:
    """Return the message for a refused key; it shows four characters of the public id."""
    return f"Incorrect API key provided: {PREFIX}{public_id[:4]}***."
