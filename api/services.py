"""What the views of one web process share: the only way from a request to settings and broker."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from flask import Flask, current_app

from gateway.account.api_keys import KeyStore
from gateway.account.ledger import Ledger, open_ledger
from gateway.account.owners import OwnerRecord, SharedCaches, owner_store
from gateway.account.record_store import RecordStore
from gateway.broker.body_room import BodyRoom
from gateway.broker.broker import Broker
from gateway.broker.places import Places
from gateway.catalogue import deprecation
from gateway.catalogue.catalogue import Catalogue
from gateway.files.batches import BatchStore
from gateway.files.records import FileStore
from gateway.files.storage import Storage, open_storage
from gateway.metrics.reporter import Reporter
from gateway.queue import clients
from gateway.settings import Settings
from gateway.stalls import Stalls
from gateway.tracing import Tracing, open_tracing

NAME = "services"


@dataclass(frozen=True, slots=True)
class Services:
    """The parts of one web process that requests use.

    `readers` are places for requests whose body is being read. `today` returns the current date.
    `storage` is None if no files can be stored, `tracing` if nothing is traced.
    `pages` holds what is generated at the first request for it, by the name of its blueprint.
    """

    settings: Settings
    catalogue: Catalogue
    keys: KeyStore
    owners: RecordStore[OwnerRecord]
    broker: Broker
    ledger: Ledger
    bodies: BodyRoom
    readers: Places
    shared_caches: SharedCaches
    reporter: Reporter
    files: FileStore
    batches: BatchStore
    storage: Storage | None
    tracing: Tracing | None = None
    today: deprecation.Today = deprecation.today
    pages: dict[str, Any] = field(default_factory=dict)

    @classmethod
    def create(cls, settings: Settings) -> Services:
        """The services for these settings. Connects to nothing yet.

        Raises ConfigurationError for a catalogue or a storage that cannot be used.
        """
        # Submitter, reader and lease have a connection each; the rest are for commands.
        stalls = Stalls()
        redis = clients.commands(settings, settings.redis_connections - 3, stalls)
        store = KeyStore(
            redis,
            settings.key_pepper,
            old_pepper=settings.key_pepper_old,
            copied=bool(settings.database_url),
        )
        broker = Broker(settings, redis, stalls, on_key_change=store.forget)
        reporter = Reporter(
            redis,
            broker.web,
            "web",
            stalls,
            lambda: len(broker.pending_calls),
            lambda: broker.reader.last,
        )
        return cls(
            settings=settings,
            catalogue=Catalogue.load(settings),
            keys=store,
            owners=owner_store(redis),
            broker=broker,
            ledger=open_ledger(settings, redis),
            bodies=BodyRoom(settings.web_body_bytes),
            readers=Places(settings.max_in_flight),
            shared_caches=SharedCaches(redis),
            reporter=reporter,
            files=FileStore(redis, settings.files_bytes_per_key, settings.files_per_key),
            batches=BatchStore(redis),
            storage=open_storage(settings),
            tracing=open_tracing(settings),
        )

    def install(self, app: Flask) -> None:
        """Make these the services of an app."""
        app.extensions[NAME] = self


def services(app: Flask | None = None) -> Services:
    """The services of an app; by default, of the one that handles the current request."""
    if app is None:
        app = current_app._get_current_object()  # type: ignore[attr-defined]
    installed: Services = app.extensions[NAME]
    return installed
