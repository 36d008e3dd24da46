"""The operator's commands for the account: `flask db upgrade`, and `flask account ...`."""

from __future__ import annotations

import click
from flask.cli import AppGroup

from api.services import services
from gateway.account.ledger import LedgerUnavailable

db = AppGroup("db", help="Prepare the database of the account.")


@db.command("upgrade")
def upgrade() -> None:
    """Create or change the tables of DATABASE_URL for this release. Running it again is safe."""
    url = services().settings.database_url
    if not url:
        click.echo("DATABASE_URL is not set: Redis keeps the account.")
        return
    from gateway.account.database import schema  # only here: SQLAlchemy takes 20 MB

    try:
        before, after = schema.upgrade_url(url)
    except LedgerUnavailable as error:
        raise click.ClickException(f"the database does not answer: {error}") from None
    note = "" if before == after else f", before {before or 'none'}"
    click.echo(f"The tables have revision {after}{note}.")
