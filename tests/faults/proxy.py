"""A TCP proxy that goes wrong on demand, for Redis and for the provider.

It runs in a thread of its own; each method takes effect before it returns and may be called from
any thread. Connections are accepted on 127.0.0.1 and led to a TCP address or a unix socket.
"""

from __future__ import annotations

import asyncio
import functools
import socket
import struct
import threading
from collections.abc import Callable
from typing import Any, TypeVar

Result = TypeVar("Result")

AFTER_DROP_SECONDS = 2.0  # the server's side outlives a dropped reply: its command is to be run
PIECE_SECONDS = 0.001  # between two pieces of a split answer: the reader is to see them apart
ORDERED = 1e-6  # seconds between two pieces: the event loop's timers must not change their order


class Side(asyncio.Protocol):
    """One side of a proxied connection: the client's or the server's."""

    def __init__(self, pair: Pair) -> None:
        self.pair = pair
        self.transport: Any = None
        self._waiting = 0  # pieces that are put off; the loop may be late with them
        self._due = 0.0  # when the last piece for this side is written

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport

    def data_received(self, data: bytes) -> None:
        self.pair.pass_on(self, data)

    def connection_lost(self, error: Exception | None) -> None:
        self.pair.ended(self)

    def pause_writing(self) -> None:
        self.pair.other(self).transport.pause_reading()

    def resume_writing(self) -> None:
        other = self.pair.other(self).transport
        if other is not None and not other.is_closing():
            other.resume_reading()

    def later(self, delay: float, act: Callable[[], None]) -> None:
        """Act on this side after the delay, and after what was put off before."""
        loop = asyncio.get_running_loop()
        if not delay and not self._waiting:
            act()
            return
        self._due = max(loop.time() + delay, self._due + ORDERED)
        self._waiting += 1
        loop.call_at(self._due, self._now, act)

    def _now(self, act: Callable[[], None]) -> None:
        self._waiting -= 1
        act()

    def wait(self) -> float:
        """Seconds until all that was put off is done."""
        return max(0.0, self._due - asyncio.get_running_loop().time())

    def write(self, data: bytes) -> None:
        if self.transport is not None and not self.transport.is_closing():
            self.transport.write(data)

    def close(self) -> None:
        if self.transport is not None:
            self.transport.close()

    def reset(self) -> None:
        if self.transport is None or self.transport.is_closing():
            return
        raw = self.transport.get_extra_info("socket")
        if raw.family == socket.AF_INET:
            raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.transport.abort()


class Pair:
    """A connection of a client and the one that it is led to."""

    def __init__(self, proxy: FaultProxy) -> None:
        self.proxy = proxy
        self.client, self.server = Side(self), Side(self)
        self.spoiled = False  # bytes of it were swallowed
        self.left = proxy.cut() if proxy.cut else None  # bytes until it is cut
        self._drops = False
        self._seen = b""  # the end of what the client sent, for matches across pieces

    def other(self, side: Side) -> Side:
        return self.server if side is self.client else self.client

    def pass_on(self, side: Side, data: bytes) -> None:
        if self.proxy.swallows:
            self.spoiled = True
        elif side is self.client:
            self._look_for_drop(data)
            self.server.later(self.proxy.pause, lambda: self.server.write(data))
        elif self._drops:
            self._drop()
        else:
            self._answer(data)

    def _look_for_drop(self, data: bytes) -> None:
        match = self.proxy.match
        if not match or not self.proxy.drops_left:
            return
        self._seen += data
        if match in self._seen:
            self.proxy.drops_left -= 1
            self._drops, self._seen = True, b""
        self._seen = self._seen[-len(match) + 1 :]

    def _drop(self) -> None:
        if not self.client.transport.is_closing():  # this piece is the first of the reply
            self.proxy.dropped += 1
            self.client.reset()

    def _answer(self, data: bytes) -> None:
        if self.left is not None:
            data, self.left = data[: self.left], self.left - len(data)
        if self.proxy.split:
            self._answer_in_pieces(data, self.proxy.split)
        else:
            self.client.later(self.proxy.pause, lambda: self.client.write(data))
        if self.left is not None and self.left <= 0:
            self.client.later(self.proxy.pause, self.client.close)

    def _answer_in_pieces(self, data: bytes, size: Callable[[], int]) -> None:
        client, pause = self.client, self.proxy.pause
        while data:
            length = size()
            piece, data = data[:length], data[length:]
            client.later(pause, functools.partial(client.write, piece))
            pause = client.wait() + PIECE_SECONDS

    def ended(self, side: Side) -> None:
        other = self.other(side)
        if self.client.transport is None or self.server.transport is None:
            other.close()
        elif self._drops and side is self.client:
            asyncio.get_running_loop().call_later(AFTER_DROP_SECONDS, other.close)
        elif not self.proxy.swallows:  # a black hole does not tell of an end either
            other.later(self.proxy.pause, other.close)
        else:
            self.spoiled = True
        if not any(each.transport and not each.transport.is_closing() for each in self.sides):
            self.proxy.pairs.discard(self)

    @property
    def sides(self) -> tuple[Side, Side]:
        return self.client, self.server

    def reset(self) -> None:
        for side in self.sides:
            side.reset()


class Front(asyncio.Protocol):
    """A connection that was just accepted, until the one behind it is there."""

    def __init__(self, proxy: FaultProxy) -> None:
        self.proxy = proxy

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        transport.pause_reading()
        self._opening = asyncio.ensure_future(self._open(transport))

    async def _open(self, transport: asyncio.Transport) -> None:
        loop = asyncio.get_running_loop()
        pair = Pair(self.proxy)
        try:
            if isinstance(self.proxy.target, str):
                await loop.create_unix_connection(lambda: pair.server, self.proxy.target)
            else:
                await loop.create_connection(lambda: pair.server, *self.proxy.target)
        except OSError:
            pair.client.connection_made(transport)
            pair.client.reset()
            return
        if transport.is_closing():
            pair.server.close()
            return
        self.proxy.pairs.add(pair)
        pair.client.connection_made(transport)
        transport.set_protocol(pair.client)
        transport.resume_reading()


class FaultProxy:
    """Leads connections to `target`: a unix socket's path, or host and port. A context manager."""

    def __init__(self, target: str | tuple[str, int]) -> None:
        self.target = target
        self.pairs: set[Pair] = set()
        # Bound and not listening, it keeps the port while connections are refused.
        self._holder = socket.socket()
        self._holder.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self._holder.bind(("127.0.0.1", 0))
        self.port: int = self._holder.getsockname()[1]
        self.dropped = 0  # replies so far
        self.drops_left, self.match = 0, b""
        self.pause = 0.0
        self.swallows = False
        self.cut: Callable[[], int] | None = None
        self.split: Callable[[], int] | None = None
        self._server: asyncio.Server | None = None
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)

    def __enter__(self) -> FaultProxy:
        self._thread.start()
        self._call(self._listen)
        return self

    def __exit__(self, *_: object) -> None:
        self._call(self._end)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()
        self._holder.close()

    @property
    def open(self) -> int:
        """How many connections are open."""
        return len(self.pairs)

    def refuse(self) -> None:
        """Refuse new connections until `heal`; those that are open stay."""
        self._call(self._unlisten)

    def reset(self) -> int:
        """Reset every open connection, on both sides; how many there were."""
        return self._call(self._reset)

    def blackhole(self) -> None:
        """Swallow everything, ends of connections too, until `heal`."""
        self._call(lambda: self._set(swallows=True))

    def delay(self, seconds: float) -> None:
        """Hold each piece for so long, in either direction."""
        self._call(lambda: self._set(pause=seconds))

    def drop_replies(self, match: bytes, times: int = 1) -> None:
        """Forward the next requests that contain `match`, and reset instead of their replies."""
        self._call(lambda: self._set(match=match, drops_left=times))

    def cut_after(self, size: Callable[[], int]) -> None:
        """Close each new connection after so many bytes of replies; asked once for each."""
        self._call(lambda: self._set(cut=size))

    def split_by(self, size: Callable[[], int]) -> None:
        """Hand replies on in pieces of so many bytes; asked once for each piece."""
        self._call(lambda: self._set(split=size))

    def heal(self) -> None:
        """Be a good proxy again; connections that lost bytes are reset."""
        self._call(self._heal)

    async def _heal(self) -> None:
        await self._set(swallows=False, pause=0.0, cut=None, split=None, drops_left=0)
        for pair in list(self.pairs):
            pair.left = None
            if pair.spoiled:
                pair.reset()
        await self._listen()

    async def _set(self, **values: Any) -> None:
        for name, value in values.items():
            setattr(self, name, value)

    async def _listen(self) -> None:
        if self._server is None:
            self._server = await self._loop.create_server(
                lambda: Front(self), "127.0.0.1", self.port, backlog=1024
            )

    async def _unlisten(self) -> None:
        if self._server is not None:
            self._server.close()
            self._server = None

    async def _reset(self) -> int:
        pairs = list(self.pairs)
        for pair in pairs:
            pair.reset()
        return len(pairs)

    async def _end(self) -> None:
        await self._unlisten()
        await self._reset()
        await asyncio.sleep(0)  # the aborted connections are lost in the next turn

    def _call(self, make: Callable[[], Any]) -> Any:
        return asyncio.run_coroutine_threadsafe(make(), self._loop).result(10)
