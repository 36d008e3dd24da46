"""A call from its door to its provider's bytes and back, without queue, processes and network."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import orjson

from gateway.broker.pending_call import PendingCall
from gateway.catalogue.catalogue import Catalogue
from gateway.queue.protocol import AdmissionRequest, CallSpec
from gateway.settings import Settings
from providers.base import Request
from providers.http.transport import Transport
from providers.openai.embeddings import texts
from tests.support.fakes import FakeBroker, ScriptedCall, Submitted
from workers.claims import Claimed
from workers.providers import connect
from workers.runner import CallRunner, Limits

CHUNKS = (
    {"choices": [{"index": 0, "delta": {"role": "assistant", "content": "Hel"}}]},
    {"choices": [{"index": 0, "delta": {"content": "lo!"}, "finish_reason": "stop"}]},
    {"choices": [], "usage": {"prompt_tokens": 1, "completion_tokens": 2, "total_tokens": 3}},
)
MESSAGE = {"role": "assistant", "content": "Hello!"}
COMPLETION = {"choices": [{"index": 0, "message": MESSAGE, "finish_reason": "stop"}]}
EVENTS = (
    {"type": "message_start", "message": {"usage": {"input_tokens": 1, "output_tokens": 1}}},
    {"type": "content_block_start", "index": 0, "content_block": {"type": "text", "text": ""}},
    {"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": "Hello!"}},
    {"type": "content_block_stop", "index": 0},
    {"type": "message_delta", "delta": {"stop_reason": "end_turn"}, "usage": {"output_tokens": 2}},
    {"type": "message_stop"},
)


class Canned:
    """An answer of a provider that answers everything well."""

    status = 200

    def __init__(self, kind: str, body: bytes) -> None:
        self.headers = {"content-type": kind}
        self._body = body

    def read(self) -> bytes:
        body, self._body = self._body, b""
        return body

    def read_all(self, start: bytes = b"") -> bytearray:
        return bytearray(start + self.read())

    def read_some(self, at_most: int) -> bytes:
        return self.read()

    def check_length(self) -> None:
        pass

    def drain(self) -> None:
        pass


class CannedTransport(Transport):
    """Takes every request; `request` is the last one, and `sent` its JSON."""

    def __init__(self) -> None:
        self.request = Request("", {}, b"")
        self.sent: dict[str, Any] = {}

    @contextmanager
    def post(self, request: Request) -> Iterator[Any]:
        self.request, self.sent = request, orjson.loads(request.body)
        if request.url.endswith("/embeddings"):
            data = [{"embedding": "AAAAQA=="} for _ in texts(self.sent["input"])]
            yield Canned("application/json", orjson.dumps({"data": data}))
        elif request.url.endswith("/messages"):
            yield Canned("text/event-stream", _events(*EVENTS))
        elif self.sent.get("stream"):
            yield Canned("text/event-stream", _events(*CHUNKS) + b"data: [DONE]\n\n")
        else:
            yield Canned("application/json", orjson.dumps(COMPLETION))


def _events(*data: Any) -> bytes:
    return b"".join(b"data: " + orjson.dumps(each) + b"\n\n" for each in data)


class Sent:
    """Takes the chunks of a stream, as an outbox does."""

    def __init__(self) -> None:
        self.payloads: list[bytes] = []

    @property
    def number(self) -> int:
        return len(self.payloads)

    def send(self, payload: bytes) -> None:
        self.payloads.append(payload)


class WholeExchange(FakeBroker):
    """Runs each call at once, as a worker does, against providers that answer everything."""

    def __init__(
        self, catalogue: Catalogue, settings: Settings, transport: CannedTransport | None = None
    ) -> None:
        super().__init__()
        self.transport = transport or CannedTransport()
        providers, limits = (
            connect(catalogue, settings, self.transport),
            Limits(settings.upstream_retries),
        )
        self._runner = CallRunner(providers, limits, catalogue)

    def submit(
        self,
        spec: CallSpec,
        body: bytes,
        admission: AdmissionRequest,
        budget: float,
        logged_request: bytes = b"",
    ) -> PendingCall:
        arrived, parameters = CallSpec.decode(spec.encode(body))
        claimed = Claimed(spec.call_id, spec.web, "claim", 60.0, None)
        sent: Any = Sent()
        outcome = self._runner.run(claimed, arrived, parameters, sent)
        pending = ScriptedCall(spec.call_id, budget, iter([*sent.payloads, outcome]))
        self.calls = [Submitted(spec, orjson.loads(body), admission, budget, pending)]
        return pending
