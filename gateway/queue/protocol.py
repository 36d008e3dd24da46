"""What a call looks like on its way through Redis: both ends of every protocol, as pure functions.

* `CallSpec` and body: web to worker, under `gw:call:{id}`. One line of JSON, then the body's bytes.
* `Event`: worker to web, an entry `e` of the inbox stream. A head, then bytes: parts as lines of
  JSON, or the outcome.
* `Outcome`: the call's end. One line of JSON, then the whole answer's bytes (none for a stream).
* A line `#provider/model` before the first part of a stream: another than the spec's first target
  answers. Parts begin with a brace.

Bodies and answers travel as bytes, so that nobody parses what only the next one needs.
"""

from __future__ import annotations

from dataclasses import dataclass, field, fields
from typing import Any

import orjson

from gateway.errors import GatewayError

PROTOCOL = 1

PARTS, OUTCOME = b"p", b"o"


class ProtocolError(Exception):
    """Raised for bytes that are not of this protocol: foreign, damaged or of a newer version."""


@dataclass(frozen=True, slots=True)
class Target:
    """A model that may answer a call, and who serves it."""

    model: str  # what callers call it
    provider: str
    upstream_model: str
    max_output_tokens: int | None = None
    only_if_gone: bool = False  # a successor: asked where the provider has the model no more

    @property
    def route(self) -> str:
        """What an outcome says of who answered."""
        return f"{self.provider}/{self.upstream_model}"


@dataclass(frozen=True, slots=True)
class CallSpec:
    """What the worker needs to know of a call besides its body: the caller's parameters.

    `targets` are asked in this order, each after the one before it: see `workers.failover`. The
    worker applies the parameter rules of the target that it asks.
    """

    call_id: str
    web: str
    stream: bool
    targets: tuple[Target, ...]
    kind: str = "chat"  # or "embeddings": what is asked of the provider

    def encode(self, body: bytes) -> bytes:
        """The value of `gw:call:{id}`."""
        # orjson writes dataclasses faster than asdict() copies them.
        return b'{"v":%d,%b\n%b' % (PROTOCOL, orjson.dumps(self)[1:], body)

    @staticmethod
    def decode(value: bytes) -> tuple[CallSpec, bytes]:
        """The spec and the body; raises ProtocolError."""
        head, body = _split(value)
        try:
            targets = tuple(_made(Target, each) for each in head.pop("targets"))
            spec: CallSpec = _made(CallSpec, {**head, "targets": targets})
        except (TypeError, KeyError) as error:
            raise ProtocolError(f"not a spec: {error}") from None
        if not targets:
            raise ProtocolError("a spec without targets")
        return spec, body


@dataclass(frozen=True, slots=True)
class Outcome:
    """How a call ended. `last` is the number of the last event before it."""

    last: int = 0
    error: GatewayError | None = None
    answer: bytes = b""
    route: str = ""  # provider/model that answered, or was asked last
    attempts: int = 0
    usage: dict[str, Any] | None = None
    timings: dict[str, int] = field(default_factory=dict)  # milliseconds
    # Attempts that came to nothing, as "route" and "code"; their usage is nobody's to pay.
    failures: list[dict[str, str]] = field(default_factory=list)

    def encode(self) -> bytes:
        """The value of `gw:outcome:{id}` and the rest of the last event."""
        head: dict[str, Any] = {
            "v": PROTOCOL,
            "last": self.last,
            "error": self.error.to_dict() if self.error else None,
            "route": self.route,
            "attempts": self.attempts,
            "usage": self.usage,
            "timings": self.timings,
        }
        if self.failures:
            head["failures"] = self.failures
        return b"%b\n%b" % (orjson.dumps(head), self.answer)

    @staticmethod
    def decode(value: bytes) -> Outcome:
        """Raises ProtocolError."""
        head, answer = _split(value)
        error = head.pop("error", None)
        try:
            head["error"] = GatewayError.from_dict(error) if error else None
            head["answer"] = answer
            outcome: Outcome = _made(Outcome, head)
            return outcome
        except (TypeError, ValueError) as problem:
            raise ProtocolError(f"not an outcome: {problem}") from None


@dataclass(frozen=True, slots=True)
class Event:
    """One thing that happened to a call under a claim: the `number`th, from 1."""

    call_id: str
    claim: str
    number: int
    kind: bytes
    payload: bytes

    def head(self) -> bytes:
        """All but the payload; the finish script joins the two."""
        return f"{self.call_id} {self.claim} {self.number} ".encode() + self.kind + b"\n"

    def encode(self) -> bytes:
        return self.head() + self.payload

    @staticmethod
    def decode(value: bytes) -> Event:
        """Raises ProtocolError."""
        head, _, payload = value.partition(b"\n")
        try:
            call_id, claim, number, kind = head.split(b" ")
            return Event(call_id.decode(), claim.decode(), int(number), kind, payload)
        except ValueError:
            raise ProtocolError("not an event") from None


def name_answerer(route: str, lines: bytes) -> bytes:
    """The first lines of a stream that another than the spec's first target answers."""
    return b"#%b\n%b" % (route.encode(), lines)


def answerer(payload: bytes) -> tuple[str, bytes]:
    """Who answers, by a stream's first payload ("": the spec's first target), and its parts."""
    if not payload.startswith(b"#"):
        return "", payload
    route, _, lines = payload[1:].partition(b"\n")
    return route.decode("utf-8", "replace"), lines


def _made(kind: type[Any], told: dict[str, Any]) -> Any:
    """An instance of a dataclass; what it has no field for is dropped.

    In a deploy, processes of two releases speak with each other: a new field must have a default,
    and an old process must bear what it does not know. Only a change that breaks this counts up
    PROTOCOL.
    """
    try:
        return kind(**told)
    except TypeError:
        if not isinstance(told, dict):
            raise
        known = {each.name for each in fields(kind)}
        return kind(**{name: value for name, value in told.items() if name in known})


def _split(value: bytes) -> tuple[dict[str, Any], bytes]:
    line, _, rest = value.partition(b"\n")
    try:
        head = orjson.loads(line)
    except orjson.JSONDecodeError:
        raise ProtocolError("no head") from None
    if not isinstance(head, dict) or head.pop("v", None) != PROTOCOL:
        raise ProtocolError("unknown version")
    return head, rest
