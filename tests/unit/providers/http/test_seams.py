"""The parts of libraries that providers/http/connection.py overrides are where it expects them.

A failure here names what a new version has moved: read its source, and mend the override or drop
it. The table at the head of connection.py says what each is for.
"""

import inspect

import pytest
import urllib3
from urllib3.util.connection import is_connection_dropped

from providers.http import connection

PlainPool, SecurePool = urllib3.HTTPConnectionPool, urllib3.HTTPSConnectionPool


def source_of(owner, name):
    return inspect.getsource(inspect.getattr_static(owner, name))


# What we override or call, and the code of the library that must use it.
USES = [
    ("_new_conn", urllib3.connection.HTTPConnection, "connect"),
    ("_new_conn", urllib3.connection.HTTPSConnection, "connect"),
    ("_dns_host", urllib3.connection.HTTPConnection, "_new_conn"),
    ("conn_kw", PlainPool, "_new_conn"),
    ("conn_kw", SecurePool, "_new_conn"),
    ("_get_conn", PlainPool, "urlopen"),
    ("_put_conn", PlainPool, "urlopen"),
    ("_prepare_proxy", PlainPool, "urlopen"),
    ("connect", SecurePool, "_prepare_proxy"),
    ("ConnectionCls", PlainPool, "_new_conn"),
    ("ConnectionCls", SecurePool, "_new_conn"),
    ("pool_classes_by_scheme", urllib3.PoolManager, "_new_pool"),
]


@pytest.mark.parametrize(("seam", "owner", "user"), USES, ids=[f"{u[0]}-in-{u[2]}" for u in USES])
def test_the_library_still_uses_what_is_overridden(seam, owner, user):
    assert f".{seam}" in source_of(owner, user), f"{owner.__name__}.{user} no longer uses {seam}"


def test_urllib3_still_asks_a_connection_whether_it_is_alive():
    assert ".is_connected" in inspect.getsource(is_connection_dropped)
    assert isinstance(
        inspect.getattr_static(urllib3.connection.HTTPConnection, "is_connected"), property
    )


OVERRIDES = [
    (connection.Connection, urllib3.connection.HTTPConnection, "_new_conn"),
    (connection.Pool, PlainPool, "_put_conn"),
]


@pytest.mark.parametrize(
    ("ours", "theirs", "name"), OVERRIDES, ids=[f"{o[1].__name__}.{o[2]}" for o in OVERRIDES]
)
def test_an_override_takes_the_parameters_of_what_it_overrides(ours, theirs, name):
    def parameters(owner):
        return list(inspect.signature(getattr(owner, name)).parameters)

    assert parameters(ours) == parameters(theirs)


def test_the_idle_connections_of_a_pool_are_in_a_queue_that_can_be_looked_at():
    pool = connection.POOLS["http"]("127.0.0.1", maxsize=2)
    assert list(pool.pool.queue) == [None, None]
    pool.close()


def test_the_table_of_overrides_names_the_installed_version():
    name = f"urllib3 {urllib3.__version__}"
    assert name in (connection.__doc__ or ""), f"check the overrides with {name}"
