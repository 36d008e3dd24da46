"""Flask's application and request, without what this service does not use."""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from typing import Any

import flask
from flask.sessions import NullSession, SessionInterface
from werkzeug.datastructures import EnvironHeaders, Headers
from werkzeug.routing import MapAdapter


class RequestHeaders(EnvironHeaders):
    """The headers of a request. werkzeug raises an exception for each one that is not there."""

    def get(  # type: ignore[override]
        self, key: str, default: Any = None, type: Any = None
    ) -> Any:
        """Return the value of a header, converted by `type` if that is given."""
        if type is not None:
            return super().get(key, default, type)
        return self.environ.get(_variable(key), default)


@lru_cache(maxsize=256)
def _variable(header: str) -> str:
    """The name in WSGI's environ."""
    name = header.upper().replace("-", "_")
    return name if name in ("CONTENT_TYPE", "CONTENT_LENGTH") else f"HTTP_{name}"


class Request(flask.Request):
    """A request with RequestHeaders."""

    def __init__(self, environ: dict[str, Any], *args: Any, **options: Any) -> None:
        super().__init__(environ, *args, **options)
        self.headers = RequestHeaders(environ)


class FinalResponse(flask.Response):
    """A response of bytes, with a status that allows a body and no address in its headers."""

    def get_wsgi_headers(self, environ: dict[str, Any]) -> Headers:
        """Return the headers; werkzeug copies them and looks for what those others need."""
        return self.headers


class NoSessions(SessionInterface):
    """Sessions that hold nothing; Flask would make one for each request."""

    session = NullSession()

    def open_session(self, app: flask.Flask, request: flask.Request) -> NullSession:
        """Return the session of all requests."""
        return self.session


class Application(flask.Flask):
    """A Flask app whose functions are all synchronous. To check each took 2 % of a request."""

    request_class = Request
    session_interface = NoSessions()

    def create_url_adapter(self, request: flask.Request | None) -> MapAdapter | None:
        """Return what matches the address of a request.

        No route depends on the host or redirects, so it is not told the host. Flask reads that
        twice and encodes it each time, which took 3 % of a request.
        """
        if request is None:
            return super().create_url_adapter(None)
        environ = request.environ
        return MapAdapter(
            self.url_map,
            "",
            environ.get("SCRIPT_NAME", ""),
            subdomain="",
            url_scheme=environ["wsgi.url_scheme"],
            path_info=environ["PATH_INFO"].encode("latin-1").decode(errors="replace"),
            default_method=environ["REQUEST_METHOD"],
            query_args=environ.get("QUERY_STRING", ""),
        )

    def ensure_sync(self, func: Callable[..., Any]) -> Callable[..., Any]:
        """Return the function."""
        return func
