"""Tells a web process which keys have changed, so that it uses no record from before."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

import gevent
import orjson
from redis import Redis
from redis.exceptions import RedisError

from gateway.logs import log_fault
from gateway.queue import keys

log = logging.getLogger(__name__)

LOOK_SECONDS = 0.5  # between two looks
READ_ENTRIES = 1_000  # at once


class KeyChanges:
    """Follows the audit log, which has an entry for every change of a key, by any process.

    `on_change` is called with what each new entry is about (the public id of a key, or another
    name), `after` once at the end of a look that found any.
    """

    def __init__(
        self, redis: Redis, on_change: Callable[[str], object], after: Callable[[], object]
    ) -> None:
        self._redis: Any = redis  # its types join the results of all clients
        self._on_change, self._after = on_change, after
        self._last: bytes | None = None  # id of the last entry that was there at the last look

    def run(self) -> None:
        """Look every LOOK_SECONDS, for ever."""
        while True:
            try:
                self.look()
            except RedisError:
                pass  # the monitor logs it; records are cached for seconds only
            except Exception as error:
                log_fault(log, error, "key changes")
            gevent.sleep(LOOK_SECONDS)

    def look(self) -> None:
        """Pass on what has changed since the last look; the first one passes nothing on.

        Raises RedisError.
        """
        if self._last is None:
            entries = self._redis.xrevrange(keys.AUDIT, count=1)
            self._last = entries[0][0] if entries else b"0-0"
            return
        changed = False
        while entries := self._redis.xread({keys.AUDIT: self._last}, count=READ_ENTRIES):
            for entry_id, fields in entries[0][1]:
                self._last = entry_id
                self._on_change(orjson.loads(fields[b"entry"])["target"])
            changed = True
        if changed:
            self._after()
