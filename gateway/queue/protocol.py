"""What a call looks like on its way through Redis: both ends of every protocol, as pure functions.

* `CallSpec` and body: web to worker, under `gw:call:{id}`. One line of JSON, then the body's bytes.
* `Event`: worker to web, an entry `e` of the inbox stream. A head, then bytes: chunks as lines of
  JSON, or the outcome.
* `Outcome`: the call's end. One line of JSON, then the whole response's bytes (none for a stream).
* A line `#provider/model` before the first chunk of a stream (see `encode_head`): another than the
  spec's first target answers. Chunks begin with a brace.

Bodies and responses travel as bytes, so that no process parses what only the next one needs.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, fields
from typing import Any

import orjson

from gateway.catalogue.target import Target
from gateway.errors import GatewayError

PROTOCOL = 1

CHUNKS, OUTCOME = b"p", b"o"  # kinds of events
# Another kind: the call runs once more. The payload is the claim of the lost worker, whose later
# events are dropped. The event itself has neither claim nor number.
RETRY = b"r"


class ProtocolError(Exception):
    """Raised for bytes that are not of this protocol: foreign, damaged or of a newer version."""


@dataclass(slots=True)
class CallSpec:
    """What a job says about a call besides its body, which holds the caller's parameters.

    `targets` may answer, in this order: see `workers.failover`. The worker applies the parameter
    rules of the target that it calls; parameters in `optional` are left out where rules refuse
    them. `key` is the public id of the caller's API key: breakers count failures by it. `account`
    is what the record of the call needs and the worker cannot know: `owner`, `request_id`,
    `user_agent`, `priority`, `model` as requested, `created_ms`, the estimates
    `prompt_tokens` and `output_tokens`, and of a line the `batch_id`.
    `cost`: the usage in the response says what the call cost.
    `trace` is the context of the request's span: see gateway/tracing.py.
    `cache` says under which `name` the response is kept, and for how many `seconds`.
    `web` is where events and outcome go: the name of the process that waits for them, or for a
    logged call its log (`keys.log_address`), which any process may follow.
    """

    call_id: str
    web: str
    stream: bool
    targets: tuple[Target, ...]
    kind: str = "chat"  # or "embeddings", or "count_tokens" of a chat call
    optional: tuple[str, ...] = ()
    key: str = ""
    account: dict[str, Any] = field(default_factory=dict)
    cost: bool = False
    cache: dict[str, Any] = field(default_factory=dict)
    trace: dict[str, str] = field(default_factory=dict)

    def encode(self, body: bytes) -> bytes:
        """The value of `gw:call:{id}`."""
        head: dict[str, Any] = {
            "v": PROTOCOL,
            "call_id": self.call_id,
            "web": self.web,
            "stream": self.stream,
            "targets": [
                {
                    "model": target.model,
                    "provider": target.provider,
                    "upstream_model": target.upstream_model,
                    # Read by workers of the previous release.
                    "max_output_tokens": target.row.max_output_tokens,
                    "only_if_gone": target.only_if_gone,
                }
                for target in self.targets
            ],
            "kind": self.kind,
        }
        if self.optional:
            head["optional"] = self.optional
        if self.key:
            head["key"] = self.key
        if self.account:
            head["account"] = self.account
        if self.cost:
            head["cost"] = True
        if self.cache:
            head["cache"] = self.cache
        if self.trace:
            head["trace"] = self.trace
        return b"%b\n%b" % (orjson.dumps(head), body)

    @staticmethod
    def decode(value: bytes) -> tuple[CallSpec, bytes]:
        """The spec, whose targets have no rows, and the body; raises ProtocolError."""
        head, body = _split(value)
        try:
            head["targets"] = targets = tuple(map(_target, head["targets"]))
            head["optional"] = tuple(head.get("optional", ()))
            if not isinstance(head.get("key", ""), str):
                raise TypeError("a key's public id must be a string")
            for name in ("account", "cache", "trace"):
                if not isinstance(head.get(name, {}), dict):
                    raise TypeError(f"{name} must be an object")
            spec: CallSpec = _build(CallSpec, head)
        except (TypeError, KeyError) as error:
            raise ProtocolError(f"not a spec: {error}") from None
        if not targets:
            raise ProtocolError("a spec without targets")
        return spec, body


@dataclass(slots=True)
class AdmissionRequest:
    """What the submit script needs to admit a call; it reads the limits themselves in Redis.

    `public_id`, `hmac`, `version` and `owner` are those of the key's record as this process knows
    it: where Redis has another version, the reply is `changed`. Money is in integers of 1e-9 USD.

    `output_tokens` is what the call will probably write, which is reserved; `max_output_tokens` is
    what it could write at most, 0 if nobody knows. `wait` says whether the call waits while too
    many calls of its key or owner are in flight; otherwise it is refused. `delay` is in how many
    seconds it may start. `retry` says whether it may run once more if its worker is lost before
    anything of its response has arrived.
    """

    public_id: str
    hmac: str
    version: int = 0
    owner: str = ""
    prompt_tokens: int = 0
    prompt_nano: int = 0
    output_tokens: int = 0
    output_nano_per_token: float = 0.0
    max_output_tokens: int = 0
    wait: bool = True
    delay: float = 0.0
    retry: bool = False

    def estimate(self) -> dict[str, Any]:
        """Return what an estimate of the call's usage needs: see `commands.lost_commands`."""
        return {
            "prompt_tokens": self.prompt_tokens,
            "prompt_nano": self.prompt_nano,
            "output_nano_per_token": self.output_nano_per_token,
        }


@dataclass(slots=True)
class Outcome:
    """How a call ended.

    `last` is the number of the last event before it. `route` is that of the target that answered,
    or of the one that was called last, and `dropped` names the parameters that this target was not
    sent.
    """

    last: int = 0
    error: GatewayError | None = None
    answer: bytes = b""
    route: str = ""
    timings: dict[str, int] = field(default_factory=dict)  # milliseconds
    dropped: list[str] = field(default_factory=list)

    def encode(self) -> bytes:
        """The value of `gw:outcome:{id}` and the rest of the last event."""
        head: dict[str, Any] = {
            "v": PROTOCOL,
            "last": self.last,
            "error": self.error.to_dict() if self.error else None,
            "route": self.route,
            "timings": self.timings,
        }
        if self.dropped:
            head["dropped"] = self.dropped
        return b"%b\n%b" % (orjson.dumps(head), self.answer)

    @staticmethod
    def decode(value: bytes) -> Outcome:
        """The outcome; raises ProtocolError."""
        head, answer = _split(value)
        error = head.pop("error", None)
        try:
            head["error"] = GatewayError.from_dict(error) if error else None
            head["answer"] = answer
            outcome: Outcome = _build(Outcome, head)
            return outcome
        except (TypeError, ValueError) as problem:
            raise ProtocolError(f"not an outcome: {problem}") from None


@dataclass(slots=True)
class Event:
    """One event of a call under a claim; events of a claim are numbered from 1.

    The finish script appends the outcome to the encoded event that is the last one.
    """

    call_id: str
    claim: str
    number: int
    kind: bytes
    payload: bytes

    def encode(self) -> bytes:
        head = f"{self.call_id} {self.claim} {self.number} ".encode() + self.kind
        return b"%b\n%b" % (head, self.payload)

    @staticmethod
    def decode(value: bytes) -> Event:
        """Raises ProtocolError."""
        head, _, payload = value.partition(b"\n")
        try:
            call_id, claim, number, kind = head.split(b" ")
            return Event(call_id.decode(), claim.decode(), int(number), kind, payload)
        except ValueError:
            raise ProtocolError("not an event") from None


def outcome_event(call_id: str) -> Event:
    """Return the event that stands for a large outcome, which is read where Redis keeps it.

    A web process of the previous release takes it for an event of no call, and finds the outcome
    when it compares its calls with Redis.
    """
    return Event("", "", 0, OUTCOME, call_id.encode())


def encode_head(route: str, dropped: Sequence[str], chunks: bytes) -> bytes:
    """The first payload of a stream that another than the spec's first target answers.

    `dropped` names the parameters that this target was not sent.
    """
    # The previous release takes the whole line for the route, so it is no longer than necessary.
    names = f"\t{','.join(dropped)}" if dropped else ""
    return b"#%b\n%b" % ((route + names).encode(), chunks)


def decode_head(payload: bytes) -> tuple[str, list[str], bytes]:
    """Route, dropped parameters and chunks of a stream's first payload.

    The route is empty where the spec's first target answers.
    """
    if not payload.startswith(b"#"):
        return "", [], payload
    line, _, chunks = payload[1:].partition(b"\n")
    # The name of a model may hold anything but control characters.
    route, _, names = line.decode("utf-8", "replace").partition("\t")
    return route, names.split(",") if names else [], chunks


def _target(fields: Any) -> Target:
    """A target without its row; raises TypeError or KeyError for what is none."""
    model, provider, upstream = fields["model"], fields["provider"], fields["upstream_model"]
    if not (isinstance(model, str) and isinstance(provider, str) and isinstance(upstream, str)):
        raise TypeError("a target's names must be strings")
    return Target(model, provider, upstream, fields.get("only_if_gone") is True)


def _build(kind: type[Any], values: dict[str, Any]) -> Any:
    """An instance of a dataclass from its fields; unknown ones are ignored.

    In a deploy, processes of two releases speak with each other: a new field must have a default,
    and the old process ignores it. Only a change that breaks this counts up PROTOCOL.
    """
    try:
        return kind(**values)
    except TypeError:
        names = {each.name for each in fields(kind)}
        return kind(**{name: value for name, value in values.items() if name in names})


def _split(value: bytes) -> tuple[dict[str, Any], bytes]:
    line, _, rest = value.partition(b"\n")
    try:
        head = orjson.loads(line)
    except orjson.JSONDecodeError:
        raise ProtocolError("no head") from None
    if not isinstance(head, dict) or head.pop("v", None) != PROTOCOL:
        raise ProtocolError("unknown version")
    return head, rest
