"""Connections to the database, and how they wait.

psycopg waits cooperatively where gevent has patched `select` before psycopg is imported, and it
resolves names in Python. SQLite blocks the thread, so it runs in gevent's threads.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import contextmanager
from typing import Any, TypeVar, cast

import gevent
from gevent import monkey
from sqlalchemy import Connection, Engine, NullPool, create_engine, event, exc, make_url

from gateway.account.ledger import LedgerUnavailable, RecordRefused

T = TypeVar("T")

CONNECTIONS = 3  # of one process at most
CONNECT_SECONDS = 5
STATEMENT_SECONDS = 30
BUSY_SECONDS = 10  # that SQLite waits for another process' transaction
POSTGRES_OPTIONS: dict[str, Any] = {
    "connect_timeout": CONNECT_SECONDS,
    # A host that vanished is noticed within 20 s.
    "keepalives_idle": 10,
    "keepalives_interval": 5,
    "keepalives_count": 2,
    "tcp_user_timeout": 20_000,
    "prepare_threshold": None,  # PgBouncer does not know prepared statements
    "application_name": "inference",
}


def make_engine(url: str) -> Engine:
    """Return the engine of a `postgres://`, `postgresql://` or `sqlite:///` URL.

    It connects when it is first used.
    """
    scheme, _, rest = url.partition("://")
    if scheme == "sqlite":
        engine = create_engine(
            make_url(url),
            poolclass=NullPool,
            connect_args={"timeout": BUSY_SECONDS, "check_same_thread": False},
            hide_parameters=True,
        )
        event.listen(engine, "connect", _prepare_sqlite)
        event.listen(engine, "begin", _begin_sqlite)
        return engine
    return create_engine(
        make_url(f"postgresql+psycopg://{rest}"),
        pool_size=CONNECTIONS,
        max_overflow=0,
        pool_timeout=STATEMENT_SECONDS,
        pool_pre_ping=True,
        connect_args=POSTGRES_OPTIONS,
        hide_parameters=True,  # in errors
    )


def _prepare_sqlite(connection: Any, _: object) -> None:
    connection.isolation_level = None  # transactions begin with _begin_sqlite
    for pragma in ("journal_mode = WAL", "synchronous = FULL"):
        connection.execute(f"PRAGMA {pragma}")


def _begin_sqlite(connection: Connection) -> None:
    # A transaction that begins to write later could fail: another may have written meanwhile.
    writes = connection.get_execution_options().get("writes")
    connection.exec_driver_sql("BEGIN IMMEDIATE" if writes else "BEGIN")


@contextmanager
def transaction(engine: Engine, *, writes: bool = False) -> Any:
    """Yield a connection in a transaction. Only one transaction that writes runs at a time.

    Raises LedgerUnavailable where the database does not answer or lacks our tables, RecordRefused
    where it cannot hold a value.
    """
    try:
        with engine.connect() as plain:
            connection = plain.execution_options(writes=writes)
            with connection.begin():
                if engine.dialect.name == "postgresql":
                    connection.exec_driver_sql(
                        f"SET LOCAL statement_timeout = {STATEMENT_SECONDS * 1000}"
                    )
                    if writes:
                        connection.exec_driver_sql("SELECT pg_advisory_xact_lock(671088)")
                yield connection
    except (exc.DataError, exc.IntegrityError, OverflowError) as error:
        raise RecordRefused(type(error).__name__) from error
    except (exc.DBAPIError, exc.TimeoutError) as error:
        raise LedgerUnavailable(_reason(error)) from error


def _reason(error: Exception) -> str:
    """The first line of an error of the driver; SQLAlchemy adds the statement to it."""
    return (str(getattr(error, "orig", None) or error).strip().splitlines() or ["?"])[0]


def off_loop(engine: Engine, function: Callable[..., T], *args: Any) -> T:
    """Return what the function returns; only this greenlet waits for it."""
    if engine.dialect.name != "sqlite" or not monkey.is_module_patched("threading"):
        return function(*args)

    def run() -> tuple[Any, Exception | None]:
        try:
            return function(*args), None
        except Exception as error:  # gevent would write its traceback to standard error
            return None, error

    result, error = gevent.get_hub().threadpool.apply(run)
    if error is not None:
        raise error
    return cast(T, result)
