"""The operator's commands for the account: `flask db upgrade`, and `flask account ...`."""

from __future__ import annotations

import csv
import sys
from datetime import UTC, datetime, timedelta
from decimal import Decimal, DecimalException
from typing import Any

import click
from flask.cli import AppGroup

from api.commands import RedisGroup
from api.services import services
from api.usage import reports
from gateway.account import books, counters
from gateway.account.key_fields import NANO
from gateway.account.ledger import GROUPS, LedgerUnavailable, Sums, UsageQuery
from gateway.queue import keys

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


class AccountGroup(RedisGroup):
    """Commands that end with one line where Redis or the database does not answer."""

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except LedgerUnavailable as error:
            raise click.ClickException(f"the database does not answer: {error}") from None


account = AccountGroup("account", help="Check, correct and export the account.")


@account.command("check")
def check() -> None:
    """Compare counters, sums and records of every key and owner; exit code 1 if they differ."""
    parts = services()
    scopes = [record.public_id for record in parts.keys.all()]
    scopes += [keys.owner_scope(record.id) for record in parts.owners.all()]
    differing = books.differences(parts.broker.redis, parts.ledger, scopes)
    for each in differing:
        click.echo(
            f"{each.scope}  {each.window}:  {each.book} {_amounts(each.counted)},"
            f"  ledger {_amounts(each.summed)}"
        )
    if differing:
        raise click.exceptions.Exit(1)
    click.echo(f"Counters, sums and records of {len(scopes)} keys and owners are equal.")


@account.command("correct")
@click.argument("public_id")
@click.option("--usd", required=True, help="What to add to what was spent, for instance -1.50.")
@click.option("--why", required=True, help="The reason; the record of the correction keeps it.")
def correct(public_id: str, usd: str, why: str) -> None:
    """Correct what the key with this PUBLIC_ID, and its owner, have spent."""
    public_id = public_id.removeprefix("mk_inference_")[:12]
    try:
        nano = Decimal(usd) * NANO
    except DecimalException:
        nano = Decimal("NaN")
    if not nano.is_finite() or not 0 < abs(nano) < 2**53 or nano != int(nano):
        raise click.ClickException(
            f"--usd must be an amount with at most 9 decimals, not 0 and below 9 million: {usd}"
        )
    key = services().keys.get(public_id)
    if key is None:
        raise click.ClickException(f"there is no key {public_id}")
    record = books.correct(services().broker.redis, key, int(nano), why)
    click.echo(f"{record.id}: {_usd(int(nano))} USD for {public_id}")


@account.command("export")
@click.option("--month", required=True, help="For instance 2026-11, in UTC.")
def export(month: str) -> None:
    """Write a month's usage as CSV, a line for each key, owner, model and kind.

    Its columns have the names of `GET /usage`; costs are in USD.
    """
    try:
        first = datetime.strptime(month, "%Y-%m").replace(tzinfo=UTC)
        following = (first + timedelta(days=32)).replace(day=1)
    except (ValueError, OverflowError):
        raise click.ClickException(f"--month must be a month such as 2026-11: {month}") from None
    query = UsageQuery(int(first.timestamp()), int(following.timestamp()), "1d", GROUPS)
    rows: dict[tuple[str, ...], Sums] = {}
    for bucket in services().ledger.usage(query):
        for row in bucket.rows:
            group = tuple(str(getattr(row, name)) for name in GROUPS)
            rows[group] = rows.get(group, Sums()) + row.sums
    writer = csv.writer(sys.stdout)
    names = reports.columns(reports.USAGE)
    writer.writerow(["month", *GROUPS, *names])
    for group, sums in sorted(rows.items()):
        result = reports.USAGE.result(sums)
        counts = (reports.number(result[name]) for name in names)
        writer.writerow([month, *map(reports.cell, group), *counts])


def _amounts(spend: counters.Spend) -> str:
    return f"{_usd(spend.usd)} USD, {spend.tokens} tokens, {spend.requests} calls"


def _usd(nano: int) -> str:
    return f"{Decimal(nano) / NANO:f}"
