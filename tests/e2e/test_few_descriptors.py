"""Web and worker with few file descriptors: slower, and well again afterwards."""

from __future__ import annotations

import socket
from collections.abc import Iterator

import pytest
import requests

from gateway.account.api_keys import KeyStore
from tests.support.stack import PATIENCE_SECONDS, PEPPER, Process, Stack, until

pytestmark = pytest.mark.slow

LIMITS = {"web": 200, "worker": 96}  # one key gets seven eighths of the web process


class FewDescriptors(Stack):
    """A service whose processes may have LIMITS descriptors."""

    def start_process(self, command: list[str], name: str) -> Process:
        limited = ["sh", "-c", f'ulimit -n {LIMITS[name]} && exec "$0" "$@"', *command]
        return super().start_process(limited, name)


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    with FewDescriptors(tmp_path_factory.mktemp("few")) as running:
        yield running


def test_a_crowd_of_connections_does_not_break_a_fresh_web_process(stack: Stack) -> None:
    made_up = KeyStore(stack.redis, "another pepper").create("a key with a right checksum")
    address = ("127.0.0.1", stack.port)
    crowd = [socket.create_connection(address, PATIENCE_SECONDS) for _ in range(2 * LIMITS["web"])]
    for _ in range(10):
        headers = {"Authorization": f"Bearer {made_up}"}
        response = requests.post(
            f"{stack.url}/chat/completions", json={}, headers=headers, timeout=PATIENCE_SECONDS
        )
        assert response.status_code == 401
    for connection in crowd:
        connection.close()
    assert stack.ask("fake/echo", "well again").status_code == 200
    assert PEPPER not in stack.logs()


def test_a_worker_takes_no_more_calls_at_once_than_it_has_descriptors_for(stack: Stack) -> None:
    results = [stack.in_background("fake/delay-50", f"call {n}") for n in range(30)]
    statuses = [result.get(timeout=PATIENCE_SECONDS).status_code for result in results]
    assert set(statuses) == {200}
    until(lambda: stack.ask("fake/echo", "afterwards").status_code == 200)
    assert "calls at once instead of 1000" in stack.logs()
