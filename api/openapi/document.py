"""GET /openapi.json: the service's API as an OpenAPI 3.1 document.

Generated at the first request, from the app's routes, api/openapi/operations.py, the schemas that
requests are checked with, and the classes of errors.
"""

from __future__ import annotations

import re
from typing import Any

import orjson
from flask import Blueprint, Flask, Response, current_app

from api.http.auth import public
from api.openapi.operations import FORM, JSON, OPERATIONS, TAGS, Failures, Operation
from api.openapi.query import QUERY_PARAMETERS
from api.services import services
from gateway import VERSION
from gateway.errors import GatewayError

openapi = Blueprint("openapi", __name__)

PATH = "/openapi.json"
EVENTS = "text/event-stream"

# A fact about a limit per minute, what it says, and its form. The tighter of key and owner.
RATE_LIMITS: tuple[tuple[str, str, dict[str, Any]], ...] = (
    ("limit", "The limit of", {"type": "integer"}),
    ("remaining", "What is left of", {"type": "integer"}),
    ("reset", "After which time (`6m0s`, `12ms`) nothing is used up of", {"type": "string"}),
)

RESPONSE_HEADERS: dict[str, dict[str, Any]] = {
    "X-Request-Id": {
        "description": "Identifies this request in the service's logs: the caller's own id if it "
        "sent one of at most 64 plain characters.",
        "required": True,
        "schema": {"type": "string", "pattern": "^[A-Za-z0-9_-]{1,64}$"},
    },
    "X-Generation-Id": {
        "description": "The id of the call, sent before its first byte.",
        "schema": {"type": "string"},
    },
    **{
        f"x-ratelimit-{fact}-{name}": {
            "description": f"{text} {name} per minute.",
            "schema": schema,
        }
        for name in ("requests", "tokens")
        for fact, text, schema in RATE_LIMITS
    },
    **{
        f"anthropic-ratelimit-{name}-{fact}": {
            "description": f"The {fact} of {name} per minute, under Anthropic's name.",
            "schema": {"type": "string"},
        }
        for name in ("requests", "tokens")
        for fact in ("limit", "remaining", "reset")
    },
    "X-Cache": {
        "description": "Whether a kept response answers the call.",
        "schema": {"type": "string", "enum": ["hit", "miss"]},
    },
    "X-Max-Tokens-Capped": {
        "description": "The tokens of output that the rest of a budget allowed the call.",
        "schema": {"type": "integer", "minimum": 1},
    },
    "X-Ignored-Parameters": {
        "description": "Fields of the request that are unknown or that the model does not support.",
        "schema": {"type": "string"},
    },
    "X-Token-Count": {
        "description": "`estimate`: no provider has counted the tokens.",
        "schema": {"type": "string", "enum": ["estimate"]},
    },
    "Warning": {
        "description": "When the model will be shut down, or which model answered instead.",
        "schema": {"type": "string"},
    },
    "Deprecation": {
        "description": "Since when callers are warned of the model's shutdown (RFC 9745).",
        "schema": {"type": "string", "pattern": "^@[0-9]+$"},
    },
    "Sunset": {
        "description": "When the model's provider shuts it down (RFC 8594).",
        "schema": {"type": "string"},
    },
    "request-id": {
        "description": "The value of `X-Request-Id`, under Anthropic's name.",
        "schema": {"type": "string"},
    },
    "Retry-After": {
        "description": "Seconds to wait before another attempt.",
        "schema": {"type": "integer", "minimum": 1, "maximum": 120},
    },
    "retry-after-ms": {
        "description": "Milliseconds to wait before another attempt, where a limit refused it.",
        "schema": {"type": "integer", "minimum": 1},
    },
    "x-limit-name": {
        "description": "The limit that refused the call.",
        "schema": {"type": "string"},
    },
    "x-limit-scope": {
        "description": "Whether it is a limit of the key or of its owner.",
        "schema": {"type": "string", "enum": ["key", "owner"]},
    },
    "x-limit-reset": {
        "description": "When the limit resets (RFC 3339, UTC), if that is known.",
        "schema": {"type": "string", "format": "date-time"},
    },
    "x-should-retry": {
        "description": "`false`: do not repeat the call, the provider may have processed it. "
        "`true`: the call is safe to repeat.",
        "schema": {"type": "string", "enum": ["true", "false"]},
    },
    "Content-Disposition": {
        "description": "The name of the file.",
        "schema": {"type": "string"},
    },
    "WWW-Authenticate": {"schema": {"type": "string"}},
    "Idempotent-Replayed": {
        "description": "`true`: this was done before, under the same `Idempotency-Key`.",
        "schema": {"type": "string", "enum": ["true"]},
    },
}

LIMIT_HEADERS = ("retry-after-ms", "x-limit-name", "x-limit-scope", "x-limit-reset")

# What all calls have.
CALL_HEADERS = (
    *("X-Request-Timeout", "X-Not-Before", "X-Deadline"),
    *("X-Cache", "X-Queue", "X-Retry-On-Worker-Loss"),
)

REQUEST_HEADERS: dict[str, dict[str, Any]] = {
    "Idempotency-Key": {
        "description": "Any name for this request, to send it again if its response was lost.",
        "schema": {"type": "string", "pattern": "^[!-~]{1,255}$"},
    },
    "Prefer": {
        "description": "`respond-async`: the response is 202 at once, or after as many seconds as "
        "`respond-async, wait=20` says, and the call goes on.",
        "schema": {"type": "string"},
    },
    "X-Resumable": {
        "description": "Whether the events of a stream have ids, with which the stream can be read "
        "again, and the call goes on if the client leaves.",
        "schema": {"type": "string", "enum": ["true", "false"]},
    },
    "X-Retry-On-Worker-Loss": {
        "description": "Whether the call runs once more if its worker is lost before anything of "
        "its response has arrived. The default is the key's.",
        "schema": {"type": "string", "enum": ["true", "false"]},
    },
    "Last-Event-ID": {
        "description": "The id of the last event that the client has.",
        "schema": {"type": "string"},
    },
    "X-Request-Id": {
        "description": "An id for this request: at most 64 letters, digits, `_` and `-`. "
        "Any other value is replaced.",
        "schema": {"type": "string"},
    },
    "X-Cache": {
        "description": "Whether the response is kept for identical requests, and for how many "
        "seconds: `on`, `on; ttl=60` or `off`. The default is the key's.",
        "schema": {"type": "string"},
    },
    "X-Queue": {
        "description": "Whether a call over the key's calls in flight waits for its turn (the "
        "default) or is refused at once.",
        "schema": {"type": "string", "enum": ["wait", "refuse"]},
    },
    "X-Request-Timeout": {
        "description": "Seconds after which the call is cancelled, if the service's own "
        "deadline is not earlier. Values other than positive numbers are ignored.",
        "schema": {"type": "string"},
    },
    "X-Not-Before": {
        "description": "When the call may start: seconds from now, or a time (RFC 3339, or an "
        "HTTP date).",
        "schema": {"type": "string"},
    },
    "X-Deadline": {
        "description": "When the call must have ended, in the same forms: past it, the call is "
        "504, and is not sent if it still waits.",
        "schema": {"type": "string"},
    },
}

SECURITY: dict[str, dict[str, Any]] = {
    "bearer": {
        "type": "http",
        "scheme": "bearer",
        "description": "An API key of this service: `Authorization: Bearer mk_inference_...`",
    },
    "x-api-key": {
        "type": "apiKey",
        "in": "header",
        "name": "x-api-key",
        "description": "An API key as Anthropic's clients send it: `x-api-key: mk_inference_...`",
    },
}


@openapi.get(PATH)
@public
def show() -> Response:
    """The document as JSON."""
    return Response(rendered(), content_type=JSON)


def rendered() -> bytes:
    """The current app's document as JSON, generated once."""
    pages = services().pages
    if openapi.name not in pages:
        pages[openapi.name] = orjson.dumps(document(current_app))
    page: bytes = pages[openapi.name]
    return page


def document(app: Flask) -> dict[str, Any]:
    """The OpenAPI document of this app's routes; takes some 100 ms."""
    prefix, routes = _routes(app)
    paths: dict[str, dict[str, Any]] = {}
    for name, access in routes.items():
        method, path = name.split()
        sample = curl(method, prefix + path, access != "public", OPERATIONS[name])
        paths.setdefault(path, {})[method.lower()] = _operation(name, access, sample)
    used = [OPERATIONS[name] for name in routes]
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "Inference service",
            "version": VERSION,
            "description": "A gateway to large language models, with OpenAI's API in front.",
        },
        "servers": [{"url": prefix}],
        "tags": [
            {"name": name, "description": text}
            for name, text in TAGS.items()
            if any(operation.tag == name for operation in used)
        ],
        "paths": paths,
        "components": _components(used),
    }


def _components(operations: list[Operation]) -> dict[str, Any]:
    # Only this document needs the shapes of responses: they are not imported before.
    from api.openapi.components import component_schemas

    return {
        "schemas": component_schemas(_shapes(operations)),
        "responses": _error_responses(operations),
        "headers": RESPONSE_HEADERS,
        "parameters": {
            name: {"name": name, "in": "header", **parameter}
            for name, parameter in REQUEST_HEADERS.items()
        }
        | {
            name: {"name": name.rpartition(".")[2], "in": "query", **QUERY_PARAMETERS[name]}
            for each in operations
            for name in each.query
        },
        "securitySchemes": SECURITY,
    }


def _routes(app: Flask) -> tuple[str, dict[str, str]]:
    """The prefix of all paths, and the access to each route, in the order of OPERATIONS."""
    rules = list(app.url_map.iter_rules())
    (own,) = (rule.rule for rule in rules if rule.endpoint == f"{openapi.name}.{show.__name__}")
    prefix = own.removesuffix(PATH)
    accesses = {}
    for rule in rules:
        path = re.sub(r"<(?:\w+:)?(\w+)>", r"{\1}", rule.rule.removeprefix(prefix))
        for method in rule.methods or ():
            accesses[f"{method} {path}"] = getattr(
                app.view_functions[rule.endpoint], "access", "key"
            )
    return prefix, {name: accesses[name] for name in OPERATIONS if name in accesses}


def _shapes(operations: list[Operation]) -> list[str]:
    """The names of all shapes that these operations use, without duplicates."""
    names = []
    for each in operations:
        names += [each.request, each.answer, each.events, *each.more.values(), each.failures.shape]
    return list(dict.fromkeys(name for name in names if name))


def curl(method: str, path: str, key: bool, row: Operation) -> str:
    """The curl command that calls an address of `$HOST`, with a key and a body where needed."""
    body = row.example
    lines = [f"curl {f'-X {method} ' if method != 'GET' else ''}$HOST{path}"]
    if key:
        lines.append('-H "Authorization: Bearer mk_inference_YOUR_API_KEY"')
    if row.request_media == FORM:
        lines.append(body)
    elif body:
        lines += ['-H "Content-Type: application/json"', f"-d '{body}'"]
    return " \\\n  ".join(lines)


def _operation(name: str, access: str, sample: str) -> dict[str, Any]:
    row = OPERATIONS[name]
    operation: dict[str, Any] = {
        "operationId": row.id,
        "tags": [row.tag],
        "summary": row.summary,
        **({"description": row.description} if row.description else {}),
        "security": [{scheme: []} for scheme in SECURITY] if access != "public" else [],
        "parameters": _parameters(name, row),
        "x-codeSamples": [{"lang": "Shell", "source": sample}],
    }
    if row.request:
        operation["requestBody"] = _request_body(row)
    operation["responses"] = {
        **({str(row.success): _success(row)} if row.media else {}),
        **{str(status): _body(row.tag, JSON, shape) for status, shape in row.more.items()},
        **{
            str(status): {"$ref": f"#/components/responses/{row.failures.name}{status}"}
            for status in row.failures.by_status()
        },
    }
    return operation


def _parameters(name: str, row: Operation) -> list[dict[str, Any]]:
    called = CALL_HEADERS if row.is_call and not row.counts else ()
    headers = ("X-Request-Id", *called, *row.request_headers)
    return [
        *(
            {"name": each, "in": "path", "required": True, "schema": {"type": "string"}}
            for each in re.findall(r"{(\w+)}", name)
        ),
        *({"$ref": f"#/components/parameters/{each}"} for each in (*row.query, *headers)),
    ]


def _request_body(row: Operation) -> dict[str, Any]:
    content: dict[str, Any] = {"schema": _ref(row.request)}
    if row.example and row.request_media == JSON:
        content["examples"] = {"example": {"value": orjson.loads(row.example)}}
    return {"required": not row.optional_body, "content": {row.request_media: content}}


def _success(row: Operation) -> dict[str, Any]:
    """The successful response. That of a call is an error if it fails after its status was sent."""
    if row.is_call:
        text = "The result, or an error if the call fails after its status was sent."
        response = _body(text, JSON, row.answer, row.failures.shape)
    else:
        response = _body(row.summary, row.media, row.answer)
    response["headers"] |= _headers(*row.headers)
    if row.events:
        response["content"][EVENTS] = {"schema": _event(row)}
    if row.text:
        response["content"][row.text] = {"schema": {"type": "string"}}
    return response


def _event(row: Operation) -> dict[str, Any]:
    """One server-sent event, as OpenAPI 3.2 describes them ("Sequential Media Types").

    OpenAPI 3.1 does not say what the schema of a stream describes; tools apply it to its events.
    """
    data: dict[str, Any] = {
        "type": "string",
        "contentMediaType": JSON,
        "contentSchema": _any_of(row.events, row.failures.shape),
    }
    if row.last_event:
        data = {"anyOf": [data, {"const": row.last_event}]}
    properties = {"event": {"type": "string"}, "data": data}
    return {"type": "object", "required": ["data"], "properties": properties}


def _error_responses(operations: list[Operation]) -> dict[str, dict[str, Any]]:
    failures = {each.failures.name: each.failures for each in operations}
    return {
        f"{name}{status}": _error_response(each, status, errors)
        for name, each in failures.items()
        for status, errors in each.by_status().items()
    }


def _error_response(failures: Failures, status: int, errors: list[GatewayError]) -> dict[str, Any]:
    response = _body(" ".join(dict.fromkeys(map(_described, errors))), JSON, failures.shape)
    response["headers"] |= _headers(*failures.headers)
    if status == 401:
        response["headers"] |= _headers("WWW-Authenticate")
    if status in (429, 503, 529):
        response["headers"] |= _headers("Retry-After")
    if status == 429:
        response["headers"] |= _headers(*LIMIT_HEADERS)
    if any(error.should_retry is not None for error in errors):
        response["headers"] |= _headers("x-should-retry")
    return response


def _described(error: GatewayError) -> str:
    return f"`{error.code}`: {error.message}" if error.code else error.message


def _body(description: str, media: str, *shapes: str) -> dict[str, Any]:
    """A response. Without a shape, its body is an object if it is JSON, and text otherwise."""
    named = [shape for shape in shapes if shape]
    bare = {"type": "object" if media == JSON else "string"}
    return {
        "description": description,
        "headers": _headers("X-Request-Id"),
        "content": {media: {"schema": _any_of(*named) if named else bare}},
    }


def _headers(*names: str) -> dict[str, Any]:
    return {name: {"$ref": f"#/components/headers/{name}"} for name in names}


def _any_of(*names: str) -> dict[str, Any]:
    return _ref(names[0]) if len(names) == 1 else {"anyOf": [_ref(name) for name in names]}


def _ref(name: str) -> dict[str, str]:
    return {"$ref": f"#/components/schemas/{name}"}
