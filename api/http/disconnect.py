"""Notices that a client has closed its connection while it waits for a response."""

from __future__ import annotations

import select
import socket
from collections.abc import Callable
from typing import Any

import gevent
from gevent.socket import wait_read

LOOK_SECONDS = 1.0
# What poll() reports of a peer that has closed; macOS has no POLLRDHUP and reports POLLHUP.
GONE = getattr(select, "POLLRDHUP", 0) | select.POLLHUP | select.POLLERR


class DisconnectWatcher:
    """Calls `on_gone` once if the client closes its connection before the watcher is stopped.

    `greenlet` watches; there is none without a connection.
    """

    def __init__(self, connection: socket.socket | None, on_gone: Callable[[], None]) -> None:
        self._connection, self._on_gone = connection, on_gone
        self.greenlet: Any = gevent.spawn(self._watch) if connection is not None else None

    def stop(self) -> None:
        """End the watch. Call it before the connection serves another request."""
        self._on_gone = _ignore  # the kill takes a turn of the loop, in which it may still notice
        if self.greenlet is not None:
            self.greenlet.kill(block=False)

    def _watch(self) -> None:
        assert self._connection is not None
        try:
            wait_read(self._connection.fileno())
            if self._connection.recv(1, socket.MSG_PEEK) == b"" or self._hung_up():
                self._on_gone()
        except OSError:
            self._on_gone()

    def _hung_up(self) -> bool:
        """Wait until a client that has already sent its next request hangs up.

        Its bytes keep the socket readable, so waiting for it to be readable would spin.
        """
        assert self._connection is not None
        poll = select.poll()
        poll.register(self._connection.fileno(), GONE)
        while True:
            if any(events & GONE for _, events in poll.poll(0)):
                return True
            gevent.sleep(LOOK_SECONDS)


def _ignore() -> None:
    return
