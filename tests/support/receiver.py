"""A receiver of webhooks, whose paths say how it answers."""

from __future__ import annotations

import threading
from collections import Counter
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import orjson


@dataclass(frozen=True)
class Delivery:
    """One request that arrived."""

    path: str
    headers: dict[str, str]
    body: bytes

    @property
    def event(self) -> dict[str, Any]:
        event: dict[str, Any] = orjson.loads(self.body)
        return event


@dataclass
class Receiver:
    """Accepts events at any path but these; a context manager.

    /fail always answers 500, and /twice does for two requests. /redirect answers 307 to /other,
    /hang not at all, /endless with a body without an end, and /drip with one that is slow.
    """

    deliveries: list[Delivery] = field(default_factory=list)
    _released: threading.Event = field(default_factory=threading.Event)

    def __enter__(self) -> Receiver:
        receiver, counts = self, Counter[str]()

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                headers = {name.lower(): value for name, value in self.headers.items()}
                receiver.deliveries.append(Delivery(self.path, headers, body))
                counts[self.path] += 1
                receiver._reply(self, counts[self.path])

            def log_message(self, *_: object) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self.host = f"127.0.0.1:{self._server.server_port}"
        self.url = f"http://{self.host}"
        threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._released.set()
        self._server.shutdown()
        self._server.server_close()

    def at(self, path: str) -> list[Delivery]:
        """The requests that arrived at a path, in their order."""
        return [delivery for delivery in self.deliveries if delivery.path == path]

    def _reply(self, handler: BaseHTTPRequestHandler, count: int) -> None:
        name = handler.path[1:]
        status = 500 if name == "fail" or (name == "twice" and count < 3) else 200
        if name == "hang":
            self._released.wait(60)
            return
        try:
            handler.send_response(307 if name == "redirect" else status)
            handler.send_header("Location", f"{self.url}/other")
            handler.end_headers()
            handler.wfile.write(b"thank you")
            while name in ("drip", "endless") and not self._released.is_set():
                handler.wfile.write(b"." if name == "drip" else b"." * 65536)
                if name == "drip":
                    self._released.wait(0.2)
        except OSError:
            pass  # it had read enough
