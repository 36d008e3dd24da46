"""What all tests share: no way out of this machine, one Redis, and the app with a fake broker."""

from __future__ import annotations

import dataclasses
import gc
import ipaddress
import os
import resource
import shutil
import signal
import socket
import tempfile
from pathlib import Path
from typing import Any, ClassVar

import gevent.socket
import hypothesis
import pytest
from flask import Flask
from redis import Redis
from werkzeug.routing import Rule

from api.services import Services
from app import create_app
from gateway.account.api_keys import KeyStore
from gateway.settings import Settings
from local.redis_server import RedisServer
from tests.support.fakes import FakeBroker

# Four endpoints make 20,000 requests of it: `--hypothesis-profile=nightly`, see CONTRIBUTING.md.
hypothesis.settings.register_profile("nightly", max_examples=5_000, deadline=None)


def ignore(*_: object) -> None:
    """Not SIG_IGN, which the processes that tests start would inherit."""


def interrupt(*_: object) -> None:
    signal.signal(signal.SIGTERM, ignore)  # `timeout` sends it twice
    raise KeyboardInterrupt


def pytest_configure(config: pytest.Config) -> None:
    # SIGTERM (of `timeout`, of CI) ends a run as Ctrl-C does, so that fixtures end their processes;
    # xdist's workers leave it to the process that started them.
    in_worker = hasattr(config, "workerinput")
    signal.signal(signal.SIGTERM, ignore if in_worker else interrupt)


class RuleCompiledOnce(Rule):
    """A rule that is compiled once in a process, not once for each of thousands of apps."""

    compiled: ClassVar[dict[tuple[str, str | None, str], dict[str, Any]]] = {}

    def compile(self) -> None:
        key = (self.rule, self.subdomain, repr(self.defaults))
        if key not in self.compiled:
            before = dict(vars(self))
            super().compile()
            changed = {
                name: value
                for name, value in vars(self).items()
                if name not in before or before[name] is not value
            }
            self.compiled[key] = {**changed, "arguments": self.arguments}
        vars(self).update(self.compiled[key])


Flask.url_rule_class = RuleCompiledOnce

UNREACHABLE = "http://127.0.0.1:9/v1"  # calls never get that far: the broker is a fake


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The slow tests first, lest one of them is left at the end with nothing beside it."""
    items.sort(key=lambda item: item.get_closest_marker("slow") is None)


def pytest_collection_finish() -> None:
    """Keep full garbage collections, which many tests make, from looking at all collected tests."""
    gc.collect()
    gc.freeze()


def is_local(family: int, address: object) -> bool:
    """Whether a connection to this address stays on this machine."""
    if family not in (socket.AF_INET, socket.AF_INET6):
        return True
    host = str(address[0]) if isinstance(address, tuple) else str(address)
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def guarded(connect):
    def checked(self, address):
        if not is_local(self.family, address):
            # No Exception, lest the code under test takes it for a network that is down.
            pytest.fail(f"a test tried to connect to {address}")
        return connect(self, address)

    return checked


@pytest.fixture(autouse=True)
def no_network(monkeypatch):
    for kind in (socket.socket, gevent.socket.socket):
        for name in ("connect", "connect_ex"):
            monkeypatch.setattr(kind, name, guarded(getattr(kind, name)))


@pytest.fixture(scope="session")
def redis_url():
    # Not pytest's temporary folder, whose name may be too long for a socket.
    folder = Path(tempfile.mkdtemp(prefix="t-"))
    with RedisServer(folder, persistent=False) as server:
        yield server.url
    shutil.rmtree(folder)


@pytest.fixture
def redis(redis_url):
    client = Redis.from_url(redis_url, protocol=2)
    client.flushall()
    yield client
    client.config_set("maxmemory", 0)  # tests lower it
    client.close()


@pytest.fixture
def settings(redis_url):
    return Settings(
        key_pepper="p" * 40,
        redis_url=redis_url,
        demo_models=True,
        variables={
            "OPENAI_API_KEY": "sk-test-openai",
            "OPENAI_BASE_URL": UNREACHABLE,
            "ANTHROPIC_API_KEY": "sk-ant-test",
            "ANTHROPIC_BASE_URL": UNREACHABLE,
        },
    )


@pytest.fixture
def make_client(redis):
    """A function that returns a test client of an app with a fake broker.

    Its further arguments replace fields of the app's Services.
    """
    clients = []

    def make(settings, broker=None, raising=False, **replaced):
        services = Services.create(settings)
        clients.append(services.broker.redis)
        broker = broker or FakeBroker()
        broker.redis = services.broker.redis
        app = create_app(settings, dataclasses.replace(services, broker=broker, **replaced))
        app.testing = raising
        return app.test_client()

    yield make
    for each in clients:
        each.connection_pool.disconnect()


@pytest.fixture
def no_descriptors():
    """A function after which this process cannot open a file until the test has ended."""
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)

    def exhaust():
        free = os.open(os.devnull, os.O_RDONLY)
        os.close(free)
        resource.setrlimit(resource.RLIMIT_NOFILE, (free, limits[1]))

    yield exhaust
    resource.setrlimit(resource.RLIMIT_NOFILE, limits)


@pytest.fixture
def broker():
    return FakeBroker()


@pytest.fixture
def client(make_client, settings, broker):
    return make_client(settings, broker)


@pytest.fixture
def key(redis, settings):
    return KeyStore(redis, settings.key_pepper).create("tests")


@pytest.fixture
def auth(key):
    return {"Authorization": f"Bearer {key}"}


@pytest.fixture
def make_key(redis, settings):
    """A function that creates another key, with the given fields of its record."""
    store = KeyStore(redis, settings.key_pepper)

    def make(name="tests", **fields):
        return store.create(name, **fields)

    return make
