"""Asking a provider whatever is at the other end, and an other end that says raw bytes."""

from __future__ import annotations

import gc
import re
import socket
import struct
import threading
from contextlib import contextmanager
from itertools import chain
from pathlib import Path

from gateway.chat import ChatCall, fold
from providers.http.provider import HttpProvider
from providers.http.transport import Transport
from providers.openai.chat import OpenAIWire

ONE_AUTHORITY = Path(__file__).parents[1] / "faults" / "certificates" / "authority.pem"

KEY = "sk-secret-of-the-operator"


@contextmanager
def closing_transport(**options):
    """A transport that is closed in the end; a socket that it leaves open warns then."""
    gc.freeze()  # the collection looks at what this test made, not at all that there is
    transport = Transport(ca_bundle=str(ONE_AUTHORITY), **options)  # all of certifi's take 20 ms
    yield transport
    transport.close()
    gc.collect()


def call(model="echo", text="Hello there", **more):
    return ChatCall(model, {"messages": [{"role": "user", "content": text}], **more})


def openai(url, transport):
    return HttpProvider(OpenAIWire(f"{url}/v1", KEY), transport)


def complete(provider, model, text="Hello there"):
    return provider.complete(call(model, text))


def stream(provider, model, text="Hello there"):
    """The whole answer again, by way of the stream."""
    return fold(chain.from_iterable(provider.stream(call(model, text))))


BOTH_WAYS = {"complete": complete, "stream": stream}


def content(answer):
    return answer["choices"][0]["message"]["content"]


class serving:
    """A server that says these bytes, one piece a request, and closes after the last."""

    def __init__(self, *answers, reset=False):
        self.answers = answers
        self.reset = reset
        self.server = socket.create_server(("127.0.0.1", 0))
        self.server.settimeout(10)
        self.thread = threading.Thread(target=self._serve)

    def __enter__(self):
        self.thread.start()
        return f"http://127.0.0.1:{self.server.getsockname()[1]}"

    def __exit__(self, *_):
        self.thread.join()
        self.server.close()

    def _serve(self):
        connection, _ = self.server.accept()
        with connection:
            connection.settimeout(10)
            for answer in self.answers:
                if not self._request(connection):
                    return
                connection.sendall(answer)
            if self.reset:
                no_linger = struct.pack("ii", 1, 0)
                connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, no_linger)

    def _request(self, connection):
        """One whole request: a socket closed with bytes unread resets its connection."""
        request = b""
        while piece := connection.recv(1 << 16):
            request += piece
            head, blank, body = request.partition(b"\r\n\r\n")
            length = re.search(rb"(?i)content-length: *(\d+)", head)
            if not request.startswith(b"POST") or (
                blank and length and len(body) >= int(length[1])
            ):
                return request
        return b""
