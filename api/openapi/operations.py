"""What each route takes and answers: the table behind the OpenAPI document.

Bodies are named as in `api.openapi.components`, paths without the service's prefix. A
route without a row fails a test.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from api.messages import errors as messages_errors
from gateway import errors
from gateway.errors import GatewayError

JSON = "application/json"

TAGS = {
    "Chat": "Ask a model.",
    "Embeddings": "Turn text into vectors.",
    "Models": "What can be asked for.",
    "Service": "Is it up, and what is it.",
}

NEVER_SENT = (
    errors.CallCancelled,  # nobody is there to receive it
    errors.NotFound,  # no operation's answer: no such address
    errors.MethodNotAllowed,  # likewise
    errors.Unavailable,  # only a base
)
# Statuses that a provider's refusal keeps (see providers/rejections.py).
KEPT = (400, 409, 413, 415, 422)


def _status(error: GatewayError) -> int:
    return error.status


@dataclass(frozen=True, slots=True)
class Failures:
    """The errors that an operation may answer with: one of each kind, and the shape of all bodies.

    `status` tells an error's HTTP status, `headers` what such answers have beside those of all.
    """

    name: str
    errors: tuple[GatewayError, ...]
    shape: str = "Error"
    status: Callable[[GatewayError], int] = _status
    headers: tuple[str, ...] = ()

    def by_status(self) -> dict[int, list[GatewayError]]:
        """The errors of each status, lowest status first."""
        found: dict[int, list[GatewayError]] = {}
        for error in sorted(self.errors, key=self.status):
            found.setdefault(self.status(error), []).append(error)
        return found


PUBLIC = Failures("Public", (GatewayError(),))
READ = Failures("Read", (errors.AuthenticationFailed(), errors.QueueUnavailable(), *PUBLIC.errors))
LOOKUP = Failures("Lookup", (*READ.errors, errors.ModelNotFound()))
UNSTORED = errors.NotFound("No response is stored.", code="response_not_found")
STORED = Failures("Stored", (*READ.errors, UNSTORED))
CALL = Failures(
    "Call",
    (
        *(kind() for kind in errors.kinds() if kind not in (*NEVER_SENT, errors.UpstreamRejected)),
        *(errors.UpstreamRejected(status=status) for status in KEPT),
    ),
    headers=("Warning",),
)
MESSAGES_CALL = Failures(
    "Messages",
    CALL.errors,
    "MessagesError",
    messages_errors.status,
    headers=("Warning", "request-id"),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Operation:
    """What one route does, takes and answers; one without `media` answers with errors alone.

    `example` is a body as a person writes it in JSON; `events` is the shape of the data of a
    stream's events, `last_event` data that has another; `more` are statuses other than 200 whose
    body is no error, with the names of their shapes.
    """

    id: str
    tag: str
    summary: str
    description: str = ""
    request: str = ""
    example: str = ""
    answer: str = ""
    media: str = JSON
    events: str = ""
    last_event: str = ""
    more: Mapping[int, str] = field(default_factory=dict)
    headers: tuple[str, ...] = ()
    failures: Failures = PUBLIC


CHAT_EXAMPLE = """{
    "model": "openai/gpt-4o-mini",
    "messages": [
      {"role": "system", "content": "You are a helpful assistant."},
      {"role": "user", "content": "What is the capital of France?"}
    ]
  }"""
EMBEDDINGS_EXAMPLE = """{"model": "openai/text-embedding-3-small", "input": ["One.", "Two."]}"""
MESSAGES_EXAMPLE = """{
    "model": "anthropic/claude-sonnet-5-5",
    "max_tokens": 1024,
    "messages": [{"role": "user", "content": "What is the capital of France?"}]
  }"""
RESPONSES_EXAMPLE = """{"model": "openai/gpt-4o-mini", "input": "What is the capital of France?"}"""

# In the order of the document.
OPERATIONS: dict[str, Operation] = {
    "POST /chat/completions": Operation(
        id="createChatCompletion",
        tag="Chat",
        summary="Answer a conversation",
        description=(
            "OpenAI's chat completions, for any model. With `stream: true` the answer comes as "
            "server-sent events, whose end is `data: [DONE]`."
        ),
        request="ChatCompletionRequest",
        example=CHAT_EXAMPLE,
        answer="ChatCompletion",
        events="ChatCompletionChunk",
        last_event="[DONE]",
        headers=("X-Ignored-Parameters", "Warning"),
        failures=CALL,
    ),
    "POST /messages": Operation(
        id="createMessage",
        tag="Chat",
        summary="Answer a conversation in Anthropic's form",
        description=(
            "Anthropic's Messages, for any model. With `stream: true` the answer comes as "
            "server-sent events."
        ),
        request="MessagesRequest",
        example=MESSAGES_EXAMPLE,
        answer="Message",
        events="MessageEvent",
        headers=("X-Ignored-Parameters", "Warning", "request-id"),
        failures=MESSAGES_CALL,
    ),
    "POST /responses": Operation(
        id="createResponse",
        tag="Chat",
        summary="Answer a conversation in the form of OpenAI's Responses",
        description=(
            "For any model; nothing is stored. With `stream: true` the answer comes as "
            "server-sent events."
        ),
        request="ResponsesRequest",
        example=RESPONSES_EXAMPLE,
        answer="Response",
        events="ResponseEvent",
        headers=("X-Ignored-Parameters", "Warning"),
        failures=CALL,
    ),
    "GET /responses/{response_id}": Operation(
        id="getResponse",
        tag="Chat",
        summary="Find a stored response",
        description="There is none: nothing is stored.",
        media="",
        failures=STORED,
    ),
    "POST /embeddings": Operation(
        id="createEmbeddings",
        tag="Embeddings",
        summary="Turn texts into vectors",
        description="OpenAI's embeddings, for models that make them.",
        request="EmbeddingsRequest",
        example=EMBEDDINGS_EXAMPLE,
        answer="EmbeddingList",
        headers=("X-Ignored-Parameters", "Warning"),
        failures=CALL,
    ),
    "GET /models": Operation(
        id="listModels",
        tag="Models",
        summary="List the models",
        answer="ModelList",
        failures=READ,
    ),
    "GET /models/{model_id}": Operation(
        id="getModel",
        tag="Models",
        summary="Show one model",
        description="Its id may hold slashes, as they are or percent-encoded.",
        answer="Model",
        failures=LOOKUP,
    ),
    "GET /health": Operation(
        id="getHealth",
        tag="Service",
        summary="Is the web process up?",
        answer="Health",
    ),
    "GET /health/ready": Operation(
        id="getReadiness",
        tag="Service",
        summary="Can calls be answered?",
        description="200 where Redis answers and a worker lives, else 503.",
        answer="Readiness",
        more={503: "Readiness"},
    ),
    "GET /openapi.json": Operation(
        id="getOpenApi",
        tag="Service",
        summary="This document",
    ),
    "GET /docs": Operation(
        id="getDocs",
        tag="Service",
        summary="This document, to be read by people",
        media="text/html; charset=utf-8",
    ),
}
