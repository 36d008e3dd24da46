"""Webhooks of API keys: which events there are, who may receive them, and how they are signed.

The format is that of Standard Webhooks (https://www.standardwebhooks.com), as OpenAI uses it: its
clients verify these events. An event waits in Redis until a worker has delivered it.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import re
import secrets
from collections.abc import Collection, Mapping, Sequence
from urllib.parse import urlsplit

from redis import Redis

from gateway.queue import keys, scripts

TEST = "webhook.test"
BUDGET, OWNER_BUDGET = "key.budget_threshold", "owner.budget_threshold"
# What `enqueue` takes. An event names an object and holds nothing of it.
EVENT_TYPES = (
    *("response.completed", "response.failed", "response.incomplete", "response.cancelled"),
    *("batch.completed", "batch.failed", "batch.expired", "batch.cancelled"),
    *(BUDGET, OWNER_BUDGET, TEST),
)

# Status of a call -> end of the type of its event; all others have failed.
ENDS = {"completed": "completed", "cancelled": "cancelled"}
INCOMPLETE = ("length", "content_filter")  # finish reasons

MAX_EVENTS = 10_000  # that wait for one key
MAX_URL = 2_048  # characters
PORTS = {"https": 443, "http": 80}


def of_response(status: str, finish_reason: str) -> str:
    """Return the type of the event for a background response whose call ended like this."""
    incomplete = status == "completed" and finish_reason in INCOMPLETE
    return f"response.{'incomplete' if incomplete else ENDS.get(status, 'failed')}"


def enqueue(
    redis: Redis, key_id: str, event_type: str, object_id: str, occurrence: str = ""
) -> str:
    """Queue an event for the webhook of an API key: something has happened to an object.

    An event happens to an object once, or once for each `occurrence`: queued again, it has the
    same id, by which receivers know it. Returns "ok"; "none" if the key has no webhook; "full" if
    MAX_EVENTS of the key wait, and this one is dropped. Raises RedisError.
    """
    assert event_type in EVENT_TYPES, event_type
    digest = hashlib.sha256(f"{key_id} {event_type} {object_id} {occurrence}".encode()).hexdigest()
    event_id = f"evt_{digest[:32]}"
    names = [keys.key(key_id), keys.WEBHOOKS, keys.webhooks(key_id), keys.webhook(event_id)]
    args = [key_id, event_id, event_type, object_id, MAX_EVENTS, keys.WEBHOOK_SECONDS]
    return str(scripts.WEBHOOK(redis, names, args), "ascii")


def allowing(url: str, hosts: Collection[str]) -> str | None:
    """Return the entry of WEBHOOK_HOSTS that allows this URL; None if there is none.

    A host stands for https on port 443. With a port it stands for http too, and for addresses that
    are not public.
    """
    # Parsers disagree about backslashes, blanks and control characters.
    if len(url) > MAX_URL or not re.fullmatch(r"[!-~]+", url) or "\\" in url:
        return None
    try:
        parts = urlsplit(url)
        port = PORTS[parts.scheme] if parts.port is None else parts.port
    except (KeyError, ValueError):
        return None
    host = parts.hostname or ""
    if ":" in host:
        host = f"[{host}]"
    # Neither a user nor a fragment nor an odd form of the port.
    if parts.netloc.lower() not in (host, f"{host}:{port}") or "#" in url:
        return None
    entries = {each.lower(): each for each in hosts}
    entry = entries.get(f"{host}:{port}")
    if entry is None and (parts.scheme, port) == ("https", 443):
        entry = entries.get(host)
    return entry


def new_nonce() -> str:
    """Return what makes the next secret of a webhook differ from the last."""
    return secrets.token_hex(16)


def secret(pepper: str, key_id: str, nonce: str) -> str:
    """Return the secret of a key's webhook, `whsec_...`. Redis has only the nonce."""
    return f"whsec_{base64.b64encode(_secret(pepper, key_id, nonce)).decode()}"


def headers(
    peppers: Sequence[str], key_id: str, nonce: str, event_id: str, seconds: int, body: bytes
) -> Mapping[str, str]:
    """Return the headers that prove where an event is from, at a time in seconds since 1970.

    With two peppers there are two signatures: a receiver needs one that matches its secret.
    """
    content = b"%b.%d.%b" % (event_id.encode(), seconds, body)
    signatures = [
        base64.b64encode(hmac.digest(_secret(pepper, key_id, nonce), content, "sha256")).decode()
        for pepper in peppers
        if pepper
    ]
    return {
        "webhook-id": event_id,
        "webhook-timestamp": str(seconds),
        "webhook-signature": " ".join(f"v1,{signature}" for signature in signatures),
    }


def _secret(pepper: str, key_id: str, nonce: str) -> bytes:
    return hmac.digest(pepper.encode(), f"webhook: {key_id}:{nonce}".encode(), "sha256")
