"""Ledgers in each of the three stores, empty."""

import dataclasses

import pytest
from sqlalchemy import text

from gateway.account.database import schema
from gateway.account.database.engine import make_engine
from gateway.account.ledger import open_ledger
from tests.support.postgres import PostgresServer


@pytest.fixture(scope="session")
def postgres():
    with PostgresServer() as server:
        yield server


@pytest.fixture
def postgres_url(postgres):
    """The URL of an empty database."""
    engine = make_engine(postgres.url)
    with engine.begin() as connection:
        connection.execute(text("DROP SCHEMA public CASCADE"))
        connection.execute(text("CREATE SCHEMA public"))
    engine.dispose()
    return postgres.url


@pytest.fixture
def sqlite_url(tmp_path):
    """The URL of a database that does not exist yet."""
    return f"sqlite:///{tmp_path}/account.db"


@pytest.fixture(params=["sqlite", "postgres"])
def database_url(request):
    """The URL of an empty database."""
    return request.getfixturevalue(f"{request.param}_url")


@pytest.fixture
def make_ledger(settings, redis):
    """A function that returns a ledger in the database of a URL, which gets its tables."""
    engines = []

    def make(url, **changes):
        chosen = dataclasses.replace(settings, database_url=url, **changes)
        ledger = open_ledger(chosen, redis)
        engines.append(ledger.engine)
        schema.upgrade(ledger.engine)
        return ledger

    yield make
    for engine in engines:
        engine.dispose()


@pytest.fixture(params=["redis", "sqlite", "postgres"])
def ledger(request, settings, redis):
    """An empty ledger."""
    if request.param == "redis":
        return open_ledger(settings, redis)
    make_ledger = request.getfixturevalue("make_ledger")
    return make_ledger(request.getfixturevalue(f"{request.param}_url"))
