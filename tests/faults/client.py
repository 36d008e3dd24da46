"""A client that writes down what it saw of one call, and may leave in the middle."""

from __future__ import annotations

import contextlib
import http.client
import json
import socket
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from tests.support.stack import SECRETS
from tests.support.upstream_answers import behaviour, numbered

PATIENCE_SECONDS = 5.0  # past a call's deadline: the promise's own


@dataclass
class Seen:
    """One call as its client saw it. Times are in seconds since 1970, as in the provider's log."""

    nonce: str
    model: str
    stream: bool
    deadline: float = 15.0  # seconds, told to the service
    port: int = 0
    began: float = 0.0
    ended: float = 0.0
    left: float = 0.0  # when the client left on purpose; 0: it stayed
    status: int = 0
    call_id: str = ""  # that the response's headers name
    should_retry: str = ""
    retry_after: str = ""
    text: str = ""
    reasons: int = 0  # finish reasons that came
    answerers: set[str] = field(default_factory=set)  # the models that the answer names
    told_secret: bool = False  # a provider's key came
    done: bool = False  # `data: [DONE]` came
    code: str = ""  # of the error that came
    broken: str = ""  # how the connection failed, if it did

    @property
    def answered(self) -> bool:
        """Whether it got the whole answer, as far as the answer says itself."""
        return self.status == 200 and self.reasons > 0 and not self.code and not self.broken

    @property
    def refused(self) -> bool:
        """Whether it got an error that says so."""
        return bool(self.code)

    @property
    def wanted(self) -> str:
        """What the fake provider says to it, by the name of the model that answered."""
        words = behaviour(min(self.answerers, default=self.model))
        if "endless" in words:
            return f"{self.nonce} " + "x" * len(self.text)
        if "stream" not in words:
            return self.nonce
        parts = [f"{self.nonce} ", *numbered(words["stream"][0], words)]
        return "".join(part + "x" * 1024 * (words.get("fat") or [0])[0] for part in parts)


@dataclass
class Client:
    """Makes one call in a thread; `leave_after` seconds it goes, where that is not 0."""

    seen: Seen
    key: str
    leave_after: float = 0.0
    reads: bool = True  # False: it takes nothing of the answer until it leaves
    patience: float = PATIENCE_SECONDS  # past the deadline
    headers: dict[str, str] = field(default_factory=dict)  # further ones
    # The socket itself: the connection forgets it as soon as the head of the answer is there.
    _socket: socket.socket | None = field(default=None, repr=False)
    _over: threading.Event = field(default_factory=threading.Event, repr=False)
    _pieces: list[str] = field(default_factory=list, repr=False)  # joined once: answers may be long

    def run(self) -> None:
        """Call, and note everything in `seen`."""
        seen = self.seen
        seen.began = time.time()
        if self.leave_after:
            threading.Thread(target=self._leave_later, daemon=True).start()
        try:
            self._call()
        except (OSError, http.client.HTTPException, ValueError) as error:
            if not seen.left:
                seen.broken = type(error).__name__
        finally:
            seen.ended = time.time()
            seen.text = "".join(self._pieces)
            self._over.set()

    def _leave_later(self) -> None:
        if self._over.wait(self.leave_after):
            return
        self.seen.left = time.time()
        if self._socket is not None:
            with contextlib.suppress(OSError):
                self._socket.shutdown(socket.SHUT_RDWR)

    def _call(self) -> None:
        seen = self.seen
        connection = http.client.HTTPConnection(
            "127.0.0.1", seen.port, timeout=seen.deadline + self.patience
        )
        with contextlib.closing(connection):
            self._ask(connection)
            if not self.reads:
                self._over.wait(self.leave_after + 1)
            elif not seen.left:
                with contextlib.closing(connection.getresponse()) as response:
                    self._read(response)

    def _ask(self, connection: http.client.HTTPConnection) -> None:
        seen = self.seen
        body = {
            "model": seen.model,
            "messages": [{"role": "user", "content": seen.nonce}],
            "stream": seen.stream,
        }
        headers = {
            "Authorization": f"Bearer {self.key}",
            "Content-Type": "application/json",
            "X-Request-Timeout": f"{seen.deadline:g}",
            "X-Request-Id": seen.nonce,
            "Connection": "close",
            **self.headers,
        }
        path = "/inference/v1/chat/completions"
        connection.request("POST", path, json.dumps(body).encode(), headers)
        self._socket = connection.sock
        if not self.reads:
            connection.sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)

    def _read(self, response: http.client.HTTPResponse) -> None:
        seen = self.seen
        seen.status = response.status
        seen.call_id = response.headers.get("x-generation-id", "")
        seen.should_retry = response.headers.get("x-should-retry", "")
        seen.retry_after = response.headers.get("retry-after", "")
        self._look_for_secrets(str(response.headers).encode())
        if response.headers.get_content_type() == "text/event-stream":
            self._read_events(response)
        else:
            self._read_whole(response.read())

    def _read_whole(self, body: bytes) -> None:
        self._look_for_secrets(body)
        self._take(json.loads(body))

    def _read_events(self, response: http.client.HTTPResponse) -> None:
        for data in _data(response):
            if data == "[DONE]":
                self.seen.done = True
            else:
                self._look_for_secrets(data.encode())
                self._take(json.loads(data))

    def _look_for_secrets(self, data: bytes) -> None:
        if any(secret.encode() in data for secret in SECRETS):
            self.seen.told_secret = True

    def _take(self, body: dict[str, Any]) -> None:
        seen = self.seen
        if "error" in body:
            seen.code = body["error"].get("code") or body["error"].get("type") or "error"
            return
        if body.get("model"):
            seen.answerers.add(body["model"])
        for choice in body.get("choices", ()):
            message = choice.get("delta") or choice.get("message") or {}
            self._pieces.append(message.get("content") or "")
            seen.reasons += choice.get("finish_reason") is not None


def _data(response: http.client.HTTPResponse) -> Iterator[str]:
    while line := response.readline():
        if line.startswith(b"data: "):
            yield line[6:].decode().strip()
