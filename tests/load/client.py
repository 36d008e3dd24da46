"""The clients of a load, in a process of their own: one thread, raw sockets.

`python -m tests.load.client` reads a Load from its input and writes a Result to its output, both
pickled. While it loads it notes which bytes came when; what they mean is looked at afterwards.
"""

from __future__ import annotations

import base64
import contextlib
import errno
import gc
import heapq
import json
import pickle
import random
import selectors
import socket
import sys
import time
from collections.abc import Callable
from typing import Any

from tests.faults.client import PATIENCE_SECONDS
from tests.load.calls import Ask, Call, Load, Result
from tests.load.reading import read

PATH = "/inference/v1/chat/completions"
SLOW_BUFFER = 4096  # bytes that the system of a slow reader takes ahead of it
TURN_SECONDS = 0.1  # most that a turn waits: the last call may have ended in it


class OpenCall:
    """One call under way: what is still to be sent, and the pieces that came."""

    def __init__(self, ask: Ask, call: Call, request: bytes) -> None:
        self.ask, self.call = ask, call
        self.unsent = memoryview(request)
        self.pieces: list[tuple[float, bytes]] = []
        self.socket: socket.socket | None = None
        self.needed = -1  # bytes of the whole answer, where its head says so
        self.got = 0
        self.over = False


class Generator:
    """Makes one load."""

    def __init__(self, load: Load) -> None:
        self._load = load
        self._selector = selectors.DefaultSelector()
        self._due: list[tuple[float, int, Callable[[], None]]] = []
        self._count = 0
        self._free: list[socket.socket] = []
        self._running = 0
        self._open_calls: list[OpenCall] = []
        self._images = {ask.image: _image(ask.image) for ask in load.asks}
        self.late = 0.0

    def run(self) -> Result:
        """Make all calls and wait for their ends."""
        gc.disable()
        begun, worked = time.time(), time.process_time()
        for ask in self._load.asks:
            self._at(begun + ask.at, lambda ask=ask: self._begin(ask, begun))  # type: ignore[misc]
        while len(self._open_calls) < len(self._load.asks) or self._running:
            self._turn()
        cpu = (time.process_time() - worked) / (time.time() - begun)
        for each in self._open_calls:
            read(each.call, each.pieces)
        return Result([each.call for each in self._open_calls], cpu, self.late)

    def _at(self, when: float, act: Callable[[], None]) -> None:
        self._count += 1
        heapq.heappush(self._due, (when, self._count, act))

    def _turn(self) -> None:
        while self._due and self._due[0][0] <= time.time():
            heapq.heappop(self._due)[2]()
        wait = self._due[0][0] - time.time() if self._due else TURN_SECONDS
        for key, mask in self._selector.select(min(max(wait, 0), TURN_SECONDS)):
            open_call = key.data
            if open_call is None:  # a kept connection that the server closed
                self._drop(key.fileobj)
            elif not open_call.over and mask & selectors.EVENT_WRITE:
                self._send(open_call)
            elif not open_call.over:
                self._receive(open_call, 262_144)

    # One call

    def _begin(self, ask: Ask, begun: float) -> None:
        now = time.time()
        self.late = max(self.late, now - begun - ask.at)
        call = Call(ask.nonce, ask.model, ask.stream, ask.deadline, self._load.port, now)
        call.slow = ask.rate > 0
        open_call = OpenCall(ask, call, self._request(ask))
        self._open_calls.append(open_call)
        self._running += 1
        try:
            open_call.socket = self._connection(open_call)
        except OSError as error:
            self._fail(open_call, error)
            return
        self._send(open_call)
        self._at(now + ask.deadline + PATIENCE_SECONDS, lambda: self._give_up(open_call))
        if ask.leave_after:
            self._at(now + ask.leave_after, lambda: self._leave(open_call))
        if ask.rate:
            self._at(now + 1.0, lambda: self._sip(open_call))

    def _connection(self, open_call: OpenCall) -> socket.socket:
        if self._free:
            connection = self._free.pop()
            self._selector.modify(connection, selectors.EVENT_WRITE, open_call)
            return connection
        connection = socket.socket()
        connection.setblocking(False)
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if open_call.ask.rate:
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, SLOW_BUFFER)
        code = connection.connect_ex(("127.0.0.1", self._load.port))
        if code not in (0, errno.EINPROGRESS):
            raise OSError(code, "connect")
        self._selector.register(connection, selectors.EVENT_WRITE, open_call)
        return connection

    def _send(self, open_call: OpenCall) -> None:
        assert open_call.socket is not None
        try:
            sent = open_call.socket.send(open_call.unsent)
        except (BlockingIOError, InterruptedError):
            return
        except OSError as error:
            if error.errno in (errno.ENOTCONN, errno.EAGAIN):
                return
            self._fail(open_call, error)
            return
        open_call.unsent = open_call.unsent[sent:]
        if open_call.unsent:
            return
        if open_call.ask.rate:
            self._selector.unregister(open_call.socket)
        else:
            self._selector.modify(open_call.socket, selectors.EVENT_READ, open_call)

    def _receive(self, open_call: OpenCall, most: int) -> None:
        assert open_call.socket is not None
        try:
            data = open_call.socket.recv(most)
        except BlockingIOError:
            return
        except OSError as error:
            self._fail(open_call, error)
            return
        now = time.time()
        if not data:
            if not open_call.pieces:
                open_call.call.broken = "closed"
            self._end(open_call)
            return
        open_call.pieces.append((now, data))
        if self._load.keep:
            self._look_for_end(open_call, data)

    def _look_for_end(self, open_call: OpenCall, data: bytes) -> None:
        """A kept connection does not end with its answer, whose head says how long it is."""
        open_call.got += len(data)
        if open_call.needed < 0:
            head, blank, _ = b"".join(piece for _, piece in open_call.pieces).partition(b"\r\n\r\n")
            if not blank:
                return
            length = head.lower().partition(b"content-length:")[2].partition(b"\r\n")[0]
            open_call.needed = len(head) + 4 + int(length)
        if open_call.got >= open_call.needed:
            self._end(open_call)

    def _sip(self, open_call: OpenCall) -> None:
        if open_call.over:
            return
        if not open_call.unsent:
            self._receive(open_call, open_call.ask.rate)
        if not open_call.over:
            self._at(time.time() + 1.0, lambda: self._sip(open_call))

    # Its end

    def _leave(self, open_call: OpenCall) -> None:
        if not open_call.over:
            open_call.call.left = time.time()
            self._end(open_call)

    def _give_up(self, open_call: OpenCall) -> None:
        if not open_call.over:
            open_call.call.broken = "no answer"
            self._end(open_call)

    def _fail(self, open_call: OpenCall, error: OSError) -> None:
        open_call.call.broken = type(error).__name__
        open_call.call.refused_tcp = isinstance(error, ConnectionRefusedError)
        self._end(open_call)

    def _end(self, open_call: OpenCall) -> None:
        open_call.over = True
        open_call.call.ended = open_call.pieces[-1][0] if open_call.pieces else time.time()
        self._running -= 1
        connection = open_call.socket
        if connection is None:
            return
        if self._load.keep and open_call.needed >= 0:
            self._selector.modify(connection, selectors.EVENT_READ, None)
            self._free.append(connection)
        else:
            self._drop(connection)

    def _drop(self, connection: Any) -> None:
        with contextlib.suppress(KeyError, ValueError):
            self._selector.unregister(connection)
        if connection in self._free:
            self._free.remove(connection)
        connection.close()

    def _request(self, ask: Ask) -> bytes:
        content: Any = ask.nonce
        if ask.image:
            url = {"url": "data:image/png;base64,IMAGE"}
            content = [{"type": "text", "text": ask.nonce}, {"type": "image_url", "image_url": url}]
        asked = {"model": ask.model, "messages": [{"role": "user", "content": content}]}
        body = json.dumps({**asked, "stream": ask.stream}).encode()
        if ask.image:
            body = body.replace(b"IMAGE", self._images[ask.image])
        lines = [
            f"POST {PATH} HTTP/1.1",
            f"Host: 127.0.0.1:{self._load.port}",
            f"Authorization: Bearer {self._load.key}",
            "Content-Type: application/json",
            f"Content-Length: {len(body)}",
            f"X-Request-Timeout: {ask.deadline:g}",
            f"Connection: {'keep-alive' if self._load.keep else 'close'}",
        ]
        return "\r\n".join([*lines, "", ""]).encode() + body


def _image(size: int) -> bytes:
    """So many bytes of base64 that look like a picture's."""
    return base64.b64encode(random.Random(size).randbytes(size * 3 // 4)) if size else b""


if __name__ == "__main__":
    given: Load = pickle.load(sys.stdin.buffer)
    sys.stdout.buffer.write(pickle.dumps(Generator(given).run()))
