"""Idempotency-Key: the same request under the same key is one call, for a day.

Who sends it while the call runs attaches to it; who sends it later gets the same response. A
failure that is safe to retry is forgotten: the next request makes a call of its own.
"""

from __future__ import annotations

import hashlib
import hmac
import re
from dataclasses import dataclass, replace

import orjson
from redis.exceptions import RedisError
from werkzeug.datastructures import Headers

from api import logged as logged_calls
from api.rendering import LoggedCall
from api.services import services
from gateway.account.refusals import logs_full
from gateway.errors import GatewayError, InvalidRequest, JobLost, QueueUnavailable
from gateway.queue import event_logs, keys

HEADER, REPLAYED = "Idempotency-Key", "Idempotent-Replayed"
NAME = re.compile(r"[!-~]{1,255}", re.ASCII)
TRIES = 3  # at a name that others forget meanwhile
RETRY_SECONDS = 1


def name_of(headers: Headers) -> str:
    """The Idempotency-Key of a request, "" without one; raises InvalidRequest for a bad one."""
    name = headers.get(HEADER)
    if name is None:
        return ""
    if not NAME.fullmatch(name):
        raise InvalidRequest(
            f"Invalid {HEADER} header: expected 1 to 255 visible ASCII characters.",
            param=HEADER,
            code="invalid_value",
        )
    return name


@dataclass(frozen=True, slots=True)
class Claim:
    """What an Idempotency-Key stands for if this request is the first one with it."""

    name: str  # in Redis
    value: bytes
    call: LoggedCall

    def release(self, error: GatewayError) -> None:
        """Forget the key: the queue has refused the call. Twins that wait get this error."""
        redis = services().broker.redis
        try:
            event_logs.forget(redis, self.name, self.value)
            # Its input is not needed, and may have 20 MB.
            request = replace(self.call, extra={}).encode()
            event_logs.refuse_logged(redis, self.call.key, self.call.address, request, error)
        except RedisError:
            pass  # the next request finds that there is no call


def claim(
    name: str, call: LoggedCall, request: object, body: bytes, budget: float
) -> tuple[Claim, LoggedCall | None]:
    """Let a call stand for an Idempotency-Key; return the call that does already, if one does.

    `request` is what the call depends on besides `body`, as JSON values. Raises InvalidRequest for
    the key of another request, RateLimited or Overloaded if there is no room, and RedisError.
    """
    pepper, redis = services().settings.key_pepper, services().broker.redis
    fingerprint = _digest(pepper, orjson.dumps(request, option=orjson.OPT_SORT_KEYS), body)
    value = f"{call.rendering.call_id} {fingerprint}".encode()
    own = Claim(name_in_redis(pepper, call.key, name), value, call)
    for _ in range(TRIES):
        try:
            noted = event_logs.remember(
                redis, call.key, own.name, value, call.address, call.encode(), budget
            )
        except event_logs.LogsFull as full:
            raise logs_full(full.bytes, full.reset_ms) from None
        if noted is None:
            return own, None
        call_id, _, before = noted.decode().partition(" ")
        if not hmac.compare_digest(before, fingerprint):
            raise InvalidRequest(
                f"This {HEADER} was used for another request.",
                param=HEADER,
                code="idempotency_key_mismatch",
                status=422,
            )
        first = logged_calls.find(call_id)
        ended = logged_calls.outcome(first) if first is not None else None
        if first is not None and not (ended and forgotten(ended[0].error)):
            return own, first
        event_logs.forget(redis, own.name, noted)
    raise QueueUnavailable(retry_after=RETRY_SECONDS)


def name_in_redis(pepper: str, key_id: str, name: str) -> str:
    """The name in Redis of an Idempotency-Key of an API key."""
    return keys.idempotent(key_id, _digest(pepper, name.encode()))


def _digest(pepper: str, *parts: bytes) -> str:
    text = b"\0".join((b"idempotency", *parts))
    return hmac.new(pepper.encode(), text, hashlib.sha256).hexdigest()


def forgotten(error: GatewayError | None) -> bool:
    """Whether a call that ended with this error is made anew when it is requested again.

    That is where no provider can have acted on it; and where Redis lost it.
    """
    return error is not None and (error.should_retry is not False or isinstance(error, JobLost))
