"""A proxy in front of the service that keeps each request with the response that it got."""

from __future__ import annotations

import http.client
import threading
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

KEPT_BYTES = 400_000
HOP_BY_HOP = ("connection", "transfer-encoding", "keep-alive", "content-length")
SECRET = ("authorization", "x-api-key")
LABEL_PATH = "/label"  # a POST here names what follows


class Recorder:
    """Forwards to a port of loopback; a context manager. `on_label` hears each new label."""

    def __init__(self, port: int, on_label: Callable[[], None]) -> None:
        self.exchanges: list[dict[str, Any]] = []
        self.label = ""
        recorder = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def log_message(self, *_: object) -> None:
                pass

            def forward(self) -> None:
                body = recorder.body(self)
                if self.path == LABEL_PATH:
                    recorder.label = body.decode()
                    on_label()
                    self.send_response(204)
                    self.end_headers()
                    return
                recorder.forward(self, body, port)

            do_GET = do_POST = do_HEAD = do_DELETE = do_PUT = do_OPTIONS = forward

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.daemon_threads = True
        self.origin = f"http://127.0.0.1:{self.server.server_port}"
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def __enter__(self) -> Recorder:
        return self

    def __exit__(self, *_: object) -> None:
        self.server.shutdown()
        self.server.server_close()

    def begin(self, label: str) -> None:
        """What comes from now on belongs to this label."""
        self.label = label

    def of(self, label: str) -> list[dict[str, Any]]:
        """The exchanges under a label, oldest first."""
        return [each for each in self.exchanges if each["label"] == label]

    def body(self, handler: BaseHTTPRequestHandler) -> bytes:
        if handler.headers.get("transfer-encoding", "").lower() != "chunked":
            return handler.rfile.read(int(handler.headers.get("content-length") or 0))
        whole = b""
        while size := int(handler.rfile.readline().split(b";")[0], 16):
            whole += handler.rfile.read(size)
            handler.rfile.readline()
        handler.rfile.readline()
        return whole

    def forward(self, handler: BaseHTTPRequestHandler, body: bytes, port: int) -> None:
        headers = {n: v for n, v in handler.headers.items() if n.lower() not in HOP_BY_HOP}
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=120)
        exchange: dict[str, Any] = {
            "label": self.label,
            "method": handler.command,
            "path": handler.path,
            "headers": {n: v for n, v in headers.items() if n.lower() not in SECRET},
            "request": body[:KEPT_BYTES].decode(errors="replace"),
        }
        handler.close_connection = True
        try:
            connection.request(handler.command, handler.path, body or None, headers)
            response = connection.getresponse()
            exchange |= {"status": response.status, "response_headers": dict(response.getheaders())}
            self.exchanges.append(exchange)
            handler.send_response(response.status)
            for name, value in response.getheaders():
                if name.lower() not in HOP_BY_HOP or (
                    handler.command == "HEAD" and name.lower() == "content-length"
                ):
                    handler.send_header(name, value)
            handler.send_header("Connection", "close")
            handler.end_headers()
            kept = b""
            while data := response.read1(65_536):
                handler.wfile.write(data)
                handler.wfile.flush()
                kept += data if len(kept) < KEPT_BYTES else b""
                exchange["response"] = kept.decode(errors="replace")
        except (OSError, http.client.HTTPException):
            exchange["left"] = True
        finally:
            connection.close()
