"""Reads of the account's database while it stands still: nobody else waits for them."""

from __future__ import annotations

import queue
import threading
from pathlib import Path

import pytest
import requests

from gateway.account.database import schema
from gateway.account.database.engine import make_engine
from tests.faults.proxy import FaultProxy
from tests.support.postgres import PostgresServer
from tests.support.stack import PATIENCE_SECONDS, Stack, until

pytestmark = pytest.mark.slow

READS = ("/usage", "/generations", "/generations/none")


def get(stack: Stack, path: str) -> queue.Queue[requests.Response]:
    """Send a GET in a thread; its response comes out of the queue."""
    result: queue.Queue[requests.Response] = queue.Queue()

    def send() -> None:
        url, headers = stack.url + path, stack.headers()
        result.put(requests.get(url, headers=headers, timeout=PATIENCE_SECONDS))

    threading.Thread(target=send, daemon=True).start()
    return result


def test_a_database_that_hangs_holds_up_nothing_but_its_reads(tmp_path: Path) -> None:
    with PostgresServer() as server, FaultProxy(f"{server.folder}/.s.PGSQL.5432") as proxy:
        engine = make_engine(server.url)
        schema.upgrade(engine)
        engine.dispose()
        url = f"postgres://postgres@127.0.0.1:{proxy.port}/postgres"
        with Stack(tmp_path / "stack", env={"DATABASE_URL": url}) as stack:
            assert get(stack, "/usage").get(timeout=PATIENCE_SECONDS).status_code == 200
            proxy.blackhole()
            reads = [get(stack, path) for path in READS]
            for _ in range(10):
                assert stack.ask("fake/echo").status_code == 200
            assert all(read.empty() for read in reads)
            proxy.heal()
            # What went into the hole is lost: those reads get a 503, and the next ones answers.
            for read in reads:
                assert read.get(timeout=PATIENCE_SECONDS).status_code in (200, 404, 503)
            until(lambda: get(stack, "/usage").get(timeout=PATIENCE_SECONDS).status_code == 200)
