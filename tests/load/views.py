"""Browsers that have the console's Live view open, while a load runs."""

from __future__ import annotations

import contextlib
import threading
import time

import requests

from tests.support import console
from tests.support.stack import Stack, until


class LiveViews:
    """Opens the view so many times, each in a session of its own; a context manager."""

    def __init__(self, stack: Stack, count: int) -> None:
        self._stack, self._count = stack, count
        self._ending = contextlib.ExitStack()
        self.figures = [0] * count  # that each view has shown

    def __enter__(self) -> LiveViews:
        if self._count:
            operator = self._stack.keys.create("viewers", operator=True)
            for number in range(self._count):
                self._open(number, operator)
            until(lambda: all(self.figures), what="figures in each view")
        self._began, self._before = time.monotonic(), list(self.figures)
        return self

    def __exit__(self, *_: object) -> None:
        self._ending.close()

    def per_second(self) -> float:
        """The figures that the slowest view has shown, a second."""
        seen = [now - before for now, before in zip(self.figures, self._before, strict=True)]
        return min(seen, default=0) / (time.monotonic() - self._began)

    def _open(self, number: int, operator: str) -> None:
        session = self._ending.enter_context(console.sign_in(self._stack, operator))
        address = f"{console.address(self._stack)}/live/stream"
        response = session.get(address, stream=True, timeout=60)
        assert response.status_code == 200, response.status_code
        thread = threading.Thread(target=self._read, args=(number, response), daemon=True)
        thread.start()
        self._ending.callback(thread.join)
        self._ending.callback(response.raw.shutdown)  # ends the read of the thread

    def _read(self, number: int, response: requests.Response) -> None:
        with contextlib.suppress(Exception):  # it was closed
            for line in response.iter_lines(chunk_size=65_536):
                self.figures[number] += line == b"event: figures"
