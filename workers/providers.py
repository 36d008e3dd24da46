"""Makes the providers of the catalogue's rows."""

from __future__ import annotations

import logging
import resource
import sys
from collections.abc import Callable

import gevent
from redis import Redis
from redis.exceptions import RedisError

from gateway.catalogue.catalogue import Catalogue
from gateway.catalogue.file import ProviderRow
from gateway.logs import where
from gateway.settings import Settings
from gateway.timeouts import Timeouts
from providers import create
from providers.base import Provider
from providers.http.budget import Budget
from providers.http.transport import Transport

log = logging.getLogger(__name__)

TIDY_SECONDS = 10.0
IDLE_SHARE = 4  # idle connections hold at most a quarter of this process' file descriptors
# What a response takes in Redis for a moment, in multiples of its size: the command, two copies in
# Lua, the outcome, the event and its copy in the stream, the reply to the web process. Nine times
# were measured with responses of 13 MB, one after the other.
COPIES = 10
MIN_BYTES = 1_000_000
UNKNOWN_BYTES = 10_000_000  # fits a Redis of 100 MB
UNLIMITED_BYTES = 36_000_000  # any one response
MAX_BYTES = 256_000_000  # also of this process' memory


def make_transport(settings: Settings, budget: Budget | None = None) -> Transport:
    """Return the connections, proxy and certificates that all providers of a worker share."""
    timeouts = settings.timeouts
    return Transport(
        connect_timeout=timeouts.connect,
        read_timeout=timeouts.first_byte,
        silence_timeout=timeouts.between_tokens,
        pool_size=settings.worker_concurrency,
        proxy=settings.upstream_proxy,
        ca_bundle=settings.upstream_ca_bundle,
        budget=budget,
        max_idle=min(settings.worker_concurrency, _descriptors() // IDLE_SHARE),
    )


def share_of(redis: Redis) -> int:
    """Return how many bytes of responses a worker may hold, by the memory of its Redis."""
    try:
        most = int(redis.info("memory")["maxmemory"])
    except (RedisError, KeyError, ValueError):  # a user that may not ask
        return UNKNOWN_BYTES
    return min(max(most // COPIES, MIN_BYTES), MAX_BYTES) if most else UNLIMITED_BYTES


def _descriptors() -> int:
    """How many file descriptors this process may have open."""
    limit, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return sys.maxsize if limit == resource.RLIM_INFINITY else limit


def keep_tidy(transport: Transport, sleep: Callable[[float], None] = gevent.sleep) -> None:
    """Close idle connections to providers that are dead, old or too many; to be spawned."""
    while True:
        sleep(TIDY_SECONDS)
        try:
            transport.tidy()
        except Exception as error:
            log.error("tidy: %s at %s", type(error).__name__, where(error))


def connect(
    catalogue: Catalogue, settings: Settings, transport: Transport | None = None
) -> dict[str, Provider]:
    """Return all configured providers by name, on one pool of connections.

    A model that sets timeouts has a provider object of its own, by its row's id. No provider has
    such a name: names have no slash.
    """
    transport = transport or make_transport(settings)
    configured = {
        row.name: row for row in catalogue.providers.values() if row.missing(settings) is None
    }
    providers = {name: _provider(row, settings, transport) for name, row in configured.items()}
    for model in catalogue.rows():
        if model.timeouts != Timeouts() and model.provider in configured:
            own = _with_timeouts(transport, model.timeouts)
            providers[model.id] = _provider(configured[model.provider], settings, own)
    return providers


def _with_timeouts(transport: Transport, timeouts: Timeouts) -> Transport:
    return transport.with_timeouts(
        connect=timeouts.connect, read=timeouts.first_byte, silence=timeouts.between_tokens
    )


def _provider(row: ProviderRow, settings: Settings, transport: Transport) -> Provider:
    return create(
        row.wire,
        base_url=row.address(settings),
        api_key=settings.variable(row.key_variable) if row.key_variable else "",
        headers=row.headers,
        keeps=row.accepts,
        transport=transport,
    )
