"""A provider to test against: what it does is written in the model's name.

`python -m tests.upstream --port 0` prints its port, then speaks OpenAI's chat completions and
embeddings at /v1 and Anthropic's messages (streamed) at /v1/messages. The model's name is a
list of words joined by dashes, each with the numbers that follow it: see upstream_answers.WORDS.
Words that are not there do nothing, so that any real model's name echoes the last user message.

GET /log gives the requests so far and the usage that was reported for each, DELETE /log forgets
them. PUT /down takes an object of models and a word for each, which they say from now on: `hang`,
`reset` or `refuse` (a 500).
Each `--tls` names a PEM file with key and certificate, and adds a port where the same is served.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import socket
import ssl
import struct
import subprocess
import sys
import time
import urllib.request
from collections import Counter, deque
from collections.abc import Sequence
from pathlib import Path

from tests.support.upstream_answers import Answer

REASONS = {200: "OK", 302: "Found"}
MAX_LOG = 50_000
SECRET = frozenset({"authorization", "x-api-key"})


class Records:
    def __init__(self) -> None:
        self.calls: deque[dict] = deque(maxlen=MAX_LOG)
        self.seen: set[tuple[str, str]] = set()
        self.down: dict[str, str] = {}
        self.counts: Counter[str] = Counter()
        self.connections = 0

    def first_time(self, model: str, text: str) -> bool:
        again = (model, text) in self.seen
        self.seen.add((model, text))
        return not again

    def count(self, model: str) -> int:
        """How often the model was called, this time included."""
        self.counts[model] += 1
        return self.counts[model]

    def clear(self) -> None:
        self.calls.clear()
        self.seen.clear()


class Connection(asyncio.Protocol):
    """One client's connection: reads requests one after the other, answers each in a task."""

    def __init__(self, records: Records) -> None:
        self.records = records
        self.buffer = b""
        self.task: asyncio.Task | None = None
        self.stale = False
        self.key = ""
        self.may_write = asyncio.Event()
        self.may_write.set()

    def connection_made(self, transport) -> None:
        self.transport = transport
        self.records.connections += 1
        self.number = self.records.connections

    def connection_lost(self, error) -> None:
        self.may_write.set()
        if self.task:
            self.task.cancel()

    def pause_writing(self) -> None:
        self.may_write.clear()

    def resume_writing(self) -> None:
        self.may_write.set()

    def data_received(self, data: bytes) -> None:
        if self.stale:
            self.transport.close()
            return
        self.buffer += data
        self.next_request()

    def next_request(self) -> None:
        head, blank, rest = self.buffer.partition(b"\r\n\r\n")
        if self.task or not blank:
            return
        first, *lines = head.decode("latin-1").split("\r\n")
        headers = {n.lower(): v.strip() for n, _, v in (line.partition(":") for line in lines)}
        length = int(headers.get("content-length", 0))
        if len(rest) < length:
            return
        self.buffer = rest[length:]
        method, path, _ = first.split(" ")
        self.task = asyncio.ensure_future(self.serve(method, path, headers, rest[:length]))
        self.task.add_done_callback(self.served)

    def served(self, task: asyncio.Task) -> None:
        self.task = None
        if not task.cancelled() and task.exception():
            self.transport.abort()
            raise task.exception()
        self.next_request()

    async def serve(self, method: str, path: str, headers: dict[str, str], body: bytes) -> None:
        if path == "/log":
            if method == "DELETE":
                self.records.clear()
            self.reply(200, json.dumps(list(self.records.calls)).encode())
            return
        if path == "/down":
            self.records.down = json.loads(body)
            self.reply(200, b"{}")
            return
        self.key = headers.get("authorization") or headers.get("x-api-key") or ""
        params = json.loads(body)
        record = {
            "path": path,
            "model": params["model"],
            "stream": params.get("stream", False),
            "body": params if len(body) < 20_000 else None,
            "headers": {n: "***" if n in SECRET else v for n, v in headers.items()},
            "connection": self.number,
            "started": time.time(),
            "ended": None,
            "closed_early": False,
            "usage": None,  # what it has reported last
        }
        self.records.calls.append(record)
        answer = Answer(self, path, params)
        try:
            await answer.give()
        except asyncio.CancelledError:
            record["closed_early"] = True
            raise
        finally:
            record["ended"] = time.time()
            record["usage"] = answer.usage

    async def write(self, data: bytes) -> None:
        if not self.transport.is_closing():  # else this task is about to be cancelled
            self.transport.write(data)
        await self.may_write.wait()

    def head(self, status: int, headers: dict[str, str]) -> bytes:
        lines = [f"HTTP/1.1 {status} {REASONS.get(status, 'Refused')}"]
        lines += [f"{name}: {value}" for name, value in headers.items()]
        return "\r\n".join([*lines, "", ""]).encode()

    def reply(
        self, status: int, body: bytes, headers: dict[str, str] | None = None, missing: int = 0
    ) -> None:
        length = {"Content-Length": str(len(body) + missing)}
        all_headers = {"Content-Type": "application/json", **(headers or {}), **length}
        self.transport.write(self.head(status, all_headers) + body)

    def reset(self) -> None:
        raw = self.transport.get_extra_info("socket")
        raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.transport.abort()


class Upstream:
    """The fake provider in a process of its own; a context manager. Port 0 is any free one."""

    def __init__(self, port: int = 0, certificates: Sequence[Path] = ()) -> None:
        secure = [word for path in certificates for word in ("--tls", str(path))]
        self.process = subprocess.Popen(
            [sys.executable, "-m", "tests.support.upstream", "--port", str(port), *secure],
            cwd=Path(__file__).parents[2],
            stdout=subprocess.PIPE,
            text=True,
        )
        assert self.process.stdout
        self.port = int(self.process.stdout.readline())
        self.secure_ports = [int(self.process.stdout.readline()) for _ in certificates]
        self.url = f"http://127.0.0.1:{self.port}"

    def log(self) -> list[dict]:
        """Every call so far, oldest first."""
        return json.loads(self._ask("GET"))

    def clear(self) -> None:
        self._ask("DELETE")

    def down(self, **models: str) -> None:
        """From now on these models, and no others, say what the word means: see `/down`."""
        self._ask("PUT", "/down", json.dumps(models).encode())

    def stop(self) -> None:
        if self.process.stdout and not self.process.stdout.closed:
            self.process.kill()
            self.process.wait()
            self.process.stdout.close()

    def __enter__(self) -> Upstream:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def _ask(self, method: str, path: str = "/log", body: bytes | None = None) -> bytes:
        request = urllib.request.Request(f"{self.url}{path}", data=body, method=method)
        direct = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        with direct.open(request, timeout=10) as response:
            return response.read()


async def main(port: int, certificates: Sequence[str]) -> None:
    records = Records()
    loop = asyncio.get_running_loop()
    servers = []
    for each in (None, *certificates):
        secure = None
        if each is not None:
            secure = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            secure.load_cert_chain(each)
        servers.append(
            await loop.create_server(
                lambda: Connection(records),
                "127.0.0.1",
                0 if secure else port,
                ssl=secure,
                backlog=4096,
            )
        )
        sys.stdout.write(f"{servers[-1].sockets[0].getsockname()[1]}\n")
    sys.stdout.flush()
    await servers[0].serve_forever()


if __name__ == "__main__":
    options = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    options.add_argument("--port", type=int, default=0)
    options.add_argument("--tls", action="append", default=[])
    args = options.parse_args()
    asyncio.run(main(args.port, args.tls))
