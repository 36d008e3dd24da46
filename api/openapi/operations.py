"""The requests and responses of each route: the table behind the OpenAPI document.

Bodies are named as in `api.openapi.components`; paths have no prefix. A test fails for a route
without a row.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from api.messages import errors as messages_errors
from gateway import errors
from gateway.errors import GatewayError

JSON = "application/json"
FORM = "multipart/form-data"

TAGS = {
    "Chat": "Call a model.",
    "Embeddings": "Turn text into vectors.",
    "Models": "The available models.",
    "Batches": "Many requests in one file, answered within a day.",
    "Files": "Files, the input and output of batches. A key sees its own, an operator key all.",
    "Keys": "API keys, their limits and their owners. All but the first need an operator key.",
    "Account": "What calls used and cost. A key sees its own calls, an operator key all.",
    "Queue": "What waits and who works, and how to steer it. All need an operator key.",
    "Service": "Health and documentation.",
}

NEVER_SENT = (
    errors.CallCancelled,  # the client has gone
    errors.NotFound,  # belongs to no operation: there is no such address
    errors.MethodNotAllowed,  # belongs to no operation either
    errors.Unavailable,  # only a base class
)
# Statuses of a provider's refusal that are passed on (see providers/errors.py).
KEPT = (400, 409, 413, 415, 422)
# What a response has where its model is about to end.
ENDING = ("Warning", "Deprecation", "Sunset")
# What the response to a call has, be it an error or not.
CALLED = (
    *ENDING,
    "X-Generation-Id",
    *(
        f"x-ratelimit-{fact}-{name}"
        for name in ("requests", "tokens")
        for fact in ("limit", "remaining", "reset")
    ),
    "X-Cache",
    "X-Max-Tokens-Capped",
    "Idempotent-Replayed",
)
MESSAGES_CALLED = (
    *CALLED,
    "request-id",
    *(
        f"anthropic-ratelimit-{name}-{fact}"
        for name in ("requests", "tokens")
        for fact in ("limit", "remaining", "reset")
    ),
)


def _status(error: GatewayError) -> int:
    return error.status


@dataclass(frozen=True, slots=True)
class Failures:
    """The errors that an operation may return: one of each kind, and the shape of all bodies.

    `status` returns an error's HTTP status. `headers` are those that such responses have in
    addition to the headers of all errors.
    """

    name: str
    errors: tuple[GatewayError, ...]
    shape: str = "Error"
    status: Callable[[GatewayError], int] = _status
    headers: tuple[str, ...] = ()

    def by_status(self) -> dict[int, list[GatewayError]]:
        """The errors of each status, lowest status first."""
        by_status: dict[int, list[GatewayError]] = {}
        for error in sorted(self.errors, key=self.status):
            by_status.setdefault(self.status(error), []).append(error)
        return by_status


PUBLIC = Failures("Public", (GatewayError(),))
READ = Failures("Read", (errors.AuthenticationFailed(), errors.QueueUnavailable(), *PUBLIC.errors))
LOOKUP = Failures("Lookup", (*READ.errors, errors.ModelNotFound()))
NO_KEY = errors.NotFound("There is no such API key.", code="key_not_found")
NO_OWNER = errors.NotFound("There is no such owner.", code="owner_not_found")
OWN_KEY = Failures("OwnKey", (*READ.errors, NO_KEY))
LIST = Failures("List", (*READ.errors, errors.PermissionDenied(), errors.InvalidRequest()))
GET = Failures("Get", (*READ.errors, errors.PermissionDenied(), NO_KEY, NO_OWNER))
WRITE = Failures(
    "Write",
    (
        *GET.errors,
        errors.InvalidRequest(),
        errors.BodyTimeout(),
        errors.PayloadTooLarge(),
        errors.UnsupportedMedia(),
        errors.Overloaded(),
        *(
            errors.InvalidRequest(status=409, code=code)
            for code in ("idempotency_conflict", "owner_exists", "owner_in_use")
        ),
    ),
)
NO_CALL = errors.NotFound("No call with this id waits or runs.", code="call_not_found")
STEER = Failures(
    "Steer",
    (
        *READ.errors,
        errors.PermissionDenied(),
        NO_CALL,
        errors.NotFound(code="worker_not_found"),
        errors.InvalidRequest(status=409, code="call_not_in_line"),
    ),
)
PAUSE = Failures(
    "Pause", (*WRITE.errors, errors.ModelNotFound(), errors.NotFound(code="provider_not_found"))
)
NO_FILES = (
    errors.Unavailable("FILES_URL is not set.", code="files_not_configured", should_retry=False),
    errors.Unavailable("The storage does not answer.", code="files_unavailable"),
)
NO_FILE = errors.NotFound("There is no such file.", code="file_not_found")
FILE_LIST = Failures("FileList", (*READ.errors, *NO_FILES, errors.InvalidRequest()))
FILE = Failures("File", (*READ.errors, *NO_FILES, NO_FILE))
NO_BATCH = errors.NotFound("There is no such batch.", code="batch_not_found")
BATCH_LIST = Failures("BatchList", FILE_LIST.errors)
BATCH = Failures("Batch", (*READ.errors, *NO_FILES, NO_BATCH))
CANCEL_BATCH = Failures(
    "CancelBatch",
    (*BATCH.errors, errors.InvalidRequest(status=409, code="batch_not_cancellable")),
)
MESSAGE_BATCHES = {
    name: Failures(
        f"Message{name}", failures, "MessagesError", messages_errors.status, headers=("request-id",)
    )
    for name, failures in {
        "BatchList": BATCH_LIST.errors,
        "Batch": BATCH.errors,
        "BatchState": (*BATCH.errors, errors.InvalidRequest()),
    }.items()
}
UPLOAD = Failures(
    "Upload",
    (
        *READ.errors,
        *NO_FILES,
        errors.PermissionDenied(),
        errors.InvalidRequest(),
        errors.BodyTimeout(),
        errors.PayloadTooLarge(),
        errors.UnsupportedMedia(),
        errors.Overloaded(),
    ),
)
MESSAGE_UPLOAD = Failures(
    "MessageUpload",
    (*UPLOAD.errors, errors.RateLimited()),
    "MessagesError",
    messages_errors.status,
    headers=("request-id",),
)
UNKNOWN = errors.NotFound("The response is not known.", code="response_not_found")
STORED = Failures("Stored", (*READ.errors, errors.InvalidRequest(), UNKNOWN, errors.Overloaded()))
NO_GENERATION = errors.NotFound(code="generation_not_found")
AWAY = errors.Unavailable("The account is behind or away.", code="account_unavailable")
QUERY = Failures("Query", (*LIST.errors, AWAY))
GENERATION = Failures(
    "Generation",
    (
        *(*READ.errors, errors.InvalidRequest(), errors.PermissionDenied()),
        *(NO_GENERATION, AWAY, errors.Overloaded()),
    ),
)
CALL = Failures(
    "Call",
    (
        *(kind() for kind in errors.kinds() if kind not in (*NEVER_SENT, errors.UpstreamRejected)),
        *(errors.UpstreamRejected(status=status) for status in KEPT),
        errors.InvalidRequest(status=422, code="idempotency_key_mismatch"),
    ),
    headers=CALLED,
)
GENERATION_STREAM = Failures("GenerationStream", (*CALL.errors, NO_GENERATION), headers=CALLED)
MESSAGES_CALL = Failures(
    "Messages",
    CALL.errors,
    "MessagesError",
    messages_errors.status,
    headers=MESSAGES_CALLED,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Operation:
    """What one route does, its request and its responses.

    `query` names its query parameters (see api/openapi/query.py), and `request_headers` headers of
    its own (see api/openapi/document.py). `example` is a body as a person writes it in JSON, or the
    options of curl for a form; a request with `optional_body` may have none. `answer` is the shape
    of the response that has the status `success`, and `media` its media type; a route without one
    returns errors only. `text` is a media type in which the response comes as text where the query
    says so. `events` is the shape of the data of a stream's events, and `last_event` data of
    another shape. `more` maps statuses other than `success` whose body is no error to their shapes.
    """

    id: str
    tag: str
    summary: str
    description: str = ""
    query: tuple[str, ...] = ()
    request: str = ""
    request_media: str = JSON
    optional_body: bool = False
    request_headers: tuple[str, ...] = ()
    example: str = ""
    success: int = 200
    answer: str = ""
    media: str = JSON
    text: str = ""
    events: str = ""
    last_event: str = ""
    more: Mapping[int, str] = field(default_factory=dict)
    headers: tuple[str, ...] = ()
    failures: Failures = PUBLIC
    counts: bool = False  # tokens; it may answer with an estimate, without a call

    @property
    def is_call(self) -> bool:
        """Whether its request becomes a call of a model."""
        return bool(self.request) and self.failures in (CALL, MESSAGES_CALL)


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
COUNT_EXAMPLE = """{
    "model": "anthropic/claude-sonnet-5-5",
    "messages": [{"role": "user", "content": "What is the capital of France?"}]
  }"""
KEY_EXAMPLE = """{
    "name": "Zoe",
    "owner": "team-a",
    "limit": 25,
    "limit_reset": "monthly",
    "requests_per_minute": 60
  }"""
RESPONSES_EXAMPLE = """{"model": "openai/gpt-4o-mini", "input": "What is the capital of France?"}"""

ASYNC_HEADERS = ("Prefer", "X-Resumable", "Idempotency-Key")
UPLOAD_EXAMPLE = """-F purpose=batch -F file=@batch.jsonl"""

BATCH_EXAMPLE = """{
    "input_file_id": "file-0123456789abcdef0123456789abcdef",
    "endpoint": "/v1/chat/completions",
    "completion_window": "24h"
  }"""

MESSAGE_BATCH_EXAMPLE = """{
    "requests": [
      {
        "custom_id": "1",
        "params": {
          "model": "anthropic/claude-sonnet-5-5",
          "max_tokens": 1024,
          "messages": [{"role": "user", "content": "What is the capital of France?"}]
        }
      }
    ]
  }"""

IGNORED = ("include", "include_obfuscation")
PAGE = ("after", "page.limit")
PERIOD = ("start_time", "end_time", "page")
KEYS = ("api_key_ids", "project_ids")
USAGE_QUERY = (*PERIOD, "bucket_width", "limit", "group_by", "models", *KEYS)

# In the order of the document.
OPERATIONS: dict[str, Operation] = {
    "POST /chat/completions": Operation(
        id="createChatCompletion",
        tag="Chat",
        summary="Create a chat completion",
        description=(
            "OpenAI's chat completions, for any model. With `stream: true` the response is a "
            "stream of server-sent events that ends with `data: [DONE]`."
        ),
        request="ChatCompletionRequest",
        example=CHAT_EXAMPLE,
        request_headers=ASYNC_HEADERS,
        more={202: "Accepted"},
        answer="ChatCompletion",
        events="ChatCompletionChunk",
        last_event="[DONE]",
        headers=("X-Ignored-Parameters", *CALLED),
        failures=CALL,
    ),
    "POST /messages": Operation(
        id="createMessage",
        tag="Chat",
        summary="Create a message (Anthropic's API)",
        description=(
            "Anthropic's Messages, for any model. With `stream: true` the response is a "
            "stream of server-sent events."
        ),
        request="MessagesRequest",
        example=MESSAGES_EXAMPLE,
        request_headers=ASYNC_HEADERS,
        more={202: "Accepted"},
        answer="Message",
        events="MessageEvent",
        headers=("X-Ignored-Parameters", *MESSAGES_CALLED),
        failures=MESSAGES_CALL,
    ),
    "POST /messages/count_tokens": Operation(
        id="countTokens",
        tag="Chat",
        summary="Count the tokens of a prompt (Anthropic's API)",
        description=(
            "Anthropic counts for its models. For others the count is an estimate, and the header "
            "`X-Token-Count` is `estimate`."
        ),
        request="CountTokensRequest",
        example=COUNT_EXAMPLE,
        answer="TokenCount",
        counts=True,
        headers=("X-Ignored-Parameters", "X-Token-Count", *MESSAGES_CALLED),
        failures=MESSAGES_CALL,
    ),
    "POST /responses": Operation(
        id="createResponse",
        tag="Chat",
        summary="Create a response (OpenAI's Responses API)",
        description=(
            "For any model. With `stream: true` the response is a stream of server-sent events. "
            "With `store: true` it is kept, and later requests can name it in "
            "`previous_response_id`. With `background: true` the response is `queued` at once."
        ),
        request="ResponsesRequest",
        example=RESPONSES_EXAMPLE,
        request_headers=ASYNC_HEADERS,
        more={202: "Accepted"},
        answer="Response",
        events="ResponseEvent",
        headers=("X-Ignored-Parameters", *CALLED),
        failures=CALL,
    ),
    "POST /responses/input_tokens": Operation(
        id="countResponseInputTokens",
        tag="Chat",
        summary="Count the input tokens of a response",
        description=(
            "Anthropic counts for its models. For others the count is an estimate, and the header "
            "`X-Token-Count` is `estimate`."
        ),
        request="ResponsesRequest",
        example=RESPONSES_EXAMPLE,
        answer="InputTokens",
        counts=True,
        headers=("X-Token-Count", *CALLED),
        failures=CALL,
    ),
    "GET /responses/{response_id}": Operation(
        id="getResponse",
        tag="Chat",
        summary="Get a response that is kept",
        description=(
            "Responses with `store` or `background` are kept for some hours. `stream=true` returns "
            "the events of one that was created with `background` and `stream`."
        ),
        query=("responses.stream", "responses.starting_after", *IGNORED),
        answer="Response",
        events="ResponseEvent",
        failures=STORED,
    ),
    "DELETE /responses/{response_id}": Operation(
        id="deleteResponse",
        tag="Chat",
        summary="Delete a response that is kept",
        description="One that still runs is cancelled.",
        answer="ResponseDeleted",
        failures=STORED,
    ),
    "POST /responses/{response_id}/cancel": Operation(
        id="cancelResponse",
        tag="Chat",
        summary="Cancel a background response",
        description="Stops it at its provider. One that has ended stays as it is.",
        answer="Response",
        failures=STORED,
    ),
    "GET /responses/{response_id}/input_items": Operation(
        id="listInputItems",
        tag="Chat",
        summary="List the input items of a response",
        description="Those of the responses before it come first.",
        query=("after", "items.limit", "items.order", "include"),
        answer="InputItemList",
        failures=STORED,
    ),
    "POST /embeddings": Operation(
        id="createEmbeddings",
        tag="Embeddings",
        summary="Create embeddings",
        description="OpenAI's embeddings, for embedding models.",
        request="EmbeddingsRequest",
        example=EMBEDDINGS_EXAMPLE,
        request_headers=("Prefer", "Idempotency-Key"),
        more={202: "Accepted"},
        answer="EmbeddingList",
        headers=("X-Ignored-Parameters", *CALLED),
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
        summary="Get a model",
        description="The id may contain slashes, plain or percent-encoded.",
        answer="Model",
        failures=LOOKUP,
    ),
    "POST /files": Operation(
        id="createFile",
        tag="Files",
        summary="Upload a file",
        description="The input of a batch: JSON lines, 200 MiB at most. It expires after 30 days.",
        request="NewFile",
        request_media=FORM,
        example=UPLOAD_EXAMPLE,
        answer="File",
        failures=UPLOAD,
    ),
    "GET /files": Operation(
        id="listFiles",
        tag="Files",
        summary="List the files",
        query=("after", "files.limit", "order", "purpose"),
        answer="FileList",
        failures=FILE_LIST,
    ),
    "GET /files/{file_id}": Operation(
        id="getFile",
        tag="Files",
        summary="Get a file",
        description="What is known of it.",
        answer="File",
        failures=FILE,
    ),
    "DELETE /files/{file_id}": Operation(
        id="deleteFile",
        tag="Files",
        summary="Delete a file",
        description="A batch that reads it goes on.",
        answer="FileDeleted",
        failures=FILE,
    ),
    "GET /files/{file_id}/content": Operation(
        id="getFileContent",
        tag="Files",
        summary="Get the content of a file",
        media="application/octet-stream",
        headers=("Content-Disposition",),
        failures=FILE,
    ),
    "POST /batches": Operation(
        id="createBatch",
        tag="Batches",
        summary="Create a batch",
        description=(
            "Each line of the input file is a request to one endpoint, for any model. The lines "
            "are checked first: a batch with a wrong line becomes `failed`. A batch expires after "
            "24 hours, with the results so far."
        ),
        request="NewBatch",
        example=BATCH_EXAMPLE,
        answer="Batch",
        failures=UPLOAD,
    ),
    "GET /batches": Operation(
        id="listBatches",
        tag="Batches",
        summary="List the batches",
        description="The latest first.",
        query=("after", "batches.limit"),
        answer="BatchList",
        failures=BATCH_LIST,
    ),
    "GET /batches/{batch_id}": Operation(
        id="getBatch",
        tag="Batches",
        summary="Get a batch",
        answer="Batch",
        failures=BATCH,
    ),
    "POST /batches/{batch_id}/cancel": Operation(
        id="cancelBatch",
        tag="Batches",
        summary="Cancel a batch",
        description="Requests that run get ten minutes to end. The results so far are kept.",
        answer="Batch",
        failures=CANCEL_BATCH,
    ),
    "POST /messages/batches": Operation(
        id="createMessageBatch",
        tag="Batches",
        summary="Create a batch of messages (Anthropic's API)",
        description=(
            "Up to 100,000 requests for messages, for any model, of 256 MiB together. The batch "
            "expires after 24 hours, with the results so far."
        ),
        request="NewMessageBatch",
        example=MESSAGE_BATCH_EXAMPLE,
        answer="MessageBatch",
        headers=("request-id",),
        failures=MESSAGE_UPLOAD,
    ),
    "GET /messages/batches": Operation(
        id="listMessageBatches",
        tag="Batches",
        summary="List the batches of messages",
        description="The latest first.",
        query=("message_batches.limit", "before_id", "after_id"),
        answer="MessageBatchList",
        headers=("request-id",),
        failures=MESSAGE_BATCHES["BatchList"],
    ),
    "GET /messages/batches/{batch_id}": Operation(
        id="getMessageBatch",
        tag="Batches",
        summary="Get a batch of messages",
        answer="MessageBatch",
        headers=("request-id",),
        failures=MESSAGE_BATCHES["Batch"],
    ),
    "POST /messages/batches/{batch_id}/cancel": Operation(
        id="cancelMessageBatch",
        tag="Batches",
        summary="Cancel a batch of messages",
        description="Requests that run get ten minutes to end. A batch that has ended stays so.",
        answer="MessageBatch",
        headers=("request-id",),
        failures=MESSAGE_BATCHES["Batch"],
    ),
    "DELETE /messages/batches/{batch_id}": Operation(
        id="deleteMessageBatch",
        tag="Batches",
        summary="Delete a batch of messages that has ended",
        answer="MessageBatchDeleted",
        headers=("request-id",),
        failures=MESSAGE_BATCHES["BatchState"],
    ),
    "GET /messages/batches/{batch_id}/results": Operation(
        id="getMessageBatchResults",
        tag="Batches",
        summary="Get the results of a batch of messages that has ended",
        description="A line of JSON for each request, in no order.",
        media="application/x-jsonl",
        headers=("request-id",),
        failures=MESSAGE_BATCHES["BatchState"],
    ),
    "GET /key": Operation(
        id="getOwnKey",
        tag="Keys",
        summary="Get the key of the request",
        description="Its limits, what it has used, and what is left.",
        answer="KeyResponse",
        failures=OWN_KEY,
    ),
    "GET /keys": Operation(
        id="listKeys",
        tag="Keys",
        summary="List the keys",
        description="The oldest first. Deleted ones are left out.",
        query=(*PAGE, "keys.owner", "include_disabled"),
        answer="KeyList",
        failures=LIST,
    ),
    "POST /keys": Operation(
        id="createKey",
        tag="Keys",
        summary="Create a key",
        description="Only this response has the whole key.",
        request="NewKey",
        example=KEY_EXAMPLE,
        success=201,
        answer="CreatedKey",
        failures=WRITE,
    ),
    "GET /keys/{key_id}": Operation(
        id="getKey",
        tag="Keys",
        summary="Get a key",
        answer="KeyResponse",
        failures=GET,
    ),
    "PATCH /keys/{key_id}": Operation(
        id="changeKey",
        tag="Keys",
        summary="Change a key",
        description="Fields that are absent stay as they are; null takes a value away.",
        request="KeyChange",
        example="""{"limit": 50, "requests_per_minute": null}""",
        answer="ChangedKey",
        failures=WRITE,
    ),
    "DELETE /keys/{key_id}": Operation(
        id="deleteKey",
        tag="Keys",
        summary="Delete a key",
        description="It is refused at once, and its running calls end within 5 s.",
        answer="Deleted",
        failures=GET,
    ),
    "POST /keys/{key_id}/rotate": Operation(
        id="rotateKey",
        tag="Keys",
        summary="Give a key a new secret",
        description=(
            "The present secret stays valid for `grace_seconds`, by default a day. Repeated with "
            "the same `Idempotency-Key` within ten minutes, it returns the same secret."
        ),
        request="RotationRequest",
        optional_body=True,
        request_headers=("Idempotency-Key",),
        example="""{"grace_seconds": 3600}""",
        success=201,
        answer="RotatedKey",
        headers=("Idempotent-Replayed",),
        failures=WRITE,
    ),
    "GET /owners": Operation(
        id="listOwners",
        tag="Keys",
        summary="List the owners of keys",
        query=PAGE,
        answer="OwnerList",
        failures=LIST,
    ),
    "POST /owners": Operation(
        id="createOwner",
        tag="Keys",
        summary="Create an owner",
        description="A team or customer, whose limits hold for all its keys together.",
        request="NewOwner",
        example="""{"id": "team-a", "limit": 500, "limit_reset": "monthly"}""",
        success=201,
        answer="OwnerResponse",
        failures=WRITE,
    ),
    "GET /owners/{owner_id}": Operation(
        id="getOwner",
        tag="Keys",
        summary="Get an owner",
        answer="OwnerResponse",
        failures=GET,
    ),
    "PATCH /owners/{owner_id}": Operation(
        id="changeOwner",
        tag="Keys",
        summary="Change an owner",
        description="Fields that are absent stay as they are; null takes a value away.",
        request="OwnerChange",
        example="""{"limit": 750}""",
        answer="OwnerResponse",
        failures=WRITE,
    ),
    "DELETE /owners/{owner_id}": Operation(
        id="deleteOwner",
        tag="Keys",
        summary="Delete an owner",
        description="409 if it has keys.",
        answer="Deleted",
        failures=WRITE,
    ),
    "GET /audit": Operation(
        id="listAuditLog",
        tag="Keys",
        summary="List the changes of keys and owners",
        description="The latest first: who changed what, when, and from where.",
        query=PAGE,
        answer="AuditLog",
        failures=QUERY,
    ),
    "GET /generations/{generation_id}": Operation(
        id="getGeneration",
        tag="Account",
        summary="Get a call",
        description=(
            "What a call was, used and cost, with OpenRouter's names. The id is that of the header "
            "`X-Generation-Id`, or of the response's body. A call that runs is `queued` or "
            "`running`, and one whose record is on its way `settling`. The response of an "
            "asynchronous call is in `response` once it has ended."
        ),
        query=("wait",),
        answer="GenerationData",
        failures=GENERATION,
    ),
    "GET /generations/{generation_id}/stream": Operation(
        id="streamGeneration",
        tag="Account",
        summary="Read the stream of a call again",
        description=(
            "The events of a stream that was sent with `X-Resumable: true`, or that is "
            "asynchronous: those after the event of `Last-Event-ID`, or all. What the call still "
            "sends follows."
        ),
        query=("starting_after",),
        request_headers=("Last-Event-ID",),
        media="text/event-stream",
        events="GenerationEvent",
        last_event="[DONE]",
        failures=GENERATION_STREAM,
    ),
    "POST /generations/{generation_id}/cancel": Operation(
        id="cancelGeneration",
        tag="Account",
        summary="Cancel a call",
        description="Stops a call at its provider. One that has ended stays as it is.",
        answer="GenerationData",
        failures=GENERATION,
    ),
    "GET /generation": Operation(
        id="getGenerationById",
        tag="Account",
        summary="Get a call (OpenRouter's address)",
        query=("id",),
        answer="GenerationData",
        failures=GENERATION,
    ),
    "GET /generations": Operation(
        id="listGenerations",
        tag="Account",
        summary="List calls that have ended, newest first",
        query=(
            *("start_time", "end_time", "model", "status", "api_key_id", "owner"),
            *("generations.limit", "after"),
        ),
        answer="GenerationList",
        failures=QUERY,
    ),
    "GET /usage": Operation(
        id="getUsage",
        tag="Account",
        summary="Get the usage over time",
        description=(
            "OpenAI's pages of buckets, with `cost` in USD. `format=csv` returns a row for each "
            "result."
        ),
        query=(*USAGE_QUERY, "format"),
        answer="UsagePage",
        text="text/csv",
        headers=("Content-Disposition",),
        failures=QUERY,
    ),
    "GET /organization/usage/completions": Operation(
        id="getCompletionsUsage",
        tag="Account",
        summary="Get the usage of chat models (OpenAI's API)",
        query=USAGE_QUERY,
        answer="UsagePage",
        failures=QUERY,
    ),
    "GET /organization/usage/embeddings": Operation(
        id="getEmbeddingsUsage",
        tag="Account",
        summary="Get the usage of embedding models (OpenAI's API)",
        query=USAGE_QUERY,
        answer="EmbeddingsUsagePage",
        failures=QUERY,
    ),
    "GET /organization/costs": Operation(
        id="getCosts",
        tag="Account",
        summary="Get the costs of each day (OpenAI's API)",
        query=(*PERIOD, "costs.bucket_width", "costs.limit", "costs.group_by", "line_items", *KEYS),
        answer="CostsPage",
        failures=QUERY,
    ),
    "GET /queue": Operation(
        id="listWaitingCalls",
        tag="Queue",
        summary="List the calls that wait, and why",
        description=(
            "Those in line in their order, then the others by their deadlines. Requests are not "
            "shown."
        ),
        query=("reason", "api_key_id", "queue.model", "page.limit", "queue.after"),
        answer="QueuePage",
        failures=LIST,
    ),
    "POST /queue/{call_id}/move": Operation(
        id="moveCall",
        tag="Queue",
        summary="Move a waiting call to the front",
        answer="Moved",
        failures=STEER,
    ),
    "POST /queue/{call_id}/cancel": Operation(
        id="cancelCall",
        tag="Queue",
        summary="Cancel a call that waits or runs",
        answer="Cancelled",
        failures=STEER,
    ),
    "POST /queue/pause": Operation(
        id="pause",
        tag="Queue",
        summary="Pause a key, a model or a provider",
        description="Its calls wait, up to their deadlines; new ones wait too, others pass them.",
        request="PauseRequest",
        example="""{"model": "openai/gpt-4o-mini"}""",
        answer="PauseResponse",
        failures=PAUSE,
    ),
    "POST /queue/resume": Operation(
        id="resume",
        tag="Queue",
        summary="End a pause",
        request="PauseRequest",
        example="""{"model": "openai/gpt-4o-mini"}""",
        answer="Resumed",
        failures=PAUSE,
    ),
    "GET /workers": Operation(
        id="listWorkers",
        tag="Queue",
        summary="List the workers that live",
        answer="WorkerList",
        failures=LIST,
    ),
    "POST /workers/{name}/drain": Operation(
        id="drainWorker",
        tag="Queue",
        summary="Let a worker take no more calls",
        description="The calls that it runs go on. It may be stopped once it is `drained`.",
        answer="Drained",
        failures=STEER,
    ),
    "DELETE /workers/{name}/drain": Operation(
        id="undrainWorker",
        tag="Queue",
        summary="Let a drained worker take calls again",
        answer="Drained",
        failures=STEER,
    ),
    "GET /health": Operation(
        id="getHealth",
        tag="Service",
        summary="Check that the web process can serve",
        description="503 if it must be restarted.",
        answer="Health",
        more={503: "Health"},
    ),
    "GET /health/ready": Operation(
        id="getReadiness",
        tag="Service",
        summary="Check that calls can be answered",
        description="200 if Redis answers and a worker is running, 503 otherwise.",
        answer="Readiness",
        more={503: "Readiness"},
    ),
    "GET /openapi.json": Operation(
        id="getOpenApi",
        tag="Service",
        summary="Get this document",
    ),
    "GET /docs": Operation(
        id="getDocs",
        tag="Service",
        summary="Read this document as a page",
        media="text/html; charset=utf-8",
    ),
}
