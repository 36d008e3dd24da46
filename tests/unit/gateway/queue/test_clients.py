"""gateway/queue/clients.py: what each kind of address gets, and that no command is sent twice."""

from __future__ import annotations

import signal
import socket
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from types import FrameType

import pytest
from redis import Connection, Redis, SSLConnection, UnixDomainSocketConnection
from redis.exceptions import ConnectionError, ResponseError, TimeoutError

from gateway.queue import clients
from gateway.queue.clients import DedicatedConnection
from gateway.settings import Settings
from gateway.stalls import Stalls


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
    assert isinstance(connection, kind)
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
    pool = client.connection_pool
    taken = [pool.get_connection(), pool.get_connection()]
    with pytest.raises(ConnectionError):
        client.ping()
    pool.release(taken[0])
    assert client.ping()
    pool.release(taken[1])
    pool.disconnect()


# a process that stood still


class Stood(Stalls):
    """Says at every look that the process has just stood still for so long."""

    def __init__(self, seconds: float) -> None:
        super().__init__()
        self.stalled = seconds

    def seconds(self) -> float:
        return self.stalled


def test_a_process_that_stood_still_reads_on(
    redis: Redis, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(clients, "IMPATIENT_SECONDS", 0.1)
    client = clients.commands(settings, 1, Stood(0.1))
    assert client.blpop("empty", 0.5) is None, "the reply came after 0.5 s"
    assert client.ping()
    client.connection_pool.disconnect()


def test_a_redis_that_stays_silent_is_away_for_a_process_that_stood_still_too(
    server: Callable[[bool], SilentServer],
    settings: Settings,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(clients, "IMPATIENT_SECONDS", 0.2)
    silent = server(False)
    client = clients.commands(replace(settings, redis_url=silent.url), 1, Stood(0.15))
    began = time.monotonic()
    with pytest.raises(TimeoutError):
        client.rpush("list", "once")
    assert time.monotonic() - began > 0.7, "each wait counts for what it was awake"
    client.connection_pool.disconnect()
    assert silent.commands == [b"RPUSH"]


def test_who_waits_for_a_connection_waits_while_others_get_replies(
    redis: Redis, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(clients, "IMPATIENT_SECONDS", 0.2)
    pool = clients.commands(settings, 1).connection_pool
    served = []

    def use() -> None:
        connection = pool.get_connection()
        served.append(connection)
        time.sleep(0.08)
        pool.release(connection)

    threads = [threading.Thread(target=use) for _ in range(8)]  # the last waits longer than 0.2 s
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(served) == 8
    pool.disconnect()


def test_nobody_waits_for_a_pool_whose_connections_all_fail(
    server: Callable[[bool], SilentServer],
    settings: Settings,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(clients, "IMPATIENT_SECONDS", 0.3)
    client = clients.commands(replace(settings, redis_url=server(False).url), 1)
    took = []

    def use() -> None:
        began = time.monotonic()
        with pytest.raises((ConnectionError, TimeoutError)):
            client.get("key")
        took.append(time.monotonic() - began)

    threads = [threading.Thread(target=use) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert max(took) < 1.2, "eight waits of 0.3 s each, one after the other"
    client.connection_pool.disconnect()


# dedicated connections


@pytest.fixture
def connection(redis: Redis, settings: Settings) -> Iterator[DedicatedConnection]:
    connection = DedicatedConnection(clients.blocking(settings))
    yield connection
    connection.disconnect()


def connections(redis: Redis) -> int:
    """How many connections Redis has besides this test's own."""
    return len(redis.client_list()) - 1


def test_a_dedicated_connection_is_opened_when_it_is_first_used_and_kept(
    redis: Redis, connection: DedicatedConnection
) -> None:
    before = connections(redis)
    for _ in range(3):
        assert connection.execute("PING") == b"PONG"
        assert connections(redis) == before + 1


def test_a_refused_command_of_many_has_its_refusal_for_a_reply(
    connection: DedicatedConnection,
) -> None:
    commands = [("SET", "key", "value"), ("LPOP", "key"), ("GET", "key"), ("NONSENSE",)]
    stored, wrong, value, unknown = connection.round_trip(commands)
    assert (stored, value) == (b"OK", b"value")
    assert isinstance(wrong, ResponseError)
    assert isinstance(unknown, ResponseError)
    assert connection.round_trip([]) == []
    assert connection.execute("GET", "key") == b"value"


def test_a_refused_command_on_its_own_raises(connection: DedicatedConnection) -> None:
    with pytest.raises(ResponseError):
        connection.execute("NONSENSE")
    assert connection.execute("PING") == b"PONG"


def test_a_connection_that_redis_closed_while_it_was_idle_is_replaced(
    redis: Redis, connection: DedicatedConnection, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(clients, "IDLE_SECONDS", 0)
    connection.execute("PING")
    redis.client_kill_filter(_type="normal", skipme=True)
    assert connection.execute("PING") == b"PONG"


def test_a_reply_that_was_not_waited_for_is_no_answer_to_the_next_command(
    redis: Redis, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(clients, "BLOCKING_READ_SECONDS", 0.05)
    connection = DedicatedConnection(clients.blocking(settings))
    with pytest.raises(TimeoutError):
        connection.execute("BLPOP", "empty", 0.2)
    redis.set("key", "mine")
    assert connection.execute("GET", "key") == b"mine"
    connection.disconnect()


class SlowLink:
    """A way to Redis that passes on PIECE bytes at a time, and waits in between."""

    PIECE, SECONDS = 65_536, 0.02

    def __init__(self, path: str) -> None:
        self._path = path
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._listener.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, self.PIECE)
        self.url = f"redis://127.0.0.1:{self._listener.getsockname()[1]}/0"
        self._threads = [threading.Thread(target=self._serve)]
        self._threads[0].start()

    def _serve(self) -> None:
        client, _ = self._listener.accept()
        with client, socket.socket(socket.AF_UNIX) as redis:
            redis.connect(self._path)
            back = threading.Thread(target=self._pass, args=(redis, client, 0))
            back.start()
            self._pass(client, redis, self.SECONDS)
            back.join()

    def _pass(self, source: socket.socket, target: socket.socket, pause: float) -> None:
        while data := source.recv(self.PIECE):
            target.sendall(data)
            time.sleep(pause)
        target.shutdown(socket.SHUT_WR)

    def close(self) -> None:
        self._threads[0].join()
        self._listener.close()


@pytest.mark.skipif(not hasattr(socket, "TCP_NOTSENT_LOWAT"), reason="Linux only")
def test_a_large_command_over_a_slow_link_may_take_its_time(
    redis: Redis, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(clients, "IMPATIENT_SECONDS", 0.5)
    link = SlowLink(redis.connection_pool.connection_kwargs["path"])
    connection = DedicatedConnection(clients.commands(replace(settings, redis_url=link.url), 1))
    body = b"x" * 5_000_000  # takes 1.5 s
    began = time.monotonic()
    assert connection.round_trip([("SET", "large", body), ("PING",)]) == [b"OK", b"PONG"]
    assert 0.5 < time.monotonic() - began < clients.patience(len(body))
    assert redis.get("large") == body
    connection.disconnect()
    link.close()


def test_a_greenlet_that_is_killed_leaves_no_reply_behind(
    connection: DedicatedConnection,
) -> None:
    class Killed(BaseException):
        pass

    def kill(number: int, frame: FrameType | None) -> None:
        raise Killed

    before = signal.signal(signal.SIGALRM, kill)
    signal.setitimer(signal.ITIMER_REAL, 0.05)
    with pytest.raises(Killed):
        connection.execute("BLPOP", "empty", 3)
    signal.signal(signal.SIGALRM, before)
    assert connection.execute("PING") == b"PONG"


def test_many_commands_whose_replies_do_not_come_are_sent_once(
    server: Callable[[bool], SilentServer], settings: Settings
) -> None:
    silent = server(True)
    client = clients.commands(replace(settings, redis_url=silent.url), 1)
    connection = DedicatedConnection(client)
    with pytest.raises(ConnectionError):
        connection.round_trip([("RPUSH", "list", "once")])
    connection.disconnect()
    assert silent.commands == [b"RPUSH"]


class BrokenOnce(Connection):
    """A connection that cannot be made the first time."""

    tries = 0

    def __init__(self, **options: object) -> None:
        type(self).tries += 1
        if self.tries == 1:
            raise OSError("too many open files")
        super().__init__(**options)


def test_a_connection_that_cannot_be_made_takes_no_slot_of_the_pool() -> None:
    pool = clients.Pool(max_connections=1, connection_class=BrokenOnce, timeout=0.01)
    with pytest.raises(OSError, match="too many"):
        pool.get_connection()
    assert pool.pool.qsize() == 1


def test_a_connection_reads_no_file(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    pool = clients.commands(settings, 1).connection_pool

    def refuse(*_: object, **__: object) -> None:
        raise OSError("too many open files")

    monkeypatch.setattr("io.open", refuse)
    monkeypatch.setattr("builtins.open", refuse)
    assert pool.make_connection().driver_info is clients.DRIVER


@pytest.mark.parametrize("kind", ["pool", "dedicated"])
def test_own_lack_of_descriptors_is_not_called_redis_being_away(
    settings: Settings,
    no_descriptors: Callable[[], None],
    caplog: pytest.LogCaptureFixture,
    kind: str,
) -> None:
    client = clients.commands(settings, 1)
    dedicated = DedicatedConnection(client)
    no_descriptors()
    with pytest.raises(clients.OutOfDescriptors):
        if kind == "pool":
            client.ping()
        else:
            dedicated.execute("PING")
    assert "no file descriptors are left" in caplog.text
