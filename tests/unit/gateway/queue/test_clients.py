"""gateway/queue/clients.py: what each kind of address gets, and that no command is sent twice."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable, Iterator
from dataclasses import replace

import pytest
from redis import Connection, Redis, SSLConnection, UnixDomainSocketConnection
from redis.exceptions import ConnectionError, ResponseError, TimeoutError

from gateway.queue import clients
from gateway.settings import Settings


class SilentServer:
    """Speaks enough of Redis' protocol to be connected to, and never answers a real command: it
    closes the connection instead, or says nothing."""

    def __init__(self, closes: bool) -> None:
        self.commands: list[bytes] = []
        self.accepted = 0
        self._closes, self._ending = closes, False
        self._open: list[socket.socket] = []
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._address = self._listener.getsockname()
        self.url = f"redis://127.0.0.1:{self._address[1]}/0"
        self._thread = threading.Thread(target=self._serve)
        self._thread.start()

    def close(self) -> None:
        self._ending = True
        socket.create_connection(self._address).close()  # a closed listener would not wake it
        self._thread.join()
        self._listener.close()
        for connection in self._open:
            connection.close()

    def _serve(self) -> None:
        while True:
            connection, _ = self._listener.accept()
            self._open.append(connection)
            if self._ending:
                return
            self.accepted += 1
            self._talk(connection)

    def _talk(self, connection: socket.socket) -> None:
        with connection.makefile("rb") as lines:
            while head := lines.readline():
                words = []
                for _ in range(int(head[1:])):
                    size = int(lines.readline()[1:])
                    words.append(lines.read(size + 2)[:-2])
                if words[0].upper() in (b"CLIENT", b"SELECT"):
                    connection.sendall(b"+OK\r\n")
                    continue
                self.commands.append(words[0])
                if self._closes:
                    connection.shutdown(socket.SHUT_RDWR)


@pytest.fixture
def server() -> Iterator[Callable[[bool], SilentServer]]:
    started = []

    def start(closes: bool) -> SilentServer:
        started.append(SilentServer(closes))
        return started[-1]

    yield start
    for each in started:
        each.close()


def made(client: Redis) -> Connection:
    """A connection as the pool would make it; it is not opened."""
    pool = client.connection_pool
    return pool.connection_class(**pool.connection_kwargs)


def commands(settings: Settings) -> Redis:
    return clients.commands(settings, 5)


KINDS = pytest.mark.parametrize("make", [commands, clients.blocking])


@KINDS
@pytest.mark.parametrize(
    ("url", "kind"),
    [
        ("unix:///run/redis.sock", UnixDomainSocketConnection),
        ("redis://127.0.0.1:6379/0", Connection),
        ("rediss://user:secret@redis.example.com:6380", SSLConnection),
    ],
)
def test_every_kind_of_address_gets_its_kind_of_connection_and_its_times(
    make: Callable[[Settings], Redis], url: str, kind: type[Connection], settings: Settings
) -> None:
    connection = made(make(replace(settings, redis_url=url)))
    assert type(connection) is kind
    patience = 1.5 if make is commands else 4.0
    assert (connection.socket_connect_timeout, connection.socket_timeout) == (1.0, patience)
    assert connection.retry.get_retries() == 0
    assert connection.health_check_interval == 0
    if kind is not UnixDomainSocketConnection:
        assert connection.socket_keepalive


def test_a_blocking_read_is_given_up_after_it_should_have_ended() -> None:
    assert clients.BLOCK_SECONDS < clients.BLOCKING_READ_SECONDS


@KINDS
@pytest.mark.parametrize("verify", [False, True])
def test_the_certificate_of_redis_is_checked_only_where_asked_for(
    make: Callable[[Settings], Redis], verify: bool, settings: Settings
) -> None:
    settings = replace(settings, redis_url="rediss://redis.example.com", redis_verify_tls=verify)
    options = made(make(settings))
    assert isinstance(options, SSLConnection)
    assert options.cert_reqs.name == ("CERT_REQUIRED" if verify else "CERT_NONE")
    assert options.check_hostname is verify


@KINDS
@pytest.mark.parametrize("closes", [True, False], ids=["closes", "says nothing"])
def test_a_command_whose_reply_does_not_come_is_sent_once(
    make: Callable[[Settings], Redis],
    closes: bool,
    server: Callable[[bool], SilentServer],
    settings: Settings,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(clients, "IMPATIENT_SECONDS", 0.2)
    monkeypatch.setattr(clients, "BLOCKING_READ_SECONDS", 0.2)
    silent = server(closes)
    client = make(replace(settings, redis_url=silent.url))
    with pytest.raises(ConnectionError if closes else TimeoutError):
        client.rpush("list", "once")
    client.connection_pool.disconnect()
    assert silent.commands == [b"RPUSH"]
    assert silent.accepted == 1


@KINDS
def test_a_pipeline_whose_replies_do_not_come_is_sent_once(
    make: Callable[[Settings], Redis],
    server: Callable[[bool], SilentServer],
    settings: Settings,
) -> None:
    silent = server(True)
    client = make(replace(settings, redis_url=silent.url))
    with client.pipeline(transaction=False) as pipeline, pytest.raises(ConnectionError):
        pipeline.rpush("list", "once").execute()
    client.connection_pool.disconnect()
    assert silent.commands == [b"RPUSH"]


def test_a_redis_that_is_not_there_is_an_error_and_no_wait(settings: Settings) -> None:
    with socket.create_server(("127.0.0.1", 0)) as unused:
        url = f"redis://127.0.0.1:{unused.getsockname()[1]}/0"
    client = clients.commands(replace(settings, redis_url=url), 1)
    with pytest.raises(ConnectionError):
        client.ping()


def test_replies_are_bytes(redis: Redis, settings: Settings) -> None:
    client = clients.commands(settings, 1)
    client.set("key", "value")
    assert client.get("key") == b"value"
    client.connection_pool.disconnect()


def test_who_finds_every_connection_taken_is_refused_in_time(
    redis: Redis, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(clients, "IMPATIENT_SECONDS", 0.1)
    client = clients.commands(settings, 2)
    taken = [clients.take(client), clients.take(client)]
    with pytest.raises(ConnectionError):
        client.ping()
    clients.give_back(client, taken[0])
    assert client.ping()
    clients.give_back(client, taken[1])
    client.connection_pool.disconnect()


def test_a_client_for_blocking_reads_has_one_connection(
    redis: Redis, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(clients, "IMPATIENT_SECONDS", 0.1)
    client = clients.blocking(settings)
    taken = clients.take(client)
    with pytest.raises(ConnectionError):
        clients.take(client)
    clients.give_back(client, taken)
    client.connection_pool.disconnect()


def test_a_connection_given_back_is_used_again(redis: Redis, settings: Settings) -> None:
    client = clients.commands(settings, 1)
    first = clients.take(client)
    clients.give_back(client, first)
    assert clients.take(client) is first
    clients.give_back(client, first)
    client.connection_pool.disconnect()


def test_a_reply_still_on_its_way_is_nobodys_answer(redis: Redis, settings: Settings) -> None:
    client = clients.commands(settings, 1)
    redis.set("key", "mine")
    connection = clients.take(client)
    connection.send_command("BLPOP", "empty", 0.2)
    clients.give_back(client, connection, broken=True)
    assert client.get("key") == b"mine"
    client.connection_pool.disconnect()


def test_a_refused_command_of_many_has_its_refusal_for_a_reply(
    redis: Redis, settings: Settings
) -> None:
    client = clients.commands(settings, 1)
    connection = clients.take(client)
    commands = [("SET", "key", "value"), ("LPOP", "key"), ("GET", "key"), ("NONSENSE",)]
    stored, wrong, value, unknown = clients.round_trip(connection, commands)
    assert (stored, value) == (b"OK", b"value")
    assert isinstance(wrong, ResponseError)
    assert isinstance(unknown, ResponseError)
    assert clients.round_trip(connection, []) == []
    clients.give_back(client, connection)
    assert client.get("key") == b"value"
    client.connection_pool.disconnect()


def test_many_commands_whose_replies_do_not_come_are_sent_once(
    server: Callable[[bool], SilentServer], settings: Settings
) -> None:
    silent = server(True)
    client = clients.commands(replace(settings, redis_url=silent.url), 1)
    connection = clients.take(client)
    with pytest.raises(ConnectionError):
        clients.round_trip(connection, [("RPUSH", "list", "once")])
    clients.give_back(client, connection, broken=True)
    client.connection_pool.disconnect()
    assert silent.commands == [b"RPUSH"]
