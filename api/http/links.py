"""Links to this service in its responses.

They begin with PUBLIC_URL, or are paths. The Host header is not used: a client can write anything
into it, and only the operator knows the right one.
"""

from __future__ import annotations

from typing import Any

from flask import url_for

from api.services import services


def link(endpoint: str, **values: Any) -> str:
    """The URL of an endpoint; its path, if PUBLIC_URL is not set."""
    return services().settings.public_url.rstrip("/") + url_for(endpoint, **values)
