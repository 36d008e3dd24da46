"""workers/google_tokens.py: access tokens of a service account as keys of a provider."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs

import gevent
import pytest
import requests

from gateway.chat import ChatCall
from gateway.errors import UpstreamAuth
from gateway.settings import ConfigurationError
from providers import create
from tests.support.whole import CannedTransport
from workers.google_tokens import TokenProvider, service_account

CALL = ChatCall("google/gemini-3-pro", {"messages": []})


class Account:
    """Credentials whose tokens are numbered."""

    def __init__(self) -> None:
        self.token, self.valid, self.refreshed = "", False, 0
        self.error: Exception | None = None

    def refresh(self, request: Any) -> None:
        gevent.sleep(0)
        if self.error is not None:
            raise self.error
        self.refreshed += 1
        self.token, self.valid = f"token-{self.refreshed}", True


@pytest.fixture
def account() -> Account:
    return Account()


@pytest.fixture
def transport() -> CannedTransport:
    return CannedTransport()


@pytest.fixture
def provider(account: Account, transport: CannedTransport) -> TokenProvider:
    def make(token: str) -> Any:
        return create(
            "openai", base_url="http://a/v1", api_key=token, headers={}, transport=transport
        )

    return TokenProvider(account, None, make)


def test_a_token_is_fetched_once_and_sent_with_every_call(
    provider: TokenProvider, account: Account, transport: CannedTransport
) -> None:
    provider.complete(CALL)
    list(provider.stream(CALL))
    provider.embed("m", {"input": "hi"})
    assert transport.request.headers["Authorization"] == "Bearer token-1"
    assert account.refreshed == 1


def test_a_token_that_expires_is_replaced(
    provider: TokenProvider, account: Account, transport: CannedTransport
) -> None:
    provider.complete(CALL)
    account.valid = False
    provider.complete(CALL)
    assert transport.request.headers["Authorization"] == "Bearer token-2"


def test_calls_at_the_same_time_share_one_refresh(
    provider: TokenProvider, account: Account
) -> None:
    gevent.joinall([gevent.spawn(provider.complete, CALL) for _ in range(5)], raise_error=True)
    assert account.refreshed == 1


def test_a_refresh_that_fails_is_the_operator_s_to_mend(
    provider: TokenProvider, account: Account
) -> None:
    account.error = ValueError("invalid_grant")
    with pytest.raises(UpstreamAuth):
        provider.complete(CALL)


def test_without_google_auth_the_worker_says_what_to_install(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def absent(name: str) -> None:
        raise ImportError(name)

    monkeypatch.setattr("workers.google_tokens.import_module", absent)
    with pytest.raises(ConfigurationError, match=r"pip install -r requirements-vertex.txt"):
        service_account("key.json", None)


def test_a_file_that_is_no_key_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    class Module:
        class Credentials:
            @staticmethod
            def from_service_account_file(path: str, scopes: list[str]) -> None:
                raise ValueError("No key could be detected.")

        Request = staticmethod(lambda http: http)

    monkeypatch.setattr("workers.google_tokens.import_module", lambda name: Module)
    with pytest.raises(ConfigurationError, match=r"key.json is no key of a service account"):
        service_account(str(tmp_path / "key.json"), None)


@pytest.fixture
def token_server() -> Iterator[Any]:
    """A server as that of Google, which gives numbered tokens for an hour."""

    class Handler(BaseHTTPRequestHandler):
        def log_message(self, *_: object) -> None:
            pass

        def do_POST(self) -> None:
            form = parse_qs(self.rfile.read(int(self.headers["Content-Length"])).decode())
            server.forms.append(form)
            token = {"access_token": f"ya29.{len(server.forms)}", "expires_in": 3600}
            body = json.dumps({**token, "token_type": "Bearer"}).encode()
            self.send_response(server.status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

    server: Any = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.forms, server.status = [], 200
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield server
    server.shutdown()
    server.server_close()


def test_google_s_library_signs_for_a_token(
    token_server: Any, tmp_path: Path, transport: CannedTransport
) -> None:
    from cryptography.hazmat.primitives import serialization
    from cryptography.hazmat.primitives.asymmetric import rsa

    key = rsa.generate_private_key(public_exponent=65537, key_size=2048).private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )
    path = tmp_path / "account.json"
    account = {
        "type": "service_account",
        "client_email": "me@project.iam.gserviceaccount.com",
        "private_key": key.decode(),
        "private_key_id": "1",
        "token_uri": f"http://127.0.0.1:{token_server.server_port}/token",
    }
    path.write_text(json.dumps(account))
    credentials, request = service_account(str(path), requests.Session())

    def make(token: str) -> Any:
        return create(
            "openai", base_url="http://a/v1", api_key=token, headers={}, transport=transport
        )

    provider = TokenProvider(credentials, request, make)
    provider.complete(CALL)
    provider.complete(CALL)
    assert transport.request.headers["Authorization"] == "Bearer ya29.1"
    (form,) = token_server.forms
    assert form["grant_type"] == ["urn:ietf:params:oauth:grant-type:jwt-bearer"]
    assert len(form["assertion"][0].split(".")) == 3
    # A refusal is no traceback with the key in it, but the error of a wrong key.
    fresh, request = service_account(str(path), requests.Session())
    token_server.status = 401
    with pytest.raises(UpstreamAuth):
        TokenProvider(fresh, request, make).complete(CALL)
