"""A fake provider that is cheap enough for a thousand streams: `python -m tests.load.provider`.

It prints its port and speaks OpenAI's chat completions. The model's name says how it answers, in
three words of tests/support/upstream_answers.py: `delay-MS`, `nonce-stream-N-MS`, `fat-N`. All
streams are written by one clock, from bytes made once. GET /log gives the calls so far in the form
of tests/support/upstream.py, DELETE /log forgets them, and GET /late says how late the clock was,
in seconds.
"""

from __future__ import annotations

import asyncio
import functools
import gc
import json
import re
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from tests.support.upstream import Upstream
from tests.support.upstream_answers import behaviour, chunk, event, usage

TICK_SECONDS = 0.01
PIECE = 1 << 18  # bytes
LENGTH = re.compile(rb"\r\ncontent-length: *(\d+)", re.IGNORECASE)
MODEL = re.compile(rb'"model": *"([^"]+)"')
NONCE = re.compile(rb"n\d+x[0-9a-f]{12}")
STREAM = re.compile(rb'"stream": *true')
HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"


def choice(delta: dict[str, Any], reason: str | None = None) -> dict[str, Any]:
    base = {"id": "chatcmpl-load", "object": "chat.completion.chunk", "created": 1, "model": "load"}
    return {**base, "choices": [{"index": 0, "delta": delta, "finish_reason": reason}]}


@functools.lru_cache(4096)
def delta(text: str) -> bytes:
    """One token as a chunk of the body."""
    return chunk(event(choice({"content": text})))


@functools.cache
def parts(model: str) -> list[str]:
    """What a model says, with NONCE for that of the call: made once, for it may be 31 MB."""
    words = behaviour(model)
    if "stream" not in words:
        return ["NONCE"]
    fat = "x" * 1024 * (words.get("fat") or [0])[0]
    return [f"NONCE {fat}", *(f"t{i} {fat}" for i in range(words["stream"][0]))]


@functools.cache
def whole(model: str) -> tuple[bytes, bytes]:
    """The body of an unstreamed response, before and after the call's nonce."""
    message = {"role": "assistant", "content": "".join(parts(model))}
    made = {"index": 0, "message": message, "finish_reason": "stop"}
    answer = {"id": "chatcmpl-load", "object": "chat.completion", "created": 1, "model": "load"}
    body = json.dumps({**answer, "choices": [made], "usage": usage(1)}).encode()
    before, _, after = body.partition(b"NONCE")
    return before, after


@functools.cache
def ending(tokens: int) -> bytes:
    last = event(choice({}, "stop"))
    counts = event({**choice({}), "choices": [], "usage": usage(tokens)})
    return chunk(last + counts + b"data: [DONE]\n\n") + b"0\r\n\r\n"


class Clock:
    """Calls `step()` of all streams when they are due."""

    def __init__(self) -> None:
        self.late = 0.0  # seconds, the most so far
        self._now = 0
        self._due: dict[int, list[Connection]] = {}

    def at(self, seconds: float, stream: Connection) -> None:
        ticks = max(1, round(seconds / TICK_SECONDS))
        self._due.setdefault(self._now + ticks, []).append(stream)

    async def run(self) -> None:
        loop = asyncio.get_running_loop()
        begun = loop.time()
        while True:
            self.late = max(self.late, loop.time() - begun - (self._now + 1) * TICK_SECONDS)
            while loop.time() - begun >= (self._now + 1) * TICK_SECONDS:
                self._now += 1
                for stream in self._due.pop(self._now, ()):
                    stream.step()
            await asyncio.sleep(begun + (self._now + 1) * TICK_SECONDS - loop.time())


class Connection(asyncio.Protocol):
    """One connection of a worker, with one call at a time."""

    def __init__(self, clock: Clock, calls: list[dict[str, Any]]) -> None:
        self.clock, self.calls = clock, calls
        self.buffer = bytearray()
        self.needed = 0  # bytes of the request that is coming; 0: its head is not here yet
        self.record: dict[str, Any] | None = None
        self.timer: asyncio.TimerHandle | None = None
        self.paused = False
        self.unsent = memoryview(b"")

    def connection_made(self, transport: Any) -> None:
        self.transport = transport

    def connection_lost(self, error: Exception | None) -> None:
        if self.record is not None:
            self.record["closed_early"] = True
            self.ended()

    def pause_writing(self) -> None:
        self.paused = True

    def resume_writing(self) -> None:
        self.paused = False
        self.write_on()

    def data_received(self, data: bytes) -> None:
        self.buffer += data
        if not self.needed:
            end = self.buffer.find(b"\r\n\r\n")
            if end < 0:
                return
            length = LENGTH.search(self.buffer, 0, end + 2)
            self.needed = end + 4 + (int(length[1]) if length else 0)
        if len(self.buffer) >= self.needed:
            asked = bytes(self.buffer[: self.needed])
            del self.buffer[: self.needed]
            self.needed = 0
            self.serve(asked)

    def serve(self, asked: bytes) -> None:
        if not asked.startswith(b"POST"):
            if asked.startswith(b"DELETE"):
                self.calls.clear()
                self.clock.late = 0.0
            told = self.clock.late if b"/late" in asked[:20] else self.calls
            self.reply(json.dumps(told).encode())
            return
        model, nonce = MODEL.search(asked), NONCE.search(asked)
        assert model is not None and nonce is not None
        self.begin(model[1].decode(), nonce[0].decode(), STREAM.search(asked) is not None)

    def begin(self, model: str, nonce: str, stream: bool) -> None:
        body = {"messages": [{"content": nonce}]}
        started = {"started": time.time(), "ended": None, "closed_early": False}
        self.record = {"model": model, "stream": stream, "body": body, **started}
        self.calls.append(self.record)
        words = behaviour(model)
        self.nonce, self.model, self.parts = nonce, model, parts(model)
        self.pause = words["stream"][1] / 1000 if "stream" in words else 0.0
        delay = (words.get("delay") or [0])[0] / 1000
        if not stream:
            delay += self.pause * len(self.parts)
        loop = asyncio.get_running_loop()
        self.timer = loop.call_later(delay, self.first if stream else self.whole)

    def whole(self) -> None:
        before, after = whole(self.model)
        self.ended()
        self.reply(before + self.nonce.encode(), after)

    def reply(self, body: bytes, after: bytes = b"") -> None:
        head = "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n"
        length = len(body) + len(after)
        self.transport.write(f"{head}Content-Length: {length}\r\n\r\n".encode() + body)
        self.unsent = memoryview(after)
        self.write_on()

    def write_on(self) -> None:
        """Write as much of a body as is taken: the transport would copy all that it cannot send."""
        while self.unsent and not self.paused:
            piece, self.unsent = self.unsent[:PIECE], self.unsent[PIECE:]
            self.transport.write(piece)

    def first(self) -> None:
        self.transport.write(HEAD + delta(self.parts[0].replace("NONCE", self.nonce)))
        self.at = 1
        self.clock.at(self.pause, self)

    def step(self) -> None:
        """Write the next token, or the end."""
        if self.record is None:
            return
        if self.paused:  # nobody reads: the token waits
            self.clock.at(self.pause, self)
        elif self.at < len(self.parts):
            self.transport.write(delta(self.parts[self.at]))
            self.at += 1
            self.clock.at(self.pause, self)
        else:
            self.transport.write(ending(len(self.parts)))
            self.ended()

    def ended(self) -> None:
        assert self.record is not None
        self.record["ended"] = time.time()
        self.record = None
        if self.timer is not None:
            self.timer.cancel()


class Provider(Upstream):
    """The provider in a process of its own; a context manager."""

    def __init__(self) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-m", "tests.load.provider"],
            cwd=Path(__file__).parents[2],
            stdout=subprocess.PIPE,
            text=True,
        )
        assert self.process.stdout
        self.port = int(self.process.stdout.readline())
        self.url = f"http://127.0.0.1:{self.port}"

    def late(self) -> float:
        """How late its clock was at most since the last `clear`, in seconds."""
        return float(json.loads(self._ask("GET", "/late")))


async def main() -> None:
    clock, calls = Clock(), []
    loop = asyncio.get_running_loop()
    server = await loop.create_server(
        lambda: Connection(clock, calls), "127.0.0.1", 0, backlog=4096
    )
    sys.stdout.write(f"{server.sockets[0].getsockname()[1]}\n")
    sys.stdout.flush()
    gc.freeze()
    gc.disable()  # a full collection over all records would be a stall of the provider
    await clock.run()


if __name__ == "__main__":
    asyncio.run(main())
