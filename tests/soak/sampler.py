"""Counts what one of the service's processes holds, from inside, when asked through a socket.

It is started in web process and worker by this package's own entries: the service knows nothing of
it. Memory and file descriptors are read from /proc by whoever asks.
"""

from __future__ import annotations

import gc
import json
import os
import socket
import tracemalloc
from collections import Counter
from pathlib import Path
from typing import Any

import gevent

SOCKET = "SOAK_SOCKET"  # the variable that names it
ASK_SECONDS = 30.0
COUNTS, TYPES, TRACE = b"counts\n", b"types\n", b"trace\n"


def start() -> None:
    """Answer from now on, in a greenlet of this process."""
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(os.environ[SOCKET])
    listener.listen()
    gevent.spawn(_serve, listener)


def ask(path: Path, what: bytes = COUNTS) -> Any:
    """What the process behind this socket says; for TYPES and TRACE a dict of numbers."""
    with socket.socket(socket.AF_UNIX) as connection:
        connection.settimeout(ASK_SECONDS)
        connection.connect(str(path))
        connection.sendall(what)
        with connection.makefile("rb") as answer:
            return json.load(answer)


def _serve(listener: socket.socket) -> None:
    # One after the other, in one greenlet: a sample must not count what it makes itself.
    while True:
        connection, _ = listener.accept()
        with connection, connection.makefile("rb") as asked:
            answer = {COUNTS: _counts, TYPES: _types, TRACE: _trace}[asked.readline()]()
            connection.sendall(json.dumps(answer).encode())


def _counts() -> dict[str, int]:
    objects = gc.get_objects()
    # Not those of gevent's thread pool: ten at most, which come and go as hosts are looked up.
    living = sum(isinstance(each, gevent.Greenlet) and not each.dead for each in objects)
    return {"pid": os.getpid(), "objects": len(objects), "greenlets": living}


def _types() -> dict[str, int]:
    """How many objects of each type the garbage collector knows."""
    kinds = (type(each) for each in gc.get_objects())
    return Counter(f"{kind.__module__}.{kind.__qualname__}" for kind in kinds)


def _trace() -> dict[str, int]:
    """Bytes that each line of code has made and that still live, where Python keeps count."""
    if not tracemalloc.is_tracing():
        return {}
    lines = tracemalloc.take_snapshot().statistics("lineno")
    return {str(line.traceback): line.size for line in lines}
