"""gunicorn's gevent worker: bounded sends, strict requests, a log without client data.

The only place that overrides private seams of gunicorn 27.0.1 (gunicorn_h1c 0.6.9 parses heads
where it is installed). `tests/unit/api/http/test_gunicorn_worker.py` names a seam that moves.

| seam                         | override                          | reason                      |
|------------------------------|-----------------------------------|-----------------------------|
| `AsyncWorker.handle`         | count connections; NOTSENT_LOWAT; | bounded memory and pool     |
|                              | close silent ones when many       |                             |
| `AsyncWorker.handle_request` | SEND_SECONDS; a timeout is EPIPE; | a client that reads nothing |
|                              | close where a body is unread      | endless bodies              |
| `RequestParser.mesg_class`,  | requests are StrictRequests       | there is no setting for it  |
| set in `Worker.init_process` |                                   |                             |
| `Request.parse`              | refuse targets and folded headers | request smuggling           |
| `Request.read_into`          | HEAD_SECONDS                      | heads that never end        |
| `Request.max_buffer_headers` | HEAD_BYTES                        | heads that never end        |
| `Request.should_close`       | true where a body is unread       | endless bodies              |
| `Request.set_body_reader`    | a body that came with the head is | nothing waits for it: 30 us |
|                              | a BytesIO                         | a request                   |
| `RequestParser.finish_body`, | true: `should_close` has seen     | 10 us a request             |
| set in `Worker.init_process` | that the body is read             |                             |
| `Worker.timeout_ctx`         | none: `parse` sets the time of an | a timer for each request    |
|                              | idle connection                   | takes 15 us                 |
| `Request`                    | false: body.py asks for the body  | no body before the key is   |
| `._expected_100_continue`    |                                   | checked                     |
| `Request._parse_fast`        | refuse bare line feeds            | request smuggling           |
| `util.write_error`,          | JSON with a request id            | gunicorn writes HTML        |
| set in `Worker.init_process` |                                   |                             |
| `Worker.init_signals`        | HUP is TERM; INT and QUIT end     | streams just stopped        |
|                              | the calls that run                |                             |
| `Logger.warning`             | cut what a client sent            | keys and prompts in the log |
| `wsgi.Response.write`,       | the first bytes of the body go    | each write takes 20 µs      |
| set in `Worker.init_process` | out with the head                 |                             |
| `wsgi.WSGIErrorsWrapper`,    | one for all requests              | 10 µs a request             |
| set in `Worker.init_process` |                                   |                             |
| `Worker.handle_usr1`         | forget it when log files are      | it would hold closed files  |
|                              | opened again                      |                             |
| `Config.__getattr__`,        | settings are plain attributes     | 10 µs a request             |
| by `Worker.init_process`     |                                   |                             |
| `util.http_date`,            | one text for a whole second       | 15 µs a response            |
| set in `Worker.init_process` |                                   |                             |
"""

from __future__ import annotations

import contextlib
import errno
import functools
import logging
import re
import signal
import socket
import time
import uuid
from email.utils import formatdate
from io import BytesIO
from typing import Any, ClassVar

import gevent
from gunicorn import util
from gunicorn.glogging import Logger
from gunicorn.http import wsgi
from gunicorn.http.body import LengthReader
from gunicorn.http.errors import InvalidHeader, InvalidRequestLine
from gunicorn.http.message import Request
from gunicorn.http.parser import RequestParser
from gunicorn.workers.ggevent import GeventWorker

from gateway.errors import GatewayError, InvalidRequest

log = logging.getLogger(__name__)

SEND_SECONDS = 30  # longest wait for a client to take what it is sent
# Bytes that the system buffers for a client that does not read. Its default is megabytes, so a
# thousand such clients held gigabytes and none was noticed.
UNSENT_BYTES = 131_072
HEAD_SECONDS = (
    10  # from the first connect, or the first byte of a later request, to its last header
)
HEAD_BYTES = 32_768  # request line and headers together
JOINED_BYTES = 65_536  # of a body, up to which it is worth a copy to save a write
# A connection that is closed with unread bytes is reset, and the client may lose the response.
LINGER_SECONDS = 2.0
LINGER_BYTES = 1_048_576
# The pool of connections is nearly full at this share: the longest silent one makes room.
SILENT_SHARE = 0.875
NOTSENT_LOWAT = getattr(socket, "TCP_NOTSENT_LOWAT", None)
QUOTE = re.compile(r"b?['\"].*", re.DOTALL)


class StrictRequest(Request):  # type: ignore[misc]
    """A request that rejects what gunicorn accepts and a proxy may read differently.

    Its head is bounded in bytes and time. `silent` holds the connections of this process that have
    sent no whole head, the longest silent first.
    """

    silent: ClassVar[dict[Any, None]] = {}
    _head_end: float | None = None  # by the monotonic clock; None: it may take its time
    body: Any
    _came = 0  # bytes behind the head that came with it

    def parse(self, unreader: Any) -> Any:
        """Return the bytes after the head; raise gunicorn's errors for a malformed head.

        Raises StopIteration for a head that does not come in time, or a connection that stays idle.
        """
        self.max_buffer_headers = HEAD_BYTES - self.limit_request_line
        connection = unreader.sock
        self.silent[connection] = None
        try:
            if self.req_number == 1:
                self._limit(connection)
            else:
                connection.settimeout(self.cfg.keepalive)
            rest = super().parse(unreader)
        except TimeoutError:
            raise StopIteration from None
        finally:
            self.silent.pop(connection, None)
        self._expected_100_continue = False
        # An absolute target is for a proxy, an authority for a tunnel: this is neither.
        if not self.uri.startswith("/"):
            raise InvalidRequestLine("not an origin-form target")
        # The C parser leaves the name of a folded header empty (RFC 9112, 5.2: reject).
        if any(not name for name, _ in self.headers):
            raise InvalidHeader("folded header")
        self._came = len(rest)
        return rest

    def read_into(self, unreader: Any, buf: bytearray, stop: bool = False) -> None:
        """Add what has come of the head to `buf`; raise TimeoutError after HEAD_SECONDS."""
        if not stop:  # the first bytes of a head were not its last
            self._limit(unreader.sock)
        super().read_into(unreader, buf, stop)

    def should_close(self) -> bool:
        """Whether this request is the last of its connection."""
        return self.unread() or super().should_close()

    def set_body_reader(self) -> None:
        """Make the body, in memory if all of it and no more has come with the head."""
        super().set_body_reader()
        reader = self.body.reader
        if isinstance(reader, LengthReader) and reader.length == self._came:
            # Without a body, the buffer may hold the next request.
            self.body = BytesIO(self.unreader.take_buffered() if reader.length else b"")

    def unread(self) -> bool:
        """Whether some of the body has not been read, or was not valid."""
        if isinstance(self.body, BytesIO):
            return False
        reader = self.body.reader
        return bool(reader.length if isinstance(reader, LengthReader) else reader.parser)

    def _limit(self, connection: Any) -> None:
        if self._head_end is None:
            self._head_end = time.monotonic() + HEAD_SECONDS
        # gevent takes 0 for "do not block".
        connection.settimeout(max(self._head_end - time.monotonic(), 0.001))

    def _parse_fast(self, unreader: Any, buf: bytearray) -> Any:
        rest = super()._parse_fast(unreader, buf)
        # A bare LF ends a line for the C parser, and is part of a header's value for others.
        head = buf[: len(buf) - len(rest)]
        if head.count(b"\n") != head.count(b"\r\n"):
            raise InvalidHeader("bare LF as line terminator")
        return rest


class Response(wsgi.Response):  # type: ignore[misc]
    """A response whose head goes out with the first bytes of its body."""

    sock: Any

    def write(self, arg: Any) -> None:
        """Send a piece of the body."""
        if self.headers_sent or len(arg) > JOINED_BYTES:
            super().write(arg)
            return
        client, self.sock = self.sock, _Pieces()
        try:
            super().write(arg)
        finally:
            pieces, self.sock = self.sock, client
        whole = b"".join(pieces)
        # Nearly always all. sendall() asks for the buffer's size first, and has SEND_SECONDS too.
        sent = client.send(whole)
        if sent < len(whole):
            client.sendall(whole[sent:])


class _Pieces(list[bytes]):
    """What is to be sent in one write."""

    sendall = list.append


class Log(Logger):  # type: ignore[misc]
    """gunicorn's log, without client data: a malformed request may hold a key or a prompt."""

    def warning(self, msg: Any, *args: Any, **kwargs: Any) -> None:
        """Log a warning; for an invalid request, only its kind and origin."""
        if isinstance(msg, str) and msg.startswith("Invalid request"):
            msg = QUOTE.sub("...", msg)
        super().warning(msg, *args, **kwargs)


class Worker(GeventWorker):  # type: ignore[misc]
    """Bounds what clients can hold, and counts open `connections`.

    `hurried` is whether the calls that run are to be ended at once, instead of drained.
    """

    connections = 0
    hurried = False

    def handle(self, listener: Any, client: Any, addr: Any) -> None:
        """Serve one connection. If the pool is nearly full, close the longest silent one."""
        self.connections += 1
        if self.connections > self.worker_connections * SILENT_SHARE and StrictRequest.silent:
            _hang_up(next(iter(StrictRequest.silent)))
        if NOTSENT_LOWAT is not None:
            with contextlib.suppress(OSError):  # not a TCP socket
                client.setsockopt(socket.IPPROTO_TCP, NOTSENT_LOWAT, UNSENT_BYTES)
        try:
            super().handle(listener, client, addr)
        finally:
            self.connections -= 1

    def handle_request(self, listener_name: Any, req: Any, sock: Any, addr: Any) -> Any:
        """Serve one request. Raises BrokenPipeError if the client reads nothing for SEND_SECONDS.

        gunicorn knows that error as a client's leaving; for a TimeoutError it logs a traceback.
        """
        sock.settimeout(SEND_SECONDS)
        try:
            return super().handle_request(listener_name, req, sock, addr)
        except TimeoutError:
            log.info("a client reads nothing: its connection is closed")
            raise BrokenPipeError(errno.EPIPE, "the client reads nothing") from None
        finally:
            if req.unread():
                linger(sock)

    def timeout_ctx(self) -> Any:
        """Return what bounds the wait for a request: nothing, see StrictRequest."""
        return contextlib.nullcontext()

    def handle_error(self, req: Any, client: Any, addr: Any, exc: Any) -> None:
        """Send the error of a request that does not reach the app."""
        super().handle_error(req, client, addr, exc)
        linger(client)

    def handle_quit(self, sig: Any, frame: Any) -> None:
        """End the calls that run with an error, and exit: SIGINT and SIGQUIT."""
        self.hurried = True
        self.alive = False

    def handle_usr1(self, sig: Any, frame: Any) -> None:
        """Open the log files again."""
        super().handle_usr1(sig, frame)
        wsgi.WSGIErrorsWrapper.cache_clear()  # it holds the closed ones

    def init_signals(self) -> None:
        """Set what each signal does: SIGHUP drains, as SIGTERM does."""
        super().init_signals()
        signal.signal(signal.SIGHUP, self.handle_exit)

    def init_process(self) -> None:
        """Run the worker."""
        RequestParser.mesg_class = StrictRequest
        RequestParser.finish_body = lambda self: True
        wsgi.Response = Response
        wsgi.WSGIErrorsWrapper = functools.cache(wsgi.WSGIErrorsWrapper)
        util.write_error = write_error
        util.http_date = http_date
        # gunicorn looks a dozen settings up for each request, each by `Config.__getattr__`.
        values = {name: setting.get() for name, setting in self.cfg.settings.items()}
        self.cfg.__dict__.update(values)
        super().init_process()


def http_date() -> str:
    """Return the time in the format of the Date header."""
    return _date_of(int(time.time()))


@functools.lru_cache(maxsize=1)
def _date_of(second: int) -> str:
    return formatdate(second, usegmt=True)


REFUSALS = {
    403: "The request is forbidden.",
    414: "The request line is too long.",
    417: "The Expect header must be 100-continue.",
    431: f"The headers are too large: at most {HEAD_BYTES} bytes in all are allowed.",
    501: "The Transfer-Encoding is not supported: send chunked or Content-Length.",
}


def write_error(sock: Any, status_int: int, reason: str, mesg: str) -> None:
    """Send the error of a request that does not reach the app, in OpenAI's envelope.

    `mesg` quotes what the client sent and is dropped.
    """
    # Not at the top: the arbiter reads this file before gevent has patched the standard library.
    from api.http.errors import body

    if status_int == 500:
        error = GatewayError()
    else:
        text = REFUSALS.get(status_int, "The request is not valid HTTP/1.1.")
        error = InvalidRequest(text, code="invalid_http", status=status_int)
    request_id = error.request_id = uuid.uuid4().hex
    content = body(error)
    log.info("request %s: %d before the app", request_id, status_int)
    head = (
        f"HTTP/1.1 {status_int} {reason}\r\nConnection: close\r\n"
        f"Content-Type: application/json\r\nContent-Length: {len(content)}\r\n"
        f"X-Request-Id: {request_id}\r\nX-Content-Type-Options: nosniff\r\n\r\n"
    )
    util.write_nonblock(sock, head.encode("latin-1") + content)


def linger(connection: Any) -> None:
    """Say that no more comes, and drop some of what the client still sends.

    Ends when the client closes, or after LINGER_SECONDS or LINGER_BYTES.
    """
    end, size = time.monotonic() + LINGER_SECONDS, 0
    with contextlib.suppress(OSError):
        connection.shutdown(socket.SHUT_WR)
        while size < LINGER_BYTES and (left := end - time.monotonic()) > 0:
            connection.settimeout(left)
            piece = connection.recv(65_536)
            if not piece:
                return
            size += len(piece)
            gevent.sleep(0)  # a fast sender would keep the event loop to itself


def _hang_up(connection: Any) -> None:
    StrictRequest.silent.pop(connection, None)
    with contextlib.suppress(OSError):
        connection.shutdown(socket.SHUT_RDWR)
