"""Names of keys and owners for the console's pages, remembered for some seconds."""

from __future__ import annotations

import time
from collections.abc import Mapping

from api.services import services
from gateway.account.api_keys import KeyRecord

SECONDS = 10.0
CACHE = "console names"


def key_names(key: KeyRecord) -> Mapping[str, str]:
    """Public id -> name of the keys that somebody may see. Raises RedisError."""
    if not key.operator:
        return {key.public_id: key.name}
    pages = services().pages
    until: float
    names: dict[str, str]
    until, names = pages.get(CACHE, (0.0, {}))
    if time.monotonic() > until:  # all keys are read: not for each page
        records = sorted(services().keys.all(), key=lambda each: each.name.lower())
        names = {each.public_id: each.name for each in records}
        pages[CACHE] = time.monotonic() + SECONDS, names
    return names
