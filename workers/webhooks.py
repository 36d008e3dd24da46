"""Delivers the events of webhooks, in one worker at a time: the only sender of requests that
callers choose the address of.

An event is deleted from Redis after its receiver has accepted it, so it is delivered at least once,
whichever process dies. Keys take turns: a receiver that hangs holds up the events of its own key.
"""

from __future__ import annotations

import logging
import random
import socket
import time
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from ipaddress import ip_address
from typing import Any, cast

import gevent
import orjson
from gevent.pool import Pool
from redis import Redis
from redis.exceptions import RedisError

from gateway import webhooks
from gateway.addresses import is_public
from gateway.errors import GatewayError
from gateway.logs import log_fault
from gateway.queue import keys, scripts
from gateway.queue.election import Election
from gateway.settings import Settings
from providers.base import FIXED, USER_AGENT, Request
from providers.http.resolver import Resolver
from providers.http.transport import Transport

log = logging.getLogger(__name__)

IDLE_SECONDS = 0.5  # between two looks for events
TURNS = 128  # keys whose events are delivered at once
TURN_EVENTS = 8  # of a key in one turn; 1 after a failure
CONNECT_SECONDS = 5.0
DELIVERY_SECONDS = 10.0  # for a whole request
RESPONSE_BYTES = 65_536  # are read of a response, so that its sender sees no broken connection
RETRY_SECONDS = (5.0, 7_200.0)  # at first and at most; in between, as long as the event is old
LIFE_MS = 86_400_000  # after which an event is given up
JITTER = 0.1  # of a pause, more or less
ACCEPTED = range(200, 300)


class PublicResolver(Resolver):
    """Resolves names to their public addresses alone, at each connection."""

    def addresses(self, host: str, timeout: float | None) -> Sequence[str]:
        """Return the public addresses of a host; raises socket.gaierror if it has none."""
        public = [
            address
            for address in super().addresses(host, timeout)
            if is_public(ip_address(address.strip("[]").partition("%")[0]))
        ]
        if not public:
            raise socket.gaierror(socket.EAI_NONAME, "the host has no public address")
        return public


@dataclass(frozen=True, slots=True)
class Receiver:
    """The webhook of a key: where it is, whether it may be private, and what signs for it."""

    url: str
    nonce: str
    entry: str  # of WEBHOOK_HOSTS

    @property
    def private(self) -> bool:
        return self.entry.rpartition("]")[2].count(":") == 1


class WebhookSender:
    """Delivers events while this worker is elected to.

    `redis` is a client for short commands; `name` is the worker's. `retry_seconds` are the first
    and the longest pause after a failure. `resolver` is for receivers that must be public.
    """

    def __init__(
        self,
        redis: Redis,
        settings: Settings,
        name: str,
        retry_seconds: tuple[float, float] = RETRY_SECONDS,
        delivery_seconds: float = DELIVERY_SECONDS,
        resolver: Resolver | None = None,
    ) -> None:
        self._redis, self._settings = redis, settings
        self._retry_seconds, self._delivery_seconds = retry_seconds, delivery_seconds
        self._election = Election(redis, keys.WEBHOOK_SENDER, name)
        transport = partial(
            Transport, CONNECT_SECONDS, delivery_seconds, ca_bundle=settings.upstream_ca_bundle
        )
        self._public = transport(resolver=resolver or PublicResolver())
        self._private = transport(resolver=Resolver())
        self._pool = Pool(TURNS)
        self._turns: set[str] = set()  # keys that have a turn now
        self._failing: set[str] = set()  # keys whose last turn had a failure
        self._away = False
        self._ahead_ms = 0  # how far Redis' clock is ahead of our monotonic one
        self._greenlet: Any = None

    def start(self) -> None:
        """Begin to deliver, until `stop`."""
        self._greenlet = gevent.spawn(self._run)

    def stop(self) -> None:
        """Stop at once. Another worker delivers what is on its way once more."""
        if self._greenlet is not None:
            self._greenlet.kill()
        self._pool.kill()
        self._election.resign()

    def _run(self) -> None:
        while True:
            self.step()
            gevent.sleep(IDLE_SECONDS)

    def step(self) -> None:
        """Begin the turns that are due, if this worker is elected. Failures are logged."""
        try:
            if self._election.won():
                self._begin_turns()
            self._away = False
        except RedisError as error:
            if not self._away:
                log.warning("webhooks: events wait in Redis (%s)", type(error).__name__)
            self._away = True
        except Exception as error:
            log_fault(log, error, "webhooks")

    def join(self) -> None:
        """Wait for the end of the turns that have begun."""
        self._pool.join()

    def _begin_turns(self) -> None:
        seconds, microseconds = self._redis.time()
        now = int(time.monotonic() * 1000)
        self._ahead_ms = seconds * 1000 + microseconds // 1000 - now
        most = self._pool.free_count() + len(self._turns)
        rows = cast(
            "list[bytes]",
            self._redis.zrange(
                keys.WEBHOOKS, "-inf", self._now(), byscore=True, offset=0, num=most
            ),
        )
        for row in rows:
            key_id = row.decode()
            if key_id in self._turns or not self._pool.free_count():
                continue
            self._turns.add(key_id)
            self._pool.spawn(self._turn, key_id)

    def _turn(self, key_id: str) -> None:
        try:
            self._deliver_due(key_id)
        except RedisError:
            pass  # they stay due
        except Exception as error:
            log_fault(log, error, "webhooks")
        finally:
            self._turns.discard(key_id)

    def _deliver_due(self, key_id: str) -> None:
        """Deliver events of a key that are due, and put off those that fail."""
        name = keys.webhooks(key_id)
        count = 1 if key_id in self._failing else TURN_EVENTS
        with self._redis.pipeline(transaction=False) as pipeline:
            pipeline.zrangebyscore(name, "-inf", self._now(), 0, count)
            pipeline.hmget(keys.key(key_id), "webhook_url", "webhook_nonce", "revoked")
            rows, fields = pipeline.execute()
        ids = [row.decode() for row in rows]
        bodies = self._redis.mget([keys.webhook(id) for id in ids]) if ids else []
        receiver = self._receiver(key_id, fields) if ids else None
        deliveries = [
            gevent.spawn(self._deliver, key_id, receiver, id, body)
            for id, body in zip(ids, bodies, strict=True)
        ]
        try:
            gevent.joinall(deliveries)
        finally:
            gevent.killall(deliveries)
        # A delivery that broke off without a result is to be tried again.
        due = [each.value if each.successful() else self._now() + 60_000 for each in deliveries]
        hold = 0
        if any(due):
            self._failing.add(key_id)
            hold = self._now() + int(self._retry_seconds[0] * 1000)
        else:
            self._failing.discard(key_id)
        args = [
            part for pair in zip(ids, (each or "" for each in due), strict=True) for part in pair
        ]
        names = [keys.WEBHOOKS, name, *(keys.webhook(id) for id in ids)]
        scripts.WEBHOOK_END(self._redis, names, [key_id, hold, *args])

    def _receiver(self, key_id: str, fields: Sequence[bytes | None]) -> Receiver | None:
        url, nonce, revoked = fields
        if url is None or nonce is None or revoked:
            return None
        entry = webhooks.allowing(url.decode(), self._settings.webhook_hosts)
        if entry is None:
            log.warning(
                "webhook not in WEBHOOK_HOSTS any more", extra={"fields": {"key_id": key_id}}
            )
            return None
        return Receiver(url.decode(), nonce.decode(), entry)

    def _deliver(
        self, key_id: str, receiver: Receiver | None, event_id: str, body: bytes | None
    ) -> int:
        """Deliver one event; return when to try again, in ms since 1970, or 0 for never."""
        if receiver is None or body is None:
            return 0
        now = self._now()
        signed = webhooks.headers(
            (self._settings.key_pepper, self._settings.key_pepper_old),
            key_id,
            receiver.nonce,
            event_id,
            now // 1000,
            body,
        )
        result = self._post(receiver, {**FIXED, "User-Agent": USER_AGENT, **signed}, body)
        event = orjson.loads(body)
        fields = {
            "event": event_id,
            "type": event["type"],
            "key_id": key_id,
            "host": receiver.entry,  # the path of a URL may be a secret of the receiver
            "result": result,
        }
        if result in ACCEPTED:
            log.info("webhook delivered", extra={"fields": fields})
            return 0
        now, created = self._now(), event["created_at"] * 1000
        first, most = self._retry_seconds
        pause = min(max(first * 1000, now - created), most * 1000)
        due = now + int(pause * random.uniform(1 - JITTER, 1 + JITTER))
        if due > created + LIFE_MS:
            log.error("webhook given up", extra={"fields": fields})
            return 0
        fields["pause"] = round(pause / 1000)
        log.warning("webhook failed", extra={"fields": fields})
        return due

    def _post(self, receiver: Receiver, fields: dict[str, str], body: bytes) -> int | str:
        """Send a request; return the status of its response, or why there is none."""
        transport = self._private if receiver.private else self._public
        # Connections are not kept: the address is checked when one is made.
        request = Request(receiver.url, {**fields, "Connection": "close"}, body)
        status = 0
        try:
            with gevent.Timeout(self._delivery_seconds, False), transport.post(request) as response:
                status = response.status
                response.read_some(RESPONSE_BYTES)
        except GatewayError as error:
            return status or error.code or type(error).__name__
        return status or "timeout"

    def _now(self) -> int:
        """Redis' clock, in ms since 1970."""
        return int(time.monotonic() * 1000) + self._ahead_ms
