"""A TCP proxy that holds all data for a while: `python -m bench.delay_proxy PORT SOCKET MS`.

It listens on 127.0.0.1:PORT, connects to a unix socket, and holds each piece for half of MS on its
way there and on its way back, so that a round trip takes MS longer.
"""

from __future__ import annotations

import asyncio
import contextlib
import selectors
import sys
import time
from collections.abc import Iterator
from typing import TYPE_CHECKING
from urllib.parse import unquote

import redis

from bench.processes import Child, DidNotServe, free_port

if TYPE_CHECKING:
    from bench.targets import Stage

OPEN_SECONDS = 10.0


class Side(asyncio.Protocol):
    """One side of a proxied connection; what it reads leaves the other side after the delay."""

    def __init__(self, delay: float) -> None:
        self.delay = delay
        self.other: Side | None = None
        self.transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport

    def data_received(self, data: bytes) -> None:
        # Equal delays keep their order: the loop's heap is by time, and times only grow.
        asyncio.get_running_loop().call_later(self.delay, self._pass, data)

    def connection_lost(self, error: Exception | None) -> None:
        if self.other is not None and self.other.transport is not None:
            asyncio.get_running_loop().call_later(self.delay, self.other.transport.close)

    def _pass(self, data: bytes) -> None:
        if self.other is not None and self.other.transport is not None:
            self.other.transport.write(data)


class Front(Side):
    """The client's side: it opens the server's before it reads."""

    def __init__(self, path: str, delay: float) -> None:
        super().__init__(delay)
        self._path = path

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        assert self.transport is not None
        self.transport.pause_reading()
        self._opening = asyncio.ensure_future(self._open())

    async def _open(self) -> None:
        assert self.transport is not None
        back = Side(self.delay)
        try:
            await asyncio.get_running_loop().create_unix_connection(lambda: back, self._path)
        except OSError:
            self.transport.close()
            return
        self.other, back.other = back, self
        self.transport.resume_reading()


async def main(port: int, path: str, milliseconds: float) -> None:
    loop = asyncio.get_running_loop()
    server = await loop.create_server(lambda: Front(path, milliseconds / 2000), "127.0.0.1", port)
    await server.serve_forever()


def precise_loop() -> asyncio.AbstractEventLoop:
    """A loop whose timers are good to microseconds: select() takes them, epoll rounds to 1 ms."""
    return asyncio.SelectorEventLoop(selectors.SelectSelector())


@contextlib.contextmanager
def proxied(stage: Stage, milliseconds: float) -> Iterator[str]:
    """The URL of the stage's Redis behind such a proxy."""
    port = free_port()
    path = unquote(stage.server.url.removeprefix("unix://"))
    command = [sys.executable, "-m", "bench.delay_proxy", str(port), path, str(milliseconds)]
    child = Child(command, stage.env(), stage.log("delay-proxy"))
    try:
        _until_open(port, child)
        yield f"redis://127.0.0.1:{port}/0"
    finally:
        child.stop()


def _until_open(port: int, child: Child) -> None:

    client = redis.Redis(port=port, socket_timeout=1)
    end = time.monotonic() + OPEN_SECONDS
    while time.monotonic() < end and not child.ended:
        with contextlib.suppress(redis.ConnectionError, redis.TimeoutError):
            client.ping()
            client.close()
            return
        time.sleep(0.05)
    raise DidNotServe(f"delay proxy: {child.tail()}")


if __name__ == "__main__":
    with asyncio.Runner(loop_factory=precise_loop) as runner:
        runner.run(main(int(sys.argv[1]), sys.argv[2], float(sys.argv[3])))
