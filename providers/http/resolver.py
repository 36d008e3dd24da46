"""Resolves the names of providers, so that a slow name delays nobody else.

gevent resolves all names in one pool of ten threads: ten calls to a name that does not resolve
would keep the calls to every other provider waiting. Here each name has one thread, all calls that
need it share one lookup, and its result is kept for a while.
"""

from __future__ import annotations

import socket
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from ipaddress import ip_address
from typing import Any

import gevent
from gevent import monkey
from gevent.threadpool import ThreadPool
from urllib3.util.connection import allowed_gai_family

KEEP_SECONDS = 30.0  # a result is used without a new lookup
FAILED_SECONDS = 2.0  # so is a failure
STALE_SECONDS = 600.0  # old addresses are used while new lookups fail
LAST_LOOK_SECONDS = 0.05

Lookup = Callable[[str], Sequence[str]]


def look_up(host: str) -> list[str]:
    """Return the addresses of a host in the order of the system; blocks. Raises OSError."""
    # gevent's own would wait for its pool again, in a hub of this thread.
    getaddrinfo = monkey.get_original("socket", "getaddrinfo")
    rows = getaddrinfo(host, None, allowed_gai_family(), socket.SOCK_STREAM)
    return list(dict.fromkeys(row[4][0] for row in rows))


@dataclass(slots=True)
class Name:
    """What is known of one name. Times are on the monotonic clock."""

    thread: ThreadPool = field(default_factory=lambda: ThreadPool(1))
    lookup: Any = None  # the greenlet that waits for the thread, while one does
    addresses: Sequence[str] = ()
    error: OSError | None = None  # of the last lookup
    found_at: float = 0.0
    until: float = 0.0  # no lookup before this time


class Resolver:
    """The names that one worker resolves. `look_up` runs in a thread and may block."""

    def __init__(
        self, look_up: Lookup = look_up, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._look_up, self._clock = look_up, clock
        self._names: dict[str, Name] = {}

    def addresses(self, host: str, timeout: float | None) -> Sequence[str]:
        """Return the addresses of a host, the best first; wait at most `timeout` seconds.

        If the lookup fails or takes longer, the addresses found in the last ten minutes are
        returned. Without any, raises socket.gaierror.
        """
        if _is_address(host):
            return [host]
        name = self._names.get(host)
        if name is None:
            name = self._names[host] = Name()
        if self._clock() >= name.until:
            if name.lookup is None:
                name.lookup = gevent.spawn(self._resolve, host, name)
            name.lookup.join(timeout)
            if name.lookup is not None:
                # This process may have stood still, and the result be there and not looked at.
                name.lookup.join(LAST_LOOK_SECONDS)
        if name.addresses and self._clock() - name.found_at < STALE_SECONDS:
            return name.addresses
        if name.lookup is None and name.error is not None:
            raise socket.gaierror(*name.error.args)
        raise socket.gaierror(socket.EAI_AGAIN, "the name was not resolved in time")

    def prefer(self, host: str, address: str) -> None:
        """Put an address that could be reached first."""
        name = self._names.get(host)
        if name is not None and address in name.addresses:
            rest = [other for other in name.addresses if other != address]
            name.addresses = [address, *rest]

    def doubt(self, host: str) -> None:
        """Look the name up again soon: none of its addresses could be reached."""
        name = self._names.get(host)
        if name is not None:
            name.until = min(name.until, self._clock() + FAILED_SECONDS)

    def forget(self, host: str) -> None:
        """Look the name up again at once: its lookup failed for a reason that is ours."""
        name = self._names.get(host)
        if name is not None:
            name.until = 0.0

    def close(self) -> None:
        """End the threads that are idle."""
        for name in self._names.values():
            if name.lookup is None:
                name.thread.kill()
        self._names.clear()

    def _resolve(self, host: str, name: Name) -> None:
        try:
            addresses = name.thread.apply(self._look_up, (host,))
            name.addresses, name.found_at, name.error = addresses, self._clock(), None
            name.until = name.found_at + KEEP_SECONDS
        except (OSError, UnicodeError) as error:  # UnicodeError: a label is empty or too long
            if not isinstance(error, OSError):
                error = socket.gaierror(socket.EAI_NONAME, "not the name of a host")
            name.error = error.with_traceback(None)
            name.until = self._clock() + FAILED_SECONDS
        finally:
            name.lookup = None


def _is_address(host: str) -> bool:
    try:
        ip_address(host.strip("[]"))
    except ValueError:
        return False
    return True
