"""The OpenAPI document: it is valid, nothing is missing in it, and what it says is what happens."""

from __future__ import annotations

import copy
import json
import re
import shlex
import subprocess
import sys
import time
from pathlib import Path

import orjson
import pytest
from jsonschema import Draft202012Validator
from openapi_spec_validator import OpenAPIV31SpecValidator

from api.openapi.document import EVENTS, JSON, document
from api.openapi.operations import CALL, KEPT, NEVER_SENT, OPERATIONS
from app import PREFIX, create_app
from gateway import VERSION, errors
from gateway.account.records import Record
from gateway.account.redis_ledger import RedisLedger
from gateway.queue import keys
from gateway.queue.protocol import Outcome
from gateway.settings import Settings
from tests.support.fakes import FakeBroker

ROOT = Path(__file__).parents[2]
CASES = Path(__file__).parent / "cases"
CHAT = "/chat/completions"
USER = [{"role": "user", "content": "hi"}]
BODY = {"model": "openai/gpt-4o-mini", "messages": USER}
# Each way to call a model, with a body for it.
ENDPOINTS = {
    CHAT: BODY,
    "/messages": {**BODY, "max_tokens": 5},
    "/responses": {"model": "openai/gpt-4o-mini", "input": "hi"},
    "/embeddings": {"model": "openai/text-embedding-3-small", "input": "hi"},
}
STREAMING = [endpoint for endpoint in ENDPOINTS if endpoint != "/embeddings"]
THINKING = {"type": "thinking", "thinking": "Hm.", "signature": "c2ln"}
TOOL_CALL = {
    "id": "call_1",
    "type": "function",
    "function": {"name": "f", "arguments": '{"a": 1}'},
}
# An answer with all that an answer may have, whole and in parts.
SAID = {"content": "Hello!", "reasoning_content": "Hm.", "thinking_blocks": [THINKING]}
USAGE = {
    "prompt_tokens": 9,
    "completion_tokens": 2,
    "total_tokens": 11,
    "prompt_tokens_details": {"cached_tokens": 1, "cache_write_tokens": 2},
    "completion_tokens_details": {"reasoning_tokens": 1},
}
WHOLE = {
    "choices": [
        {
            "index": 0,
            "message": {"role": "assistant", "refusal": None, **SAID, "tool_calls": [TOOL_CALL]},
            "logprobs": None,
            "finish_reason": "tool_calls",
            "native_finish_reason": "tool_use",
            "stop_sequence": None,
        }
    ],
    "usage": USAGE,
}
VECTORS = {
    "data": [{"object": "embedding", "index": 0, "embedding": "AACAPw=="}],
    "usage": {"prompt_tokens": 1, "total_tokens": 1},
}


def one_part(delta, **more):
    choice = {"index": 0, "delta": delta, "logprobs": None, "finish_reason": None, **more}
    return orjson.dumps({"choices": [choice]})


PARTS = [
    one_part({"role": "assistant", "reasoning_content": "Hm."}),
    one_part({"thinking_blocks": [THINKING]}),
    one_part({"content": "Hel"}) + b"\n" + one_part({"content": "lo!"}),
    one_part({"tool_calls": [{"index": 0, **TOOL_CALL}]}),
    one_part({}, finish_reason="tool_calls", native_finish_reason="tool_use"),
    orjson.dumps({"choices": [], "usage": USAGE}),
]
CLOSED = {}  # id of a document -> itself and its components, closed
SENT = [kind for kind in errors.kinds() if kind not in NEVER_SENT]


@pytest.fixture(scope="module")
def app():
    return create_app(Settings(key_pepper="p" * 40, demo_models=True))


@pytest.fixture(scope="module")
def described(app):
    """The document, as a client reads it."""
    return json.loads(orjson.dumps(document(app)))


def resolved(document, part):
    """The part itself, or the one that it refers to."""
    if "$ref" not in part:
        return part
    for step in part["$ref"].split("/")[1:]:
        document = document[step]
    return document


def closed(schema):
    """The schema, refusing every key that it does not name."""
    if isinstance(schema, list):
        return [closed(item) for item in schema]
    if not isinstance(schema, dict):
        return schema
    strict = {key: closed(value) for key, value in schema.items()}
    if isinstance(schema.get("properties"), dict) and schema.get("type") == "object":
        strict["additionalProperties"] = False
    return strict


def mistakes(document, schema, value, strict=True):
    """What is wrong with a value of this schema, as text; keys that nobody documents included."""
    components = document["components"]
    if strict:  # closing them takes 50 ms: once for each document, which the table keeps alive
        if id(document) not in CLOSED:
            CLOSED[id(document)] = document, closed(components)
        _, components = CLOSED[id(document)]
    validator = Draft202012Validator({**schema, "components": components})
    return [f"{error.json_path}: {error.message}" for error in validator.iter_errors(value)]


def check(document, method, path, response):
    """Checks that a response is one that the document has."""
    operation = document["paths"][path][method]
    status = str(response.status_code)
    assert status in operation["responses"], f"{status} is not documented"
    told = resolved(document, operation["responses"][status])
    media = response.mimetype
    (name,) = [name for name in told["content"] if name.partition(";")[0] == media]
    if media == JSON:
        assert mistakes(document, told["content"][name]["schema"], response.get_json()) == []
    for header, part in told["headers"].items():
        header_object = resolved(document, part)
        value = response.headers.get(header)
        assert value is not None or not header_object.get("required"), header
        if value is not None:
            kind = header_object["schema"]["type"]
            told_value = int(value) if kind == "integer" else value
            assert mistakes(document, header_object["schema"], told_value) == [], header
    sent = {name for name in document["components"]["headers"] if name in response.headers}
    assert sent <= told["headers"].keys()


def post(client, auth, body, path=CHAT):
    return client.post(
        PREFIX + path,
        data=orjson.dumps(body),
        content_type=JSON,
        headers=auth,
        buffered=True,
    )


def events(response):
    """Name ("": none) and data of each event of a stream."""
    blocks = response.get_data(as_text=True).removesuffix("\n\n").split("\n\n")
    lines = [dict(line.split(": ", 1) for line in block.split("\n")) for block in blocks]
    return [(block.get("event", ""), block["data"]) for block in lines]


# The document


def test_it_is_openapi_3_1(described):
    assert described["openapi"].startswith("3.1.")
    assert [error.message for error in OpenAPIV31SpecValidator(described).iter_errors()] == []


def test_it_is_served_to_anyone_and_told_the_same_each_time(client):
    first = client.get(f"{PREFIX}/openapi.json")
    assert (first.status_code, first.content_type) == (200, JSON)
    assert first.get_json()["info"]["version"] == VERSION
    assert first.get_json()["servers"] == [{"url": PREFIX}]
    assert client.get(f"{PREFIX}/openapi.json").get_data() == first.get_data()


def operations(app):
    """The rules of the API: not those of the page at / and at the base URL."""
    return [rule for rule in app.url_map.iter_rules() if rule.rule.startswith(f"{PREFIX}/")]


def test_it_has_every_route_and_no_other(app, described):
    served = set()
    for rule in operations(app):
        path = re.sub(r"<(?:\w+:)?(\w+)>", r"{\1}", rule.rule)
        served |= {f"{method} {path}" for method in rule.methods - {"HEAD", "OPTIONS"}}
    told = {
        f"{method.upper()} {PREFIX}{path}"
        for path, methods in described["paths"].items()
        for method in methods
    }
    assert told == served
    assert {name.replace(" ", f" {PREFIX}") for name in OPERATIONS} == served


def test_it_says_who_needs_a_key(app, described):
    for rule in operations(app):
        path = re.sub(r"<(?:\w+:)?(\w+)>", r"{\1}", rule.rule).removeprefix(PREFIX)
        needs_key = app.view_functions[rule.endpoint].access != "public"
        for operation in described["paths"][path].values():
            assert bool(operation["security"]) == needs_key, path
            assert ("401" in operation["responses"]) == needs_key, path


def test_its_shapes_have_plain_names_and_are_all_of_use(described):
    text = json.dumps(described)
    for name in described["components"]["schemas"]:
        assert re.fullmatch(r"[A-Z][A-Za-z0-9]*", name), name
    for kind in ("schemas", "responses", "headers", "parameters"):
        for name in described["components"][kind]:
            assert f'"$ref": "#/components/{kind}/{name}"' in text, name


def test_its_schemas_have_nothing_that_confuses_generators(described):
    def walk(schema, inside_properties=False):
        if isinstance(schema, list):
            for item in schema:
                walk(item)
        elif isinstance(schema, dict):
            if not inside_properties:
                assert not schema.keys() & {"title", "discriminator", "$defs", "definitions"}
            for key, value in schema.items():
                walk(value, key == "properties" and not inside_properties)

    for schema in described["components"]["schemas"].values():
        walk(schema)


def test_the_example_of_a_chat_completion_is_the_command_of_the_readme(described):
    (sample,) = described["paths"][CHAT]["post"]["x-codeSamples"]
    assert f"```bash\n{sample['source']}\n```" in (ROOT / "README.md").read_text()


EXAMPLES = [name for name, row in OPERATIONS.items() if row.request and row.request_media == JSON]


@pytest.mark.parametrize("name", EXAMPLES)
def test_every_example_is_a_request_of_its_shape(described, name):
    method, path = name.lower().split()
    operation = described["paths"][path][method]
    content = operation["requestBody"]["content"][JSON]
    for example in content["examples"].values():
        assert mistakes(described, content["schema"], example["value"], strict=False) == []
        (sample,) = operation["x-codeSamples"]
        command = shlex.split(sample["source"].replace("\\\n", ""))
        assert json.loads(command[command.index("-d") + 1]) == example["value"]


@pytest.mark.parametrize("kind", SENT, ids=lambda kind: kind.__name__)
def test_every_error_that_can_be_sent_is_told_with_its_code(described, kind):
    response = described["components"]["responses"][f"{CALL.name}{kind.status}"]
    assert kind.code is None or f"`{kind.code}`" in response["description"]


def test_nothing_of_it_is_loaded_before_somebody_asks():
    program = (
        "import sys, app; from gateway.settings import Settings;"
        "app.create_app(Settings(key_pepper='p' * 40));"
        "print([name for name in sys.modules if name.endswith('response_schema')"
        " or name == 'api.openapi.components'])"
    )
    told = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True)
    assert told.stdout == "[]\n", told.stderr


# What it says of answers


@pytest.mark.parametrize("endpoint", ENDPOINTS)
def test_a_whole_answer_is_as_told(make_client, settings, auth, described, endpoint):
    answer = VECTORS if endpoint == "/embeddings" else WHOLE
    client = make_client(settings, FakeBroker(Outcome(answer=orjson.dumps(answer))))
    response = post(client, auth, {**ENDPOINTS[endpoint], "magic": 1}, endpoint)
    assert response.status_code == 200
    assert response.headers["X-Ignored-Parameters"] == "magic"
    check(described, "post", endpoint, response)


@pytest.mark.parametrize("failing", [False, True])
@pytest.mark.parametrize("endpoint", STREAMING)
def test_each_event_of_a_stream_is_as_told(
    make_client, settings, auth, described, endpoint, failing
):
    last = errors.UpstreamTruncated() if failing else Outcome(last=len(PARTS))
    client = make_client(settings, FakeBroker(*PARTS, last))
    asked = {**ENDPOINTS[endpoint], "stream": True}
    if endpoint == CHAT:
        asked["stream_options"] = {"include_usage": True}
    response = post(client, auth, asked, endpoint)
    check(described, "post", endpoint, response)
    content = described["paths"][endpoint]["post"]["responses"]["200"]["content"][EVENTS]
    told = content["schema"]["properties"]["data"]
    found = events(response)
    assert len(found) > len(PARTS)
    if endpoint == CHAT:
        told, end = told["anyOf"]
        assert found.pop() == ("", end["const"])
    for name, text in found:
        data = json.loads(text)
        assert name == ("" if endpoint == CHAT else data["type"])
        assert mistakes(described, told["contentSchema"], data) == []


@pytest.mark.parametrize("endpoint", ENDPOINTS)
@pytest.mark.parametrize("kind", SENT, ids=lambda kind: kind.__name__)
def test_every_error_is_as_told(make_client, settings, auth, described, kind, endpoint):
    waits = kind.status in (429, 503)  # those of no other status say how long
    client = make_client(settings, FakeBroker(kind(retry_after=3 if waits else None)))
    response = post(client, auth, ENDPOINTS[endpoint], endpoint)
    assert response.status_code >= 400
    check(described, "post", endpoint, response)


@pytest.mark.parametrize("endpoint", ENDPOINTS)
@pytest.mark.parametrize("status", KEPT)
def test_a_status_that_a_refusing_provider_keeps_is_told(
    make_client, settings, auth, described, endpoint, status
):
    client = make_client(settings, FakeBroker(errors.UpstreamRejected(status=status)))
    response = post(client, auth, ENDPOINTS[endpoint], endpoint)
    assert response.status_code == status
    check(described, "post", endpoint, response)


@pytest.mark.parametrize("endpoint", ENDPOINTS)
@pytest.mark.parametrize("body", [{}, [], {"model": "none/at-all"}, {"model": "demo/echo"}])
@pytest.mark.parametrize("known", [True, False])
def test_a_refused_request_is_answered_as_told(client, auth, described, endpoint, body, known):
    response = post(client, auth if known else {}, body, endpoint)
    assert response.status_code in ((400, 404) if known else (401,))
    check(described, "post", endpoint, response)


def test_no_response_is_ever_found(client, auth, described):
    response = client.get(f"{PREFIX}/responses/resp_1", headers=auth)
    assert response.status_code == 404
    check(described, "get", "/responses/{response_id}", response)


@pytest.mark.parametrize("folder", sorted(CASES.glob("*/*/answer.json")), ids=lambda p: p.parts[-2])
def test_what_providers_answer_is_as_told(described, folder):
    whole = {"id": "chatcmpl-1", "object": "chat.completion", "created": 1, "model": "m"}
    answer = {**whole, **json.loads(folder.read_text())}
    schema = {"$ref": "#/components/schemas/ChatCompletion"}
    assert mistakes(described, schema, answer, strict=False) == []


@pytest.mark.parametrize("path", ["/models", "/models/demo/echo", "/models/none"])
@pytest.mark.parametrize("known", [True, False])
def test_the_models_are_as_told(client, auth, described, path, known):
    response = client.get(PREFIX + path, headers=auth if known else {})
    template = re.sub("/models/.*", "/models/{model_id}", path)
    assert response.status_code == (401 if not known else 404 if path.endswith("none") else 200)
    check(described, "get", template, response)


USAGE = {
    "/generations": "/generations?limit=3",
    "/generations/{generation_id}": "/generations/c1",
    "/generation": "/generation?id=c1",
    "/usage": "/usage?group_by=model&group_by=project_id",
    "/organization/usage/completions": "/organization/usage/completions",
    "/organization/usage/embeddings": "/organization/usage/embeddings",
    "/organization/costs": "/organization/costs?group_by[]=line_item",
}


@pytest.mark.parametrize(
    ("path", "query", "status"),
    [
        *((path, "", 200) for path in USAGE),
        *((path, None, 401) for path in USAGE),
        *((path, "magic=1", 400) for path in USAGE if "{" not in path),
    ],
)
def test_calls_and_usage_are_as_told(
    client, settings, redis, key, auth, described, path, query, status
):
    used = {"input": 7, "cache_read": 1, "output": 2}
    common = {"created_ms": 1, "settled_ms": int(time.time() * 1000), "usage": used}
    attempts = ({"provider_name": "p", "model": "m", "status": 500, "code": "c", "latency_ms": 1},)
    public_id = key.split("_")[2]
    RedisLedger(settings, redis).write(
        [
            Record("c1", public_id, **common, usage_source="provider", attempts=attempts),
            Record("c2", public_id, **common, kind="embeddings", prices={"version": "1"}),
        ]
    )
    address = USAGE[path] + (f"&{query}" if "?" in USAGE[path] else f"?{query}") * bool(query)
    response = client.get(PREFIX + address, headers=auth if query is not None else {})
    assert response.status_code == status
    check(described, "get", path, response)
    if status == 200:
        text = response.text
        assert '"c1"' in text or '"num_model_requests":' in text or '"usd"' in text


def test_usage_as_csv_is_as_told(client, auth, described):
    response = client.get(f"{PREFIX}/usage?format=csv", headers=auth)
    check(described, "get", "/usage", response)
    assert response.mimetype == "text/csv"


def test_a_call_that_is_not_there_is_as_told(client, auth, described):
    response = client.get(f"{PREFIX}/generations/none", headers=auth)
    check(described, "get", "/generations/{generation_id}", response)


def test_health_is_as_told(client, broker, redis, described):
    check(described, "get", "/health", client.get(f"{PREFIX}/health"))
    seen = []
    for worker in (None, "w1"):
        if worker:
            redis.sadd(keys.RQ_WORKERS, f"rq:worker:{worker}")
            redis.set(keys.lease(worker), 1)
        response = client.get(f"{PREFIX}/health/ready")
        seen.append(response.status_code)
        check(described, "get", "/health/ready", response)
    assert seen == [503, 200]


def test_a_lie_would_be_noticed(client, auth, described):
    response = post(client, auth, BODY)
    lying = copy.deepcopy(described)
    del lying["components"]["schemas"]["ChatCompletion"]["properties"]["usage"]
    with pytest.raises(AssertionError):
        check(lying, "post", CHAT, response)
