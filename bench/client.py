"""A load generator of raw sockets in one thread: it notes when which bytes came, and no more.

What the bytes mean is looked at after the load, by frames.py: a client that parses while it
measures would be measured too.
"""

from __future__ import annotations

import contextlib
import gc
import heapq
import json
import selectors
import socket
import time
from dataclasses import dataclass, field
from typing import Any

from bench import frames

CHECK_SECONDS = 0.2
PAUSE_SECONDS = 0.2  # after a failure
END_OF_CHUNKS = b"\r\n0\r\n\r\n"


@dataclass(frozen=True)
class Endpoint:
    """Where a gateway takes chat completions, and how it wants to be asked."""

    port: int
    path: str = "/v1/chat/completions"
    model: str = "gpt-4o-mini"
    headers: dict[str, str] = field(default_factory=dict)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}{self.path}"

    def body(self, prompt: str, stream: bool = False) -> bytes:
        """The request's JSON; `prompt` tells the fake upstream how to answer."""
        payload: dict[str, Any] = {
            "model": self.model,
            "messages": [{"role": "user", "content": f"What is the capital of France? {prompt}"}],
        }
        if stream:
            payload["stream"] = True
        return json.dumps(payload, separators=(",", ":")).encode()

    def all_headers(self) -> dict[str, str]:
        return {"Content-Type": "application/json", **self.headers}

    def request(self, prompt: str, stream: bool = False) -> bytes:
        """The whole request as bytes for a connection that is kept."""
        body = self.body(prompt, stream)
        headers = {"Host": f"127.0.0.1:{self.port}", **self.all_headers()}
        lines = [f"{name}: {value}" for name, value in headers.items()]
        head = "\r\n".join([f"POST {self.path} HTTP/1.1", *lines, f"Content-Length: {len(body)}"])
        return head.encode() + b"\r\n\r\n" + body


@dataclass(slots=True)
class Exchange:
    """One request and the pieces in which its answer came, each with the time of its arrival."""

    slot: int
    started: float
    pieces: list[tuple[float, bytes]] = field(default_factory=list)
    error: str = ""
    ended: float = 0.0
    needed: int = -1  # bytes of the whole answer; -1: chunked, or not known yet
    seen: int = 0


class Load:
    """`slots` connections, each of which asks again as soon as it has its answer.

    Slots start evenly spread over `spread` seconds. No request starts after `seconds` (but each
    slot makes `least` of them), or once a slot has made `most`; each is given up after `patience`.
    """

    def __init__(
        self,
        endpoint: Endpoint,
        request: bytes,
        slots: int,
        *,
        seconds: float = 3600.0,
        spread: float = 0.0,
        least: int = 1,
        most: int = 1_000_000_000,
        patience: float = 30.0,
        keep: bool = True,
    ) -> None:
        self._address = ("127.0.0.1", endpoint.port)
        self._request = request
        self._slots = slots
        self._seconds, self._spread = seconds, spread
        self._least, self._most = least, most
        self._patience, self._keep = patience, keep
        self._selector = selectors.DefaultSelector()
        self._sockets: dict[int, socket.socket] = {}
        self._running: dict[int, Exchange] = {}
        self._made = [0] * slots
        self._due: list[tuple[float, int]] = []
        self._end = 0.0
        self.exchanges: list[Exchange] = []

    def run(self) -> list[Exchange]:
        """Make the load and return every exchange, once all have ended."""
        gc.collect()
        gc.disable()
        try:
            self._loop()
        finally:
            gc.enable()
            for slot in list(self._sockets):
                self._close(slot)
            self._selector.close()
        return self.exchanges

    def _loop(self) -> None:
        begin = time.monotonic()
        self._end = begin + self._seconds
        share = self._spread / self._slots
        due = self._due = [(begin + share * slot, slot) for slot in range(self._slots)]
        check = begin + CHECK_SECONDS
        while due or self._running:
            now = time.monotonic()
            while due and due[0][0] <= now:
                self._ask(heapq.heappop(due)[1])
            wait = min(due[0][0] if due else check, check) - time.monotonic()
            for key, _ in self._selector.select(max(wait, 0)):
                self._read(key.data)
            if time.monotonic() >= check:
                self._give_up()
                check = time.monotonic() + CHECK_SECONDS

    def _ask(self, slot: int) -> None:
        late = time.monotonic() >= self._end and self._made[slot] >= self._least
        if late or self._made[slot] >= self._most:
            self._close(slot)
            return
        self._made[slot] += 1
        exchange = self._running[slot] = Exchange(slot, time.monotonic())
        self.exchanges.append(exchange)
        try:
            if slot not in self._sockets:
                self._connect(slot)
                exchange.started = time.monotonic()
            self._sockets[slot].send(self._request)
        except OSError as error:
            self._finish(exchange, type(error).__name__)

    def _connect(self, slot: int) -> None:
        connection = socket.create_connection(self._address, timeout=self._patience)
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        connection.setblocking(False)
        self._sockets[slot] = connection
        self._selector.register(connection, selectors.EVENT_READ, slot)

    def _read(self, slot: int) -> None:
        exchange = self._running.get(slot)
        try:
            data = self._sockets[slot].recv(262_144)
        except BlockingIOError:
            return
        except OSError as error:
            data = b""
            if exchange is not None:
                return self._finish(exchange, type(error).__name__)
        now = time.monotonic()
        if exchange is None:  # an idle connection that the server closed
            return self._close(slot)
        if not data:
            return self._finish(exchange, "closed")
        exchange.pieces.append((now, data))
        exchange.seen += len(data)
        if len(exchange.pieces) == 1:
            exchange.needed = frames.needed(data)
        if self._whole(exchange, data):
            self._finish(exchange)

    def _whole(self, exchange: Exchange, data: bytes) -> bool:
        if exchange.needed >= 0:
            return exchange.seen >= exchange.needed
        if len(data) < len(END_OF_CHUNKS):
            data = b"".join(piece for _, piece in exchange.pieces[-4:])
        return data.endswith(END_OF_CHUNKS)

    def _finish(self, exchange: Exchange, error: str = "") -> None:
        exchange.error, exchange.ended = error, time.monotonic()
        del self._running[exchange.slot]
        if error:
            self._close(exchange.slot)
        elif not self._keep:
            exchange.error = frames.problem(exchange.pieces)
            exchange.pieces = []
        elif frames.status(exchange.pieces[:1]) != 200:
            exchange.error = f"status {frames.status(exchange.pieces[:1])}"
        if exchange.error:  # a server that fails at once is not to be asked in a tight loop
            heapq.heappush(self._due, (exchange.ended + PAUSE_SECONDS, exchange.slot))
        else:
            self._ask(exchange.slot)

    def _give_up(self) -> None:
        now = time.monotonic()
        for exchange in list(self._running.values()):
            if now - exchange.started > self._patience:
                self._finish(exchange, "timeout")

    def _close(self, slot: int) -> None:
        connection = self._sockets.pop(slot, None)
        if connection is not None:
            with contextlib.suppress(KeyError, ValueError):
                self._selector.unregister(connection)
            connection.close()
