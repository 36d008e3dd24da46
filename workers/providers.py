"""Makes the providers of the catalogue's rows."""

from __future__ import annotations

from collections.abc import Callable

import gevent

from gateway.catalogue.catalogue import Catalogue
from gateway.catalogue.file import ProviderRow
from gateway.settings import Settings
from gateway.timeouts import Timeouts
from providers import create
from providers.base import Provider, WireOptions
from providers.http.transport import Transport

TIDY_SECONDS = 30.0


def make_transport(settings: Settings) -> Transport:
    """The connections, proxy and certificates that all providers of a worker share."""
    timeouts = settings.timeouts
    return Transport(
        connect_timeout=timeouts.connect,
        read_timeout=timeouts.first_byte,
        silence_timeout=timeouts.between_tokens,
        pool_size=settings.worker_concurrency,
        proxy=settings.upstream_proxy,
        ca_bundle=settings.upstream_ca_bundle,
    )


def keep_tidy(transport: Transport, sleep: Callable[[float], None] = gevent.sleep) -> None:
    """Close connections that providers have closed, every 30 seconds; to be spawned."""
    while True:
        sleep(TIDY_SECONDS)
        transport.close_dead()


def connect(
    catalogue: Catalogue, settings: Settings, transport: Transport | None = None
) -> dict[str, Provider]:
    """All configured providers by name, on one pool of connections.

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
        options=_options(row),
        transport=transport,
    )


def _options(row: ProviderRow) -> WireOptions:
    return WireOptions(
        row.accepts, row.system_first, row.tool_call_ids, row.stream_above, row.plain_text
    )
