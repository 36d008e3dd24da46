"""Bad input over HTTP: every row is refused before anything is spent on it.

The numbers are those of the project's table of bad input; rows that only a raw socket can show are
in tests/e2e, and tests/unit/test_validation.py has more of those about a request's fields.
"""

from __future__ import annotations

import dataclasses
import json

import orjson
import pytest

from gateway.account.api_keys import KeyStore, checksum
from gateway.broker.body_room import BodyRoom
from gateway.broker.places import Places

CHAT = "/inference/v1/chat/completions"
USER = {"role": "user", "content": "hi"}
JSON = "application/json"
SECRET = "z" * 43


def body(*messages, **fields):
    return {"model": "openai/gpt-4o-mini", "messages": list(messages or [USER]), **fields}


def content(value):
    return body({"role": "user", "content": value})


def key_with(public_id, secret=SECRET):
    return f"mk_inference_{public_id}_{secret}{checksum(public_id, secret)}"


def refused(response, broker, status, code, param=None):
    """Checks all that a refusal has to be; returns its error object."""
    told = response.get_json()
    assert told.keys() == {"error"}
    error = told["error"]
    assert error.keys() == {"message", "type", "param", "code", "request_id"}
    assert error["request_id"] == response.headers["X-Request-Id"]
    assert (response.status_code, error["code"], error["param"]) == (status, code, param)
    assert error["type"] == "invalid_request_error"
    assert error["message"]
    assert response.content_type == JSON
    assert response.headers["X-Request-Id"]
    assert broker.calls == []
    return error


BAD_AUTH = {
    "18 none": (None, None),
    "18 empty": ("", None),
    "19 basic": ("Basic dTpw", "invalid_api_key"),
    "19 scheme alone": ("Bearer", "invalid_api_key"),
    "19 scheme and blank": ("Bearer ", "invalid_api_key"),
    "19 key alone": ("{key}", "invalid_api_key"),
    "19 two values": ("Bearer {key}, Bearer {key}", "invalid_api_key"),
    "19 two blanks": ("Bearer  {key}", "invalid_api_key"),
    "19 tab": ("Bearer\t{key}", "invalid_api_key"),
    "20 bad checksum": ("Bearer {key}x", "invalid_api_key"),
    "20 unknown id": ("Bearer " + key_with("0" * 12), "invalid_api_key"),
    "20 wrong secret": ("Bearer {wrong}", "invalid_api_key"),
    "20 revoked": ("Bearer {revoked}", "invalid_api_key"),
    "20 another service's": ("Bearer sk-abcdefghijklmnop", "invalid_api_key"),
    "21 8 KB": ("Bearer " + "x" * 8_000, "invalid_api_key"),
    "21 not ASCII": ("Bearer mk_inference_é", "invalid_api_key"),
}


@pytest.mark.parametrize(("header", "code"), BAD_AUTH.values(), ids=BAD_AUTH.keys())
@pytest.mark.parametrize("path", [CHAT, "/inference/v1/models", "/inference/v1/models/demo/echo"])
def test_nobody_gets_in_without_a_good_key(
    client, broker, redis, settings, key, path, header, code
):
    store = KeyStore(redis, settings.key_pepper)
    revoked = store.create("revoked")
    store.revoke(revoked[13:25])
    headers = {}
    if header is not None:
        header = header.format(key=key, wrong=key_with(key[13:25]), revoked=revoked)
        headers["Authorization"] = header
    method = client.post if path == CHAT else client.get
    response = method(path, headers=headers)
    error = refused(response, broker, 401, code)
    assert response.headers["WWW-Authenticate"] == "Bearer"
    assert SECRET not in error["message"]
    assert key[26:] not in error["message"]


def test_a_key_without_its_scheme_is_told_the_form_of_the_header(client, key):
    response = client.get("/inference/v1/models", headers={"Authorization": key})
    assert "Authorization: Bearer YOUR_KEY" in response.get_json()["error"]["message"]


def test_wrong_unknown_and_revoked_keys_are_told_the_same(client, redis, settings):
    store = KeyStore(redis, settings.key_pepper)
    one, two = store.create("one"), store.create("two")
    store.revoke(two[13:25])
    told = {
        client.get("/inference/v1/models", headers={"Authorization": f"Bearer {key}"})
        .get_json()["error"]["message"]
        .replace(key[13:17], "ABCD")
        for key in (key_with(one[13:25]), key_with("0" * 12), two)
    }
    assert told == {"Incorrect API key provided: mk_inference_ABCD***."}


ADDRESSES = {
    "23 unknown": ("POST", "/inference/v1/nothing", 404, "unknown_url"),
    "23 no prefix": ("GET", "/v1/models", 404, "unknown_url"),
    "23 slash at the end": ("POST", CHAT + "/", 404, "unknown_url"),
    "23 odd bytes": ("GET", "/inference/v1/%ff%00%0a", 404, "unknown_url"),
    "23 long": ("GET", "/" + "a" * 4_000, 404, "unknown_url"),
    "24 GET": ("GET", CHAT, 405, "method_not_allowed"),
    "24 DELETE": ("DELETE", CHAT, 405, "method_not_allowed"),
    "24 POST of models": ("POST", "/inference/v1/models", 405, "method_not_allowed"),
    "24 POST of a model": ("POST", "/inference/v1/models/m", 404, "unknown_url"),
}


@pytest.mark.parametrize(
    ("method", "path", "status", "code"), ADDRESSES.values(), ids=ADDRESSES.keys()
)
def test_a_wrong_address_is_told_in_the_envelope(client, broker, auth, method, path, status, code):
    response = client.open(path, method=method, headers=auth)
    refused(response, broker, status, code)
    assert ("Allow" in response.headers) == (status == 405)


@pytest.mark.parametrize(
    ("path", "allowed"),
    [(CHAT, {"POST", "OPTIONS"}), ("/inference/v1/models", {"GET", "HEAD", "OPTIONS"})],
)
def test_24_a_wrong_method_is_told_the_right_ones(client, auth, path, allowed):
    response = client.put(path, headers=auth)
    assert set(response.headers["Allow"].split(", ")) == allowed


MEDIA = {
    "25 none": ({}, "unsupported_media_type"),
    "25 text": ({"Content-Type": "text/plain"}, "unsupported_media_type"),
    "25 form": ({"Content-Type": "multipart/form-data; boundary=a"}, "unsupported_media_type"),
    "25 almost": ({"Content-Type": "application/jsonx"}, "unsupported_media_type"),
    "26 latin1": ({"Content-Type": "application/json; charset=latin1"}, "unsupported_charset"),
    "26 utf-16": ({"Content-Type": 'application/json; charset="utf-16"'}, "unsupported_charset"),
    "27 gzip": ({"Content-Type": JSON, "Content-Encoding": "gzip"}, "unsupported_encoding"),
    "27 two": ({"Content-Type": JSON, "Content-Encoding": "br, gzip"}, "unsupported_encoding"),
}


@pytest.mark.parametrize(("headers", "code"), MEDIA.values(), ids=MEDIA.keys())
def test_a_body_of_another_kind_is_refused(client, broker, auth, headers, code):
    response = client.post(CHAT, data=orjson.dumps(body()), headers={**auth, **headers})
    refused(response, broker, 415, code)


@pytest.mark.parametrize(
    "headers",
    [
        {"Content-Type": "Application/JSON ; Charset=UTF-8"},
        {"Content-Type": "application/json;charset=utf8"},
        {"Content-Type": JSON, "Content-Encoding": "identity"},
    ],
)
def test_other_ways_to_say_plain_json_are_taken(client, auth, headers):
    response = client.post(CHAT, data=orjson.dumps(body()), headers={**auth, **headers})
    assert response.status_code == 200


@pytest.mark.parametrize("more", [0, 1], ids=["at the limit", "over the limit"])
def test_31_a_body_over_the_limit_is_refused(make_client, settings, broker, auth, more):
    sent = orjson.dumps(body())
    small = dataclasses.replace(settings, max_body_bytes=len(sent) - more)
    response = make_client(small, broker).post(CHAT, data=sent, headers=auth, content_type=JSON)
    if more:
        refused(response, broker, 413, "request_too_large")
    else:
        assert response.status_code == 200


def test_31_a_body_declared_too_large_is_not_read(client, broker, auth):
    class Unread:
        def read(self, size=-1):
            raise AssertionError("read")

    environ = {"CONTENT_LENGTH": "20000001", "wsgi.input": Unread()}
    response = client.post(CHAT, headers=auth, content_type=JSON, environ_overrides=environ)
    refused(response, broker, 413, "request_too_large")


TEXT = json.dumps(body(temperature="@")).replace('"@"', "@")  # what stands for @ is no string


def temperature(literal):
    return TEXT.replace("@", literal).encode()


NOT_JSON = {
    "28 empty": b"",
    "28 blank": b" \n",
    "33 brace": b"{",
    "33 trailing": orjson.dumps(body()) + b"x",
    "33 two values": b"{}{}",
    "33 single quotes": b"{'model': 'm'}",
    "33 comment": b"{} // no",
    "33 trailing comma": b'{"a": 1,}',
    "34 invalid UTF-8": b'{"model": "\xff"}',
    "34 overlong UTF-8": b'{"model": "\xc0\x80"}',
    "34 UTF-16": '{"model": "m"}'.encode("utf-16"),
    "34 BOM": b"\xef\xbb\xbf{}",
    "35 lone surrogate": b'{"model": "\\ud800"}',
    "35 surrogate in UTF-8": b'{"model": "\xed\xa0\x80"}',
    "36 NaN": temperature("NaN"),
    "36 Infinity": temperature("Infinity"),
    "36 -Infinity": temperature("-Infinity"),
    "36 1e999": temperature("1e999"),
    "37 10k arrays": b"[" * 10_000 + b"]" * 10_000,
    "37 100k arrays": b"[" * 100_000 + b"]" * 100_000,
    "37 100k objects": b'{"a":' * 100_000 + b"1" + b"}" * 100_000,
    "37 100k brackets": b"[" * 100_000,
    "40 5000 digits": temperature("9" * 5_000),
    "control character": b'{"model": "a\nb"}',
}


@pytest.mark.parametrize("sent", NOT_JSON.values(), ids=NOT_JSON.keys())
def test_what_is_not_strict_json_is_refused(client, broker, auth, sent):
    response = client.post(CHAT, data=sent, headers=auth, content_type=JSON)
    refused(response, broker, 400, "invalid_json")


def nested(depth):
    value = 1
    for _ in range(depth):
        value = [value]
    return value


TYPE, VALUE, MISSING = "invalid_type", "invalid_value", "missing_required_parameter"
LOW, HIGH = "integer_below_min_value", "integer_above_max_value"
LONG, ROLE = "array_above_max_length", "messages[0].role"
CONTENT = "messages[0].content"
FORMAT = {"type": "json_schema", "json_schema": {"name": "a"}}
SCHEMA, ANSWERED = "response_format.json_schema.schema", "messages[1].tool_call_id"
HUGE = {"name": "f", "parameters": {str(key): key for key in range(50_001)}}
CALL = {"id": "call_1", "type": "function", "function": {"name": "f", "arguments": "{}"}}
ASKED = {"role": "assistant", "content": None, "tool_calls": [CALL]}


def image(url):
    return content([{"type": "image_url", "image_url": {"url": url}}])


def result(call_id):
    return {"role": "tool", "content": "1", "tool_call_id": call_id}


def tools(*names):
    return body(tools=[{"type": "function", "function": {"name": name}} for name in names])


def looped(depth):
    """A schema of this depth, each level of which refers to the whole."""
    schema = {"$ref": "#"}
    for _ in range(depth):
        schema = {"properties": {"a": schema}}
    return {"name": "f", "parameters": schema}


IMAGE = f"{CONTENT}[0].image_url.url"

BAD = {
    "38 depth 65": (nested(65), "json_too_deep", None),
    "38 depth 200 inside": (body(metadata=nested(200)), "json_too_deep", None),
    "39 200k keys": ({str(key): 1 for key in range(200_000)}, "json_too_large", None),
    "39 1M elements": ([0] * 1_000_000, "json_too_large", None),
    "41 array": ([], TYPE, None),
    "41 string": ("x", TYPE, None),
    "41 null": (None, TYPE, None),
    "41 number": (1, TYPE, None),
    "43 no model": ({"messages": [USER]}, MISSING, "model"),
    "43 no messages": ({"model": "openai/gpt-4o-mini"}, MISSING, "messages"),
    "44 model null": (body(model=None), TYPE, "model"),
    "44 model integer": (body(model=1), TYPE, "model"),
    "44 model empty": (body(model=""), VALUE, "model"),
    "44 model of 1 MB": (body(model="m" * 1_000_000), VALUE, "model"),
    "44 model with newline": (body(model="m\n"), VALUE, "model"),
    "46 messages string": (body(messages="hi"), TYPE, "messages"),
    "46 messages empty": (body(messages=[]), "empty_array", "messages"),
    "46 messages of 2049": (body(messages=[USER] * 2_049), LONG, "messages"),
    "46 messages of 100k": (body(messages=[USER] * 100_000), "json_too_large", None),
    "47 message string": (body("hi"), TYPE, "messages[0]"),
    "47 role missing": (body({"content": "hi"}), MISSING, ROLE),
    "47 role unknown": (body({"role": "foo", "content": "hi"}), VALUE, ROLE),
    "47 role integer": (body({"role": 1, "content": "hi"}), TYPE, ROLE),
    "48 content null": (content(None), TYPE, CONTENT),
    "48 content integer": (content(1), TYPE, CONTENT),
    "48 content nested": (content([["hi"]]), TYPE, f"{CONTENT}[0]"),
    "48 content part unknown": (content([{"type": "video"}]), VALUE, f"{CONTENT}[0].type"),
    "49 file": (image("file:///etc/passwd"), "invalid_image_url", IMAGE),
    "49 gopher": (image("gopher://a.example/1"), "invalid_image_url", IMAGE),
    "49 metadata": (image("http://169.254.169.254/latest"), "invalid_image_url", IMAGE),
    "49 backslash": (image("http://a\\@b"), "invalid_image_url", IMAGE),
    "50 no call": (body(USER, result("call_1")), VALUE, ANSWERED),
    "50 another call": (body(ASKED, result("call_2")), VALUE, ANSWERED),
    "51 no name": (tools(""), VALUE, "tools[0].function.name"),
    "51 name of 257": (tools("f" * 257), "string_above_max_length", "tools[0].function.name"),
    "51 129 tools": (tools(*["f"] * 129), LONG, "tools"),
    "51 deep schema": (body(functions=[looped(40)]), "json_too_deep", None),
    "51 huge schema": (body(functions=[HUGE]), "json_too_large", None),
    "52 temperature string": (body(temperature="1"), TYPE, "temperature"),
    "52 temperature true": (body(temperature=True), TYPE, "temperature"),
    "52 temperature -0.1": (body(temperature=-0.1), "decimal_below_min_value", "temperature"),
    "52 temperature 2.1": (body(temperature=2.1), "decimal_above_max_value", "temperature"),
    "52 temperature 1e308": (body(temperature=1e308), "decimal_above_max_value", "temperature"),
    "53 max_tokens 0": (body(max_tokens=0), LOW, "max_tokens"),
    "53 max_tokens -1": (body(max_tokens=-1), LOW, "max_tokens"),
    "53 max_tokens 1.5": (body(max_tokens=1.5), TYPE, "max_tokens"),
    "53 max_tokens 2^31": (body(max_tokens=2**31), HIGH, "max_tokens"),
    "53 max_tokens 2^64": (body(max_tokens=2**64), HIGH, "max_tokens"),
    "53 max_tokens string": (body(max_tokens="5"), TYPE, "max_tokens"),
    "54 n 0": (body(n=0), LOW, "n"),
    "54 n 129": (body(n=129), HIGH, "n"),
    "54 n true": (body(n=True), TYPE, "n"),
    "55 stop of 5": (body(stop=["a"] * 5), LONG, "stop"),
    "55 stop integers": (body(stop=[1]), TYPE, "stop[0]"),
    "56 stream string": (body(stream="true"), TYPE, "stream"),
    "56 stream 1": (body(stream=1), TYPE, "stream"),
    "57 stream_options": (body(stream_options={}), VALUE, "stream_options"),
    "58 format unknown": (body(response_format={"type": "xml"}), VALUE, "response_format.type"),
    "58 schema missing": (body(response_format=FORMAT), MISSING, SCHEMA),
    "58 format of no type": (body(response_format={}), MISSING, "response_format.type"),
    "59 logit_bias of 301": (body(logit_bias={str(k): 1 for k in range(301)}), VALUE, "logit_bias"),
    "59 logit_bias 101": (body(logit_bias={"1": 101}), VALUE, "logit_bias"),
    "60 seed 2^63": (body(seed=2**63), HIGH, "seed"),
    "60 seed 2^64": (body(seed=2**64), HIGH, "seed"),
    "62 metadata nested": (body(metadata={"a": {}}), VALUE, "metadata"),
    "62 metadata of 17": (body(metadata={str(k): "" for k in range(17)}), VALUE, "metadata"),
    "63 user of 10 KB": (body(user="u" * 10_240), "string_above_max_length", "user"),
}  # fmt: skip


@pytest.mark.parametrize(("value", "code", "param"), BAD.values(), ids=BAD.keys())
def test_a_wrong_request_is_refused_with_code_and_param(client, broker, auth, value, code, param):
    sent = json.dumps(value).encode()  # the only encoder here that writes 2^64
    response = client.post(CHAT, data=sent, headers=auth, content_type=JSON)
    refused(response, broker, 400, code, param)


@pytest.mark.parametrize("model", ["openai/gpt-9", "gpt-9", "nobody/x", "groq/*", "😀", "a" * 256])
def test_45_an_unknown_model_is_not_found(client, broker, auth, model):
    response = client.post(CHAT, json=body(model=model), headers=auth)
    error = refused(response, broker, 404, "model_not_found")
    assert error["message"] == (
        f"The model `{model}` does not exist or you do not have access to it."
    )


def test_42_of_two_models_the_last_one_counts(client, broker, auth):
    sent = b'{"model": "nobody/x", ' + orjson.dumps(body())[1:]
    assert client.post(CHAT, data=sent, headers=auth, content_type=JSON).status_code == 200
    assert broker.calls[0].spec.targets[0].model == "openai/gpt-4o-mini"


def test_56_stream_null_is_false(client, broker, auth):
    response = client.post(CHAT, json=body(stream=None), headers=auth)
    assert response.get_json()["object"] == "chat.completion"
    assert not broker.calls[0].spec.stream


def test_49_an_inline_image_over_50_mb_is_refused(make_client, settings, broker, auth):
    patient = dataclasses.replace(settings, max_body_bytes=60_000_000)
    sent = orjson.dumps(image("data:image/png;base64," + "A" * (50 << 20)))
    response = make_client(patient, broker).post(CHAT, data=sent, headers=auth, content_type=JSON)
    refused(response, broker, 400, "invalid_image_url", IMAGE)
    response = make_client(settings, broker).post(CHAT, data=sent, headers=auth, content_type=JSON)
    refused(response, broker, 413, "request_too_large")


def test_51_a_schema_that_refers_to_itself_is_passed_on(client, broker, auth):
    tool = {"type": "function", "function": looped(10)}
    assert client.post(CHAT, json=body(tools=[tool]), headers=auth).status_code == 200
    assert broker.calls[0].body["tools"] == [tool]


def test_61_what_might_steer_the_service_is_ignored_and_never_used(client, broker, auth):
    names = ["__proto__", "__class__", "api_base", "base_url", "api_key", "headers", "provider"]
    response = client.post(CHAT, json=body(**dict.fromkeys(names, "x")), headers=auth)
    assert response.status_code == 200
    assert broker.calls[0].body == {"messages": [USER]}
    assert set(response.headers["X-Ignored-Parameters"].split(", ")) == set(names)


@pytest.mark.parametrize(
    "text", ["a\0b", "😀👩‍👩‍👧", "שלום ‮ עולם", "é" * 1_000_000, "\u2028\x7f", "\\ud83d"],
    ids=["NUL", "emoji", "right to left", "1M on one line", "separators", "backslash"],
)  # fmt: skip
def test_63_any_text_reaches_the_provider_as_it_is(client, broker, auth, text):
    assert client.post(CHAT, json=content(text), headers=auth).status_code == 200
    assert broker.calls[0].body["messages"][0]["content"] == text


@pytest.mark.parametrize(
    "given", ["a\r\nSet-Cookie: b", "x" * 10_240, "é", "a b", "a\tb", "", "a" * 65, "%0d"]
)
def test_64_an_odd_request_id_is_replaced(client, broker, given):
    response = client.get("/inference/v1/models", environ_overrides={"HTTP_X_REQUEST_ID": given})
    refused(response, broker, 401, None)
    assert len(response.headers["X-Request-Id"]) == 32
    assert "Set-Cookie" not in response.headers


# Room for large bodies


@pytest.fixture
def room():
    return BodyRoom(1_000_000, patience=0.01)


def large(size):
    return {
        "model": "demo/echo",
        "messages": [{"role": "user", "content": "x" * size}],
    }


def test_a_large_body_without_room_is_refused_and_may_be_sent_again(
    make_client, settings, auth, room
):
    client = make_client(settings, bodies=room)
    room.hold(1, "another key", 900_000)
    response = client.post(CHAT, json=large(200_000), headers=auth)
    assert (response.status_code, response.json["error"]["code"]) == (503, "server_is_overloaded")
    assert response.headers["x-should-retry"] == "true"
    assert client.post(CHAT, json=large(20_000), headers=auth).status_code == 200


@pytest.mark.parametrize("model", ["demo/echo", "unknown/model"])
def test_a_request_that_has_ended_holds_nothing(make_client, settings, auth, room, model):
    client = make_client(settings, bodies=room)
    for _ in range(3):
        response = client.post(CHAT, json={**large(400_000), "model": model}, headers=auth)
        assert response.status_code == (200 if model == "demo/echo" else 404)
    room.hold(1, "another key", 1_000_000)


def test_a_key_with_many_unfinished_bodies_leaves_places_for_others(
    make_client, settings, redis, auth
):
    other = {"Authorization": f"Bearer {KeyStore(redis, settings.key_pepper).create('other')}"}
    readers = Places(8)
    client = make_client(settings, readers=readers)
    public_id = auth["Authorization"].split("_")[2]
    while readers.take(public_id):  # requests of this key whose bodies do not end
        pass
    response = client.post(CHAT, json=large(1), headers=auth)
    assert (response.status_code, response.json["error"]["code"]) == (503, "server_is_overloaded")
    assert response.headers["x-should-retry"] == "true"
    for _ in range(9):
        assert client.post(CHAT, json=large(1), headers=other).status_code == 200
