"""A crowd of callers who do all that callers do: ask in every way, leave early, send nonsense."""

from __future__ import annotations

import http.client
import json
import random
import re
import threading
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from gateway.account import api_keys
from tests.faults.client import Client, Seen
from tests.faults.reconciler import Allowed, reconcile

USERS = 32
PATIENCE_SECONDS = 120.0  # for the last calls of a crowd that was told to stop
DEADLINE_SECONDS = 15.0
# Of a hundred calls
SHARES = {"whole": 32, "stream": 28, "endpoint": 20, "failing": 10, "leaving": 5, "bad": 5}

WHOLE = ("fake/echo", "claude/echo", "fake/delay-20")
STREAMS = ("fake/nonce-stream-8-5", "claude/nonce-stream-8-5", "claude/echo", "fake/echo")
LEAVING = ("fake/delay-700", "fake/nonce-stream-40-20", "claude/nonce-stream-40-20")
FAILING = (
    *("fake/status-400", "fake/status-401", "fake/status-429-after-1", "fake/status-500"),
    *("fake/reset", "fake/nonce-stream-5-5-reset-mid", "fake/nonce-stream-5-5-cut"),
    *("fake/nonce-stream-5-5-error-mid", "fake/malformed", "fake/html", "closed/any"),
    *("claude/status-529", "claude/nonce-stream-5-5-cut", "claude/nonce-stream-5-5-error-mid"),
)
ERROR = re.compile(rb'"error": ?\{')
JSON = {"Content-Type": "application/json"}


class Crowd:
    """Callers that call for as long as they are let, and count what came of it.

    `healthy` says that nothing is broken on purpose: then a good call is to be answered, and else
    an error that says so will do. Defects are sentences; none of them is allowed either way.
    """

    def __init__(self, port: int, key: str, rng: random.Random, *, healthy: bool = True) -> None:
        self.port, self.key, self.healthy = port, key, healthy
        self.counts: Counter[str] = Counter()  # of calls, by kind and what came of them
        self.defects: list[str] = []
        self.ended = 0
        self._rng = rng
        self._begun = 0
        self._wanted = 0.0  # calls to begin
        self._over = False
        self._changed = threading.Condition()
        self._threads = [threading.Thread(target=self._call_on, daemon=True) for _ in range(USERS)]
        for thread in self._threads:
            thread.start()

    def __enter__(self) -> Crowd:
        return self

    def __exit__(self, *_: object) -> None:
        self.leave()

    def call(self, calls: int) -> None:
        """Make this many calls more; returns when all have ended."""
        self._want(self._begun + calls)
        self._wait()

    def call_during(self, act: Callable[[], None]) -> None:
        """Call while `act` runs; returns when all calls have ended."""
        self._want(float("inf"))
        try:
            act()
        finally:
            self._want(self._begun)
            self._wait()

    def leave(self) -> None:
        """Let everybody go."""
        with self._changed:
            self._over = True
            self._changed.notify_all()
        for thread in self._threads:
            thread.join(PATIENCE_SECONDS)

    def _want(self, calls: float) -> None:
        with self._changed:
            self._wanted = calls
            self._changed.notify_all()

    def _wait(self) -> None:
        with self._changed:
            done = self._changed.wait_for(
                lambda: self._begun >= self._wanted and self.ended == self._begun,
                # Each call has a deadline, so some end all the time.
                timeout=PATIENCE_SECONDS + self._wanted - self._begun,
            )
        assert done, f"{self._begun - self.ended} calls do not end"

    def _call_on(self) -> None:
        visitor = Visitor(self.port, self.key)
        while True:
            with self._changed:
                if self._begun >= self._wanted:
                    visitor.close()  # a crowd at rest holds no connection
                self._changed.wait_for(lambda: self._over or self._begun < self._wanted)
                if self._over:
                    return
                self._begun += 1
                number, seed = self._begun, self._rng.getrandbits(64)
            result, defects = self._one(number, random.Random(seed), visitor)
            with self._changed:
                self.ended += 1
                self.counts[result] += 1
                self.defects += defects
                self._changed.notify_all()

    def _one(self, number: int, rng: random.Random, visitor: Visitor) -> tuple[str, list[str]]:
        [kind] = rng.choices(list(SHARES), SHARES.values())
        nonce = f"n{number}x{rng.getrandbits(48):012x}"
        if kind in ("endpoint", "bad"):
            visit = (_endpoint if kind == "endpoint" else _bad)(rng, nonce)
            result, defect = self._visit(visit, nonce, visitor)
            return f"{kind} {result}", [f"{visit.path}: {defect}"] if defect else []
        return self._chat(kind, rng, nonce)

    def _chat(self, kind: str, rng: random.Random, nonce: str) -> tuple[str, list[str]]:
        models = {"whole": WHOLE, "stream": STREAMS, "failing": FAILING, "leaving": LEAVING}[kind]
        model = rng.choice(models)
        if kind == "failing" and rng.random() < 0.3:
            model += f"-q{rng.getrandbits(32):08x}"  # names are made up by callers
        stream = kind == "stream" or "error" in model or (kind != "whole" and rng.random() < 0.5)
        seen = Seen(nonce, model, stream, DEADLINE_SECONDS, self.port)
        leave_after = rng.uniform(0.001, 0.5) if kind == "leaving" else 0.0
        Client(seen, self.key, leave_after).run()
        found = [f"{each.kind}: {each.what}" for each in reconcile([seen], None, Allowed(), 0)]
        came = "left" if seen.left else "answered" if seen.answered else "refused"
        if came == ("answered" if kind == "failing" else "refused" if self.healthy else "lost"):
            found.append(f"{came}: {nonce} ({model}, {seen.status} {seen.code})")
        return f"{kind} {came}", found

    def _visit(self, visit: Visit, nonce: str, visitor: Visitor) -> tuple[str, str]:
        """What came of it, and what is wrong with that."""
        try:
            status, answer = visitor.ask(visit, visit.key or self.key)
        except (OSError, http.client.HTTPException) as error:
            return "broken", f"lost: {type(error).__name__}"
        explained = ERROR.search(answer) or visit.path == "health/ready"
        if visit.good and status == 200 and not ERROR.search(answer):
            whole = nonce.encode() in answer or not visit.echoes
            return "answered", "" if whole else f"wrong: {answer[:60]!r}"
        right = not visit.good and 400 <= status < 500
        if explained and (right or (not self.healthy and (visit.good or status >= 500))):
            return "refused", ""
        return str(status), f"refused: {status} {answer[:60]!r}"


@dataclass(frozen=True)
class Visit:
    """A request that is no chat completion, or a bad one; where there is no body, it is a GET."""

    path: str
    body: bytes = b""
    good: bool = True
    key: str = ""  # instead of the usual one
    echoes: bool = False  # its answer repeats the nonce


class Visitor:
    """A caller with one connection for all its calls."""

    def __init__(self, port: int, key: str) -> None:
        self._connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)

    def ask(self, visit: Visit, key: str) -> tuple[int, bytes]:
        """Status and whole body."""
        headers = {"Authorization": f"Bearer {key}", **(JSON if visit.body else {})}
        path = f"/inference/v1/{visit.path}"
        try:
            method = "POST" if visit.body else "GET"
            self._connection.request(method, path, visit.body or None, headers)
            with self._connection.getresponse() as response:
                return response.status, response.read()
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """Hang up; the next call connects again."""
        self._connection.close()


def _endpoint(rng: random.Random, nonce: str) -> Visit:
    """A good call at one of the other endpoints."""
    model = rng.choice(("fake/echo", "claude/echo"))
    said = [{"role": "user", "content": nonce}]
    stream = rng.random() < 0.5
    messages = {"model": model, "max_tokens": 99, "messages": said, "stream": stream}
    responses = {"model": model, "input": nonce, "stream": stream}
    embeddings = {"model": "fake/embed", "input": [nonce, "and more"]}
    return rng.choice(
        (
            Visit("messages", json.dumps(messages).encode(), echoes=True),
            Visit("responses", json.dumps(responses).encode(), echoes=True),
            Visit("embeddings", json.dumps(embeddings).encode()),
            Visit("models"),
            Visit("health/ready"),
        )
    )


def _bad(rng: random.Random, nonce: str) -> Visit:
    """A call that is refused at the endpoint."""
    said = [{"role": "user", "content": nonce}]
    good: dict[str, Any] = {"model": "fake/echo", "messages": said}
    body, key = rng.choice(
        (
            (b'{"model": "fake/echo", "messages": [', ""),
            (json.dumps({**good, "model": f"nobody/{nonce}"}).encode(), ""),
            (json.dumps({**good, "messages": nonce}).encode(), ""),
            (json.dumps({**good, "temperature": [nonce]}).encode(), ""),
            (json.dumps(good).encode(), _stranger(rng)),
            (json.dumps(good).encode(), nonce),
            (b"[" * 5_000, ""),
        )
    )
    path = rng.choice(("chat/completions", "messages", "responses"))
    return Visit(path, body, good=False, key=key)


def _stranger(rng: random.Random) -> str:
    """A well-formed key that nobody has."""
    public_id, secret = (
        api_keys.base62(rng.getrandbits(64), 12),
        api_keys.base62(rng.getrandbits(250), 43),
    )
    return f"{api_keys.PREFIX}{public_id}_{secret}{api_keys.checksum(public_id, secret)}"


def burst(port: int, key: str, calls: int) -> None:
    """So many calls at once: what keeps connections for later has them then."""
    seen = [Seen(f"burst{i}", "fake/delay-500", i % 2 == 0, 30.0, port) for i in range(calls)]
    threads = [threading.Thread(target=Client(each, key).run) for each in seen]
    for thread in threads:
        thread.start()
    end = time.monotonic() + PATIENCE_SECONDS
    for thread in threads:
        thread.join(max(0.0, end - time.monotonic()))
    assert all(each.answered for each in seen), [each for each in seen if not each.answered][:3]
