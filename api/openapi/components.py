"""The only place that makes JSON schemas of the shapes of requests and responses.

Imported when the OpenAPI document is first requested, which alone needs response shapes.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

from pydantic import TypeAdapter
from pydantic.json_schema import GenerateJsonSchema

from api.batches import message_response_schema as message_batches
from api.batches import response_schema as batches
from api.batches.schema import NEW_BATCH
from api.chat import response_schema as chat
from api.chat.request import CHAT_REQUEST
from api.embeddings import response_schema as embeddings
from api.embeddings.schema import EMBEDDINGS_REQUEST
from api.files import response_schema as files
from api.files.schema import NEW_FILE
from api.http import response_schema as http
from api.keys import response_schema as keys
from api.keys.schema import KEY_CHANGE, NEW_KEY, NEW_OWNER, OWNER_CHANGE, ROTATION
from api.messages import response_schema as messages
from api.messages.schema import COUNT_TOKENS_REQUEST, MESSAGES_REQUEST
from api.models import response_schema as models
from api.queue import response_schema as queue
from api.queue.schema import PAUSE
from api.responses import response_schema as responses
from api.responses.schema import RESPONSES_REQUEST
from api.schemas import response_schema as shared
from api.usage import response_schema as usage

REF = "#/components/schemas/"

# Name in the document -> what checks it.
REQUESTS: dict[str, TypeAdapter[Any]] = {
    "ChatCompletionRequest": CHAT_REQUEST,
    "EmbeddingsRequest": EMBEDDINGS_REQUEST,
    "CountTokensRequest": COUNT_TOKENS_REQUEST,
    "MessagesRequest": MESSAGES_REQUEST,
    "ResponsesRequest": RESPONSES_REQUEST,
    "NewBatch": NEW_BATCH,
    "NewMessageBatch": message_batches.NEW_MESSAGE_BATCH,
    "NewFile": NEW_FILE,
    "NewKey": NEW_KEY,
    "KeyChange": KEY_CHANGE,
    "RotationRequest": ROTATION,
    "NewOwner": NEW_OWNER,
    "OwnerChange": OWNER_CHANGE,
    "PauseRequest": PAUSE,
}
# Name in the document, which is that of the class where there is one -> the type of a response.
RESPONSES: dict[str, Any] = {
    "Batch": batches.Batch,
    "BatchList": batches.BatchList,
    "Accepted": usage.Accepted,
    "ChatCompletion": chat.ChatCompletion,
    "ChatCompletionChunk": chat.ChatCompletionChunk,
    "CostsPage": usage.CostsPage,
    "EmbeddingList": embeddings.EmbeddingList,
    "EmbeddingsUsagePage": usage.EmbeddingsUsagePage,
    "Error": shared.Error,
    "File": files.File,
    "FileDeleted": files.FileDeleted,
    "FileList": files.FileList,
    "GenerationData": usage.GenerationData,
    "GenerationEvent": (chat.ChatCompletionChunk | messages.MessageEvent | responses.ResponseEvent),
    "GenerationList": usage.GenerationList,
    "Health": http.Health,
    "Message": messages.Message,
    "TokenCount": messages.TokenCount,
    "MessageBatch": message_batches.MessageBatch,
    "MessageBatchDeleted": message_batches.MessageBatchDeleted,
    "MessageBatchList": message_batches.MessageBatchList,
    "MessageEvent": messages.MessageEvent,
    "MessagesError": messages.MessagesError,
    "Model": models.Model,
    "ModelList": models.ModelList,
    "Readiness": http.Readiness,
    "Response": responses.Response,
    "ResponseEvent": responses.ResponseEvent,
    "ResponseDeleted": responses.ResponseDeleted,
    "InputItemList": responses.InputItemList,
    "InputTokens": responses.InputTokens,
    "KeyResponse": keys.KeyResponse,
    "KeyList": keys.KeyList,
    "CreatedKey": keys.CreatedKey,
    "ChangedKey": keys.ChangedKey,
    "RotatedKey": keys.RotatedKey,
    "OwnerResponse": keys.OwnerResponse,
    "OwnerList": keys.OwnerList,
    "Deleted": keys.Deleted,
    "AuditLog": keys.AuditLog,
    "UsagePage": usage.UsagePage,
    "QueuePage": queue.QueuePage,
    "Moved": queue.Moved,
    "Cancelled": queue.Cancelled,
    "PauseResponse": queue.PauseResponse,
    "Resumed": queue.Resumed,
    "WorkerList": queue.WorkerList,
    "Drained": queue.Drained,
}


class PlainSchema(GenerateJsonSchema):
    """JSON schemas without the titles that pydantic makes of field names.

    Client generators use a title as the name of a class.
    """

    def field_title_should_be_set(self, schema: Any) -> bool:
        """Never."""
        return False


def component_schemas(names: Collection[str]) -> dict[str, dict[str, Any]]:
    """The schemas of these REQUESTS and RESPONSES and of all they refer to, by name.

    They follow JSON Schema 2020-12, as OpenAPI 3.1 requires.
    """
    schemas = _schemas({name: TypeAdapter(RESPONSES[name]) for name in names if name in RESPONSES})
    for name in names:
        if name in REQUESTS:
            # One at a time: APIs use one name for different shapes.
            _merge(schemas, _schemas({name: REQUESTS[name]}), owner=name)
    return dict(sorted(schemas.items()))


def _schemas(adapters: dict[str, TypeAdapter[Any]]) -> dict[str, dict[str, Any]]:
    """The schemas of the adapters and of all they refer to, by name."""
    keyed, rest = TypeAdapter.json_schemas(
        [(name, "validation", adapter) for name, adapter in adapters.items()],
        ref_template=f"{REF}{{model}}",
        schema_generator=PlainSchema,
    )
    parts: dict[str, dict[str, Any]] = rest.get("$defs", {})
    for (name, _), schema in keyed.items():
        if "$ref" in schema:  # a class, which is listed under its own name
            schema = parts.pop(schema["$ref"].removeprefix(REF))
        parts[name] = schema
    for part in parts.values():
        part.pop("title", None)
    return parts


def _merge(schemas: dict[str, Any], parts: dict[str, Any], owner: str) -> None:
    """Add the parts. A part whose name is taken by another shape gets the owner's name in front."""
    renamed: dict[str, str] = {}
    while clashing := {
        name: owner + name
        for name, schema in parts.items()
        if name in schemas and name not in renamed and schemas[name] != _renamed(schema, renamed)
    }:
        renamed |= clashing
    for name, schema in parts.items():
        schemas[renamed.get(name, name)] = _renamed(schema, renamed)


def _renamed(schema: Any, names: dict[str, str]) -> Any:
    if isinstance(schema, list):
        return [_renamed(item, names) for item in schema]
    if not isinstance(schema, dict):
        return schema
    copy = {key: _renamed(value, names) for key, value in schema.items()}
    if isinstance(ref := copy.get("$ref"), str):
        name = ref.removeprefix(REF)
        copy["$ref"] = REF + names.get(name, name)
    return copy
