"""404 for an address that nothing is served at; it names the address that was probably meant."""

from __future__ import annotations

from flask import Flask, Response, request
from werkzeug.exceptions import NotFound
from werkzeug.routing import Map

from api.http import errors
from gateway import errors as gateway_errors

LONGEST_PATH = 256  # characters that are repeated, and looked at


def register(app: Flask, prefix: str) -> None:
    """Answer 404 to every unknown address; `prefix` begins the addresses of all APIs."""

    def render(error: NotFound) -> Response:
        message = f"Unknown request URL: {request.method} {request.path[:LONGEST_PATH]}."
        if address := meant(app.url_map, prefix, request.path):
            message += f" Did you mean {address}? Check the base URL of your client."
        return errors.render(gateway_errors.NotFound(message))

    app.register_error_handler(NotFound, render)


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
