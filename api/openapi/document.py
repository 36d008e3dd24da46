"""GET /openapi.json: what this service takes and answers, as an OpenAPI 3.1 document.

Generated when first asked for, from the app's routes, api/openapi/operations.py, the schemas that
requests are checked with, and the classes of errors.
"""

from __future__ import annotations

import re
from typing import Any

import orjson
from flask import Blueprint, Flask, Response, current_app

from api.http.auth import public
from api.openapi.operations import JSON, OPERATIONS, TAGS, Failures, Operation
from api.services import services
from gateway import VERSION
from gateway.errors import GatewayError

openapi = Blueprint("openapi", __name__)

PATH = "/openapi.json"
EVENTS = "text/event-stream"

RESPONSE_HEADERS: dict[str, dict[str, Any]] = {
    "X-Request-Id": {
        "description": "Names this request in the service's logs; the caller's own where it sent "
        "one of at most 64 plain characters.",
        "required": True,
        "schema": {"type": "string", "pattern": "^[A-Za-z0-9_-]{1,64}$"},
    },
    "X-Ignored-Parameters": {
        "description": "Fields of the request that nobody knows or that the model does not take.",
        "schema": {"type": "string"},
    },
    "Warning": {
        "description": "Says when the model will be shut down, and who answers in its place.",
        "schema": {"type": "string"},
    },
    "request-id": {
        "description": "The same as `X-Request-Id`, by Anthropic's name.",
        "schema": {"type": "string"},
    },
    "Retry-After": {
        "description": "Seconds to wait before another attempt.",
        "schema": {"type": "integer", "minimum": 1, "maximum": 120},
    },
    "x-should-retry": {
        "description": "`false`: do not repeat the call, the provider may have acted on it. "
        "`true`: it is safe to repeat.",
        "schema": {"type": "string", "enum": ["true", "false"]},
    },
    "WWW-Authenticate": {"schema": {"type": "string"}},
}

REQUEST_HEADERS: dict[str, dict[str, Any]] = {
    "X-Request-Id": {
        "description": "A name for this request, of at most 64 letters, digits, `_` and `-`. "
        "Anything else is replaced.",
        "schema": {"type": "string"},
    },
    "X-Request-Timeout": {
        "description": "Seconds after which the call is given up; the service's own deadline, "
        "where that is earlier, stands. What is no positive number is ignored.",
        "schema": {"type": "string"},
    },
}

SECURITY: dict[str, dict[str, Any]] = {
    "bearer": {
        "type": "http",
        "scheme": "bearer",
        "description": "A key of this service: `Authorization: Bearer mk_inference_...`",
    },
    "x-api-key": {
        "type": "apiKey",
        "in": "header",
        "name": "x-api-key",
        "description": "The same key as Anthropic's clients send it: `x-api-key: mk_inference_...`",
    },
}


@openapi.get(PATH)
@public
def show() -> Response:
    """The document as JSON."""
    return Response(rendered(), content_type=JSON)


def rendered() -> bytes:
    """The current app's document as JSON, made once."""
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
        sample = curl(method, prefix + path, access == "key", OPERATIONS[name].example)
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
    # The shapes of answers are of no use to a process that nobody asks for this.
    from api.openapi.components import component_schemas

    return {
        "schemas": component_schemas(_shapes(operations)),
        "responses": _error_responses(operations),
        "headers": RESPONSE_HEADERS,
        "parameters": {
            name: {"name": name, "in": "header", **parameter}
            for name, parameter in REQUEST_HEADERS.items()
        },
        "securitySchemes": SECURITY,
    }


def _routes(app: Flask) -> tuple[str, dict[str, str]]:
    """The prefix of all paths, and who may use each route, in the order of OPERATIONS."""
    rules = list(app.url_map.iter_rules())
    (own,) = (rule.rule for rule in rules if rule.endpoint == f"{openapi.name}.{show.__name__}")
    prefix = own.removesuffix(PATH)
    found = {}
    for rule in rules:
        path = re.sub(r"<(?:\w+:)?(\w+)>", r"{\1}", rule.rule.removeprefix(prefix))
        for method in rule.methods or ():
            found[f"{method} {path}"] = getattr(app.view_functions[rule.endpoint], "access", "key")
    return prefix, {name: found[name] for name in OPERATIONS if name in found}


def _shapes(operations: list[Operation]) -> list[str]:
    """The names of all shapes that these operations use, each once."""
    names = []
    for each in operations:
        names += [each.request, each.answer, each.events, *each.more.values(), each.failures.shape]
    return list(dict.fromkeys(name for name in names if name))


def curl(method: str, path: str, key: bool, body: str) -> str:
    """The command that calls an address of `$HOST`, with a key and a body where it wants them."""
    lines = [f"curl {'-X POST ' if method == 'POST' else ''}$HOST{path}"]
    if key:
        lines.append('-H "Authorization: Bearer mk_inference_YOUR_API_KEY"')
    if body:
        lines += ['-H "Content-Type: application/json"', f"-d '{body}'"]
    return " \\\n  ".join(lines)


def _operation(name: str, access: str, sample: str) -> dict[str, Any]:
    row = OPERATIONS[name]
    made: dict[str, Any] = {
        "operationId": row.id,
        "tags": [row.tag],
        "summary": row.summary,
        **({"description": row.description} if row.description else {}),
        "security": [{scheme: []} for scheme in SECURITY] if access == "key" else [],
        "parameters": _parameters(name, bool(row.request)),
        "x-codeSamples": [{"lang": "Shell", "source": sample}],
    }
    if row.request:
        made["requestBody"] = _request_body(row)
    made["responses"] = {
        **({"200": _answer(row)} if row.media else {}),
        **{str(status): _body(row.tag, JSON, shape) for status, shape in row.more.items()},
        **{
            str(status): {"$ref": f"#/components/responses/{row.failures.name}{status}"}
            for status in row.failures.by_status()
        },
    }
    return made


def _parameters(name: str, is_call: bool) -> list[dict[str, Any]]:
    headers = REQUEST_HEADERS if is_call else ("X-Request-Id",)
    return [
        *(
            {"name": each, "in": "path", "required": True, "schema": {"type": "string"}}
            for each in re.findall(r"{(\w+)}", name)
        ),
        *({"$ref": f"#/components/parameters/{each}"} for each in headers),
    ]


def _request_body(row: Operation) -> dict[str, Any]:
    content: dict[str, Any] = {"schema": _ref(row.request)}
    if row.example:
        content["examples"] = {"example": {"value": orjson.loads(row.example)}}
    return {"required": True, "content": {JSON: content}}


def _answer(row: Operation) -> dict[str, Any]:
    """The response 200: a call's is an error where it fails after the status is spent."""
    if not row.request:
        return _body(row.summary, row.media, row.answer)
    made = _body(
        "The answer; an error where the call fails after its status was sent.",
        JSON,
        row.answer,
        row.failures.shape,
    )
    if row.events:
        made["content"][EVENTS] = {"schema": _event(row)}
    made["headers"] |= _headers(*row.headers)
    return made


def _event(row: Operation) -> dict[str, Any]:
    """One server-sent event, as OpenAPI 3.2 describes them ("Sequential Media Types").

    3.1 leaves open what the schema of a stream is about; tools take it for that of its items.
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
        f"{name}{status}": _error_response(each, status, found)
        for name, each in failures.items()
        for status, found in each.by_status().items()
    }


def _error_response(failures: Failures, status: int, found: list[GatewayError]) -> dict[str, Any]:
    made = _body(" ".join(dict.fromkeys(map(_told, found))), JSON, failures.shape)
    made["headers"] |= _headers(*failures.headers)
    if status == 401:
        made["headers"] |= _headers("WWW-Authenticate")
    if status in (429, 503, 529):
        made["headers"] |= _headers("Retry-After")
    if any(error.should_retry is not None for error in found):
        made["headers"] |= _headers("x-should-retry")
    return made


def _told(error: GatewayError) -> str:
    return f"`{error.code}`: {error.message}" if error.code else error.message


def _body(description: str, media: str, *shapes: str) -> dict[str, Any]:
    """A response; without a shape its body is an object, or text where it is no JSON."""
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
