"""Access tokens of a Google service account, for Vertex AI (`auth = "google"` of a provider).

They last an hour. google-auth is optional: see requirements-vertex.txt.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from importlib import import_module
from typing import Any, Protocol

from gevent.lock import RLock

from gateway.chat import ChatCall, Chunk
from gateway.errors import UpstreamAuth
from gateway.settings import ConfigurationError
from providers.base import IGNORE, OnHead, Provider

SCOPES = ["https://www.googleapis.com/auth/cloud-platform"]


class Credentials(Protocol):
    """What google-auth's credentials have; `valid` is False some minutes before they expire."""

    token: str
    valid: bool

    def refresh(self, request: Any) -> None:
        """Fetch a new token."""
        ...


def service_account(path: str, session: Any) -> tuple[Credentials, Any]:
    """The credentials in the JSON file at `path`, and the request object that refreshes them.

    `session` is one of requests. Raises ConfigurationError where google-auth is not installed
    or the file cannot be used.
    """
    try:
        accounts = import_module("google.oauth2.service_account")
        transport = import_module("google.auth.transport.requests")
    except ImportError as error:
        raise ConfigurationError(
            f"Vertex AI needs google-auth: pip install -r requirements-vertex.txt ({error})"
        ) from None
    try:
        credentials = accounts.Credentials.from_service_account_file(path, scopes=SCOPES)
    except (OSError, ValueError) as error:
        raise ConfigurationError(f"{path} is no key of a service account: {error}") from None
    return credentials, transport.Request(session)


class TokenProvider:
    """A provider whose key is an access token: it is made anew with each token."""

    def __init__(
        self, credentials: Credentials, request: Any, make: Callable[[str], Provider]
    ) -> None:
        self._credentials, self._request, self._make = credentials, request, make
        self._lock = RLock()
        self._token = ""
        self._provider = make("")
        self.streams_only = self._provider.streams_only

    def complete(self, call: ChatCall, on_head: OnHead = IGNORE) -> Chunk:
        """Return the whole response; raises a GatewayError."""
        return self._current().complete(call, on_head)

    def stream(self, call: ChatCall) -> Iterator[list[Chunk]]:
        """Yield the response as it arrives; raises a GatewayError."""
        yield from self._current().stream(call)

    def count_tokens(self, call: ChatCall) -> Chunk:
        """Return the tokens of a prompt, as Provider.count_tokens says; raises a GatewayError."""
        return self._current().count_tokens(call)

    def embed(self, model: str, parameters: Mapping[str, Any], on_head: OnHead = IGNORE) -> Chunk:
        """Return the embeddings of an input, as Provider.embed says; raises a GatewayError."""
        return self._current().embed(model, parameters, on_head)

    def _current(self) -> Provider:
        """The provider with a token that is valid; raises UpstreamAuth."""
        with self._lock:  # one refresh for all calls that wait for it
            if not self._credentials.valid:
                try:
                    self._credentials.refresh(self._request)
                except Exception as error:  # google-auth's own, and those of its transport
                    raise UpstreamAuth() from error
            if self._credentials.token != self._token:
                self._token = self._credentials.token
                self._provider = self._make(self._token)
            return self._provider
