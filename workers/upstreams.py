"""Makes a provider of each of the catalogue's rows: where data meets the dialects."""

from __future__ import annotations

import providers
from gateway.catalogue import Catalogue
from gateway.settings import Settings
from providers.transport import Transport
from providers.wire import Provider


def connect(catalogue: Catalogue, settings: Settings) -> dict[str, Provider]:
    """Every configured provider by name, all on one HTTP transport."""
    transport = Transport(
        connect_timeout=settings.upstream_connect_timeout,
        read_timeout=settings.upstream_read_timeout,
        pool_size=settings.worker_concurrency,
        proxy=settings.upstream_proxy,
        ca_bundle=settings.upstream_ca_bundle,
    )
    return {
        row.name: providers.create(
            row.wire,
            base_url=row.address(settings),
            api_key=settings.variable(row.key_variable) if row.key_variable else "",
            headers=row.headers,
            keeps=row.keeps,
            transport=transport,
        )
        for row in catalogue.providers.values()
        if row.missing(settings) is None
    }
