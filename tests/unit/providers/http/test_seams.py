"""The parts of libraries that providers/http/connection.py overrides are where it expects them.

A failure here names what a new version has moved: read its source, and mend the override or drop
it. The table at the head of connection.py says what each is for.
"""

import http.client
import inspect
import socket

import pytest
import requests
import urllib3
from requests.adapters import HTTPAdapter
from urllib3.util.connection import is_connection_dropped

from providers.base import Request
from providers.http import connection
from providers.http.transport import Transport
from tests.support.raw_upstream import serving

Response = http.client.HTTPResponse
PlainPool, SecurePool = urllib3.HTTPConnectionPool, urllib3.HTTPSConnectionPool


def source_of(owner, name):
    return inspect.getsource(inspect.getattr_static(owner, name))


# What we override, and the code of the library that must use it.
USES = [
    ("response_class", http.client.HTTPConnection, "getresponse"),
    ("begin", http.client.HTTPConnection, "getresponse"),
    ("_read_status", Response, "begin"),
    ("_read1_chunked", Response, "read1"),
    ("connect", http.client.HTTPConnection, "send"),
    ("connect", SecurePool, "_validate_conn"),
    ("_new_conn", urllib3.connection.HTTPConnection, "connect"),
    ("_new_conn", urllib3.connection.HTTPSConnection, "connect"),
    ("_dns_host", urllib3.connection.HTTPConnection, "_new_conn"),
    ("conn_kw", PlainPool, "_new_conn"),
    ("conn_kw", SecurePool, "_new_conn"),
    ("_put_conn", PlainPool, "urlopen"),
    ("_put_conn", urllib3.HTTPResponse, "release_conn"),
    ("ConnectionCls", PlainPool, "_new_conn"),
    ("ConnectionCls", SecurePool, "_new_conn"),
    ("pool_classes_by_scheme", urllib3.PoolManager, "_new_pool"),
    ("init_poolmanager", HTTPAdapter, "__init__"),
    ("proxy_manager_for", HTTPAdapter, "get_connection_with_tls_context"),
    ("get_connection_with_tls_context", HTTPAdapter, "send"),
    ("cert_verify", HTTPAdapter, "send"),
    ("build_response", HTTPAdapter, "send"),
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
    (connection.RawResponse, Response, "begin"),
    (connection.RawResponse, Response, "_read_status"),
    (connection.RawResponse, Response, "_read1_chunked"),
    (connection.Connection, urllib3.connection.HTTPConnection, "connect"),
    (connection.SecureConnection, urllib3.connection.HTTPSConnection, "connect"),
    (connection.Connection, urllib3.connection.HTTPConnection, "_new_conn"),
    (connection.Pool, PlainPool, "_put_conn"),
    (connection.Adapter, HTTPAdapter, "get_connection_with_tls_context"),
    (connection.Adapter, HTTPAdapter, "cert_verify"),
    (connection.Adapter, HTTPAdapter, "build_response"),
]


@pytest.mark.parametrize(
    ("ours", "theirs", "name"), OVERRIDES, ids=[f"{o[1].__name__}.{o[2]}" for o in OVERRIDES]
)
def test_an_override_takes_the_parameters_of_what_it_overrides(ours, theirs, name):
    def parameters(owner):
        return list(inspect.signature(getattr(owner, name)).parameters)

    assert parameters(ours) == parameters(theirs)


def test_a_responses_connection_is_given_back_by_close_conn():
    assert "._close_conn" in source_of(Response, "read1")


@pytest.mark.parametrize(
    ("seam", "user"), [("_error_catcher", "_raw_read"), ("release_conn", "_error_catcher")]
)
def test_urllib3_still_reads_a_body_as_read_arrived_does(seam, user):
    assert f".{seam}(" in source_of(urllib3.HTTPResponse, user)


def test_the_idle_connections_of_a_pool_are_in_a_queue_that_can_be_looked_at():
    pool = connection.POOLS["http"]("127.0.0.1", maxsize=2)
    assert list(pool.pool.queue) == [None, None]
    pool.close()


@pytest.mark.parametrize("kept", ["keep-alive", "close"])
def test_the_timeout_of_a_responses_socket_can_be_changed_once_its_head_is_there(kept, monkeypatch):
    timeouts = []

    def settimeout(self, seconds):
        timeouts.append(seconds)
        plain(self, seconds)

    head = f"HTTP/1.1 200 OK\r\nConnection: {kept}\r\nContent-Length: 2\r\n\r\n"
    with serving(f"{head}{{}}".encode()) as url:
        plain = socket.socket.settimeout
        monkeypatch.setattr(socket.socket, "settimeout", settimeout)
        transport = Transport(read_timeout=60, silence_timeout=7.25)
        with transport.post(Request(url, {}, b"{}")) as response:
            assert timeouts[-1] == 7.25, "set_timeout() finds no socket"
            assert response.read_all() == b"{}"
        transport.close()


@pytest.mark.parametrize("library", [requests, urllib3])
def test_the_table_of_overrides_names_the_installed_version(library):
    name = f"{library.__name__} {library.__version__}"
    assert name in (connection.__doc__ or ""), f"check the overrides and their savings with {name}"
