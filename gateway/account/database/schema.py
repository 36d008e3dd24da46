"""The revision of the tables: the one there is, the one this release needs, and the way there."""

from __future__ import annotations

import logging
from pathlib import Path

from sqlalchemy import Connection, Engine, inspect, text

from gateway.account.database.engine import make_engine, off_loop, transaction
from gateway.settings import ConfigurationError

FOLDER = Path(__file__).parent / "migrations"
# Revisions are numbers, so that an older release recognizes a newer one.
HEAD = max(file.name[:4] for file in (FOLDER / "versions").glob("[0-9]*.py"))


def revision(connection: Connection) -> str:
    """Return the revision of the tables; "" if there are none."""
    if not inspect(connection).has_table("alembic_version"):
        return ""
    return connection.execute(text("SELECT version_num FROM alembic_version")).scalar() or ""


def check(engine: Engine) -> None:
    """Raise ConfigurationError if the tables are not those of this release or of a newer one.

    Migrations are additive: this release works with the tables of a newer one, as during a deploy
    and after a rollback. Raises LedgerUnavailable.
    """
    off_loop(engine, _check, engine)


def _check(engine: Engine) -> None:
    with transaction(engine) as connection:
        current = revision(connection)
    if current != HEAD and not (current.isdecimal() and current > HEAD):
        raise ConfigurationError(
            f"the tables of DATABASE_URL have revision {current or 'none'}, and this release needs "
            f"{HEAD}: run `flask db upgrade`"
        )


def upgrade(engine: Engine) -> tuple[str, str]:
    """Bring the tables to the revision of this release; return the revisions before and after.

    Raises LedgerUnavailable. Several processes may call it at once.
    """
    logging.getLogger("alembic").setLevel(logging.WARNING)  # it logs its import too
    from alembic import command  # only here: it takes memory
    from alembic.config import Config

    config = Config()
    config.set_main_option("script_location", str(FOLDER).replace("%", "%%"))
    with transaction(engine, writes=True) as connection:
        before = revision(connection)
        if not (before.isdecimal() and before > HEAD):
            config.attributes["connection"] = connection
            command.upgrade(config, "head")
        return before, revision(connection)


def upgrade_url(url: str) -> tuple[str, str]:
    """Do what `upgrade` does, for the database of a URL."""
    engine = make_engine(url)
    try:
        return upgrade(engine)
    finally:
        engine.dispose()


def differences(engine: Engine) -> list[object]:
    """Return how the database differs from the tables of the code. Raises LedgerUnavailable."""
    from alembic.autogenerate import compare_metadata
    from alembic.migration import MigrationContext

    from gateway.account.database.tables import metadata

    with transaction(engine) as connection:
        return list(compare_metadata(MigrationContext.configure(connection), metadata))
