"""404 for an address that nothing is served at; it names the address that was probably meant."""

from __future__ import annotations

from flask import Flask, Response, request
from werkzeug.exceptions import MethodNotAllowed, NotFound
from werkzeug.routing import Map

from api.http import errors
from gateway import errors as gateway_errors

LONGEST_PATH = 256  # characters that are repeated, and looked at


def register(app: Flask, prefix: str) -> None:
    """Answer 404 to every unknown address; `prefix` begins the addresses of all APIs."""

    def render_method(error: MethodNotAllowed) -> Response:
        """The 405 of an address; 404 for one below another, of which nobody knows if it exists."""
        methods = sorted(error.valid_methods or ())
        if methods and _is_below(app.url_map, request.path, methods[0]):
            return render(NotFound())
        return errors.render_http(error)

    def render(error: NotFound) -> Response:
        message = f"Unknown request URL: {request.method} {request.path[:LONGEST_PATH]}."
        address = meant(app.url_map, prefix, request.path)
        if address and address != request.path:
            message += f" Did you mean {address}? Check the base URL of your client."
        return errors.render(gateway_errors.NotFound(message))

    app.register_error_handler(NotFound, render)
    app.register_error_handler(MethodNotAllowed, render_method)


def _is_below(addresses: Map, path: str, method: str) -> bool:
    """Whether this is no address of its own, but that of one thing of many, such as a response."""
    rule, _ = addresses.bind("").match(path, method, return_rule=True)
    return bool(rule.arguments)


def meant(addresses: Map, prefix: str, path: str) -> str | None:
    """The address that `path` becomes where the wrong segments at its beginning are replaced.

    The longest end of the path that makes an address counts. None: no end of it does.
    """
    if len(path) > LONGEST_PATH:
        return None
    served = addresses.bind("")
    segments = [segment for segment in path.split("/") if segment]
    for start in range(len(segments)):
        address = "/".join((prefix, *segments[start:]))
        if served.allowed_methods(address):
            return address
    return None
