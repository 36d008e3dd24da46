"""Makes the providers of the catalogue's rows."""

from __future__ import annotations

import logging
import resource
import sys
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING

import gevent
from redis import Redis
from redis.exceptions import RedisError

from gateway.catalogue.catalogue import Catalogue
from gateway.catalogue.file import ModelRow, ProviderRow
from gateway.catalogue.target import Target
from gateway.chat import ChatCall
from gateway.logs import log_fault
from gateway.settings import Settings
from gateway.timeouts import Timeouts
from providers import create
from providers.base import Provider, WireOptions
from providers.http.budget import Budget
from providers.http.transport import Transport
from workers import tracing
from workers.google_tokens import TokenProvider, service_account
from workers.pool import Load, Pool, Way, trouble_of_a_deployment, trouble_of_a_key

if TYPE_CHECKING:
    import requests

log = logging.getLogger(__name__)

TIDY_SECONDS = 10.0
IDLE_SHARE = 4  # idle connections hold at most a quarter of this process' file descriptors
# What a response takes in Redis for a moment, in multiples of its size: the command, its copy in
# Lua, the outcome, the reply to the web process. Six times were measured with responses of 30 MB,
# one after the other; smaller ones are in the inbox as well.
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
            log_fault(log, error, "tidy")


def connect(
    catalogue: Catalogue, settings: Settings, transport: Transport | None = None
) -> dict[str, Provider]:
    """Return all configured providers by name, on one pool of connections.

    A model that sets timeouts or has deployments has a provider object of its own, by its row's id.
    No provider has such a name: names have no slash.

    Raises ConfigurationError for credentials that cannot be used.
    """
    transport = transport or make_transport(settings)
    connector = _Connector(catalogue, settings)
    providers = {name: connector.provider(name, transport) for name in connector.configured}
    for model in catalogue.rows():
        if model.has_provider and model.provider in connector.configured:
            providers[model.id] = connector.model(model, transport)
    return providers


class _Connector:
    """Makes providers. All objects for one key share its load."""

    def __init__(self, catalogue: Catalogue, settings: Settings) -> None:
        self._catalogue, self._settings = catalogue, settings
        rows = catalogue.providers.values()
        self.configured = {row.name: row for row in rows if row.missing(settings) is None}
        self._loads: dict[tuple[str, int], Load] = {}

    def provider(self, name: str, transport: Transport) -> Provider:
        """The provider of this name, with all its keys."""
        row = self.configured[name]
        if row.trace_context:
            transport = transport.with_headers(tracing.context.get)
        make = partial(self._with_key, row, transport)
        keys = row.keys(self._settings)
        if row.auth == "google":
            credentials, request = service_account(keys[0], http_session(self._settings))
            return TokenProvider(credentials, request, make)
        if len(keys) < 2:
            return make(keys[0] if keys else "")
        ways = [
            Way(
                f"key {number} of {name}",
                make(key),
                load=self._loads.setdefault((name, number), Load()),
            )
            for number, key in enumerate(keys, 1)
        ]
        return Pool(ways, trouble_of_a_key)

    def model(self, row: ModelRow, transport: Transport) -> Provider:
        """The provider object of a model with timeouts or deployments of its own."""
        if row.timeouts != Timeouts():
            transport = _with_timeouts(transport, row.timeouts)
        if not row.deployments:
            return self.provider(row.provider, transport)
        ways = [
            Way(
                f"{row.id} at {each.provider}/{each.upstream or row.upstream_name(row.id)}",
                self.provider(each.provider, transport),
                each.weight,
                prepare=partial(_deployed, self._catalogue.deployed(row, each)),
            )
            for each in row.deployments
            if each.provider in self.configured
        ]
        return Pool(ways, trouble_of_a_deployment)

    def _with_key(self, row: ProviderRow, transport: Transport, key: str) -> Provider:
        headers = {**row.headers, row.key_header: key} if row.key_header else row.headers
        return create(
            row.wire,
            base_url=row.address(self._settings),
            api_key="" if row.key_header else key,
            headers=headers,
            options=_options(row),
            transport=transport,
        )


def _deployed(target: Target, call: ChatCall) -> ChatCall:
    """The call as this deployment takes it."""
    params, _ = target.fit(call.parameters, target)
    return replace(call, model=target.upstream_model, parameters=params)


def _with_timeouts(transport: Transport, timeouts: Timeouts) -> Transport:
    return transport.with_timeouts(
        connect=timeouts.connect, read=timeouts.first_byte, silence=timeouts.between_tokens
    )


def http_session(settings: Settings) -> requests.Session:
    """A session for what is no call: Google's token endpoint, and `flask doctor`.

    It takes the operator's proxy and certificates, and nothing from the environment.
    """
    import requests  # most workers need it never

    session = requests.Session()
    session.trust_env = False
    session.verify = settings.upstream_ca_bundle or True
    if settings.upstream_proxy:
        session.proxies = dict.fromkeys(("http", "https"), settings.upstream_proxy)
    return session


def _options(row: ProviderRow) -> WireOptions:
    return WireOptions(
        row.accepts, row.system_first, row.tool_call_ids, row.stream_above, row.plain_text
    )
