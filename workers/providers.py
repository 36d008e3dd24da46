"""Makes a provider of each of the catalogue's rows: where data meets the dialects."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import gevent

import providers
from gateway.catalogue.catalogue import Catalogue
from gateway.catalogue.file import ProviderRow
from gateway.settings import Settings
from providers.base import Provider
from providers.http.transport import Transport

TIDY_SECONDS = 30.0


def make_transport(settings: Settings) -> Transport:
    """What all providers of a worker share: connections, timeouts, proxy and certificates."""
    return Transport(
        connect_timeout=settings.connect_timeout,
        read_timeout=settings.first_byte_timeout,
        silence_timeout=settings.between_tokens_timeout,
        pool_size=settings.worker_concurrency,
        proxy=settings.upstream_proxy,
        ca_bundle=settings.upstream_ca_bundle,
    )


def keep_tidy(transport: Transport, sleep: Callable[[float], None] = gevent.sleep) -> None:
    """Close what providers have hung up on, again and again; to be spawned."""
    while True:
        sleep(TIDY_SECONDS)
        transport.close_dead()


def connect(
    catalogue: Catalogue, settings: Settings, transport: Transport | None = None
) -> dict[str, Provider]:
    """Every configured provider by name, all on one pool of connections.

    A model that has timeouts of its own has a provider of its own as well, under its row's id,
    which no provider's name can be: names have no slash.
    """
    transport = transport or make_transport(settings)
    configured = {
        row.name: row for row in catalogue.providers.values() if row.missing(settings) is None
    }
    made = {name: _provider(row, settings, transport) for name, row in configured.items()}
    for model in catalogue.rows():
        if model.timeouts and model.provider in configured:
            patient = _with_timeouts(transport, model.timeouts)
            made[model.id] = _provider(configured[model.provider], settings, patient)
    return made


def _with_timeouts(transport: Transport, timeouts: Mapping[str, float]) -> Transport:
    return transport.with_timeouts(
        connect=timeouts.get("connect"),
        read=timeouts.get("first_byte"),
        silence=timeouts.get("between_tokens"),
    )


def _provider(row: ProviderRow, settings: Settings, transport: Transport) -> Provider:
    return providers.create(
        row.wire,
        base_url=row.address(settings),
        api_key=settings.variable(row.key_variable) if row.key_variable else "",
        headers=row.headers,
        keeps=row.keeps,
        transport=transport,
    )
