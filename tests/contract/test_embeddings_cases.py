"""Every dialect of embeddings against its cases. A case is a folder of files:

call.json with request.json        a call, and what the upstream must be sent
  with response.json, answer.json  what the upstream sends, and what the worker passes on
  with response.json, error.json   ... or the error that it becomes
response.STATUS.json, error.json   a refusal (its headers, if any, in headers.json)
source.txt                         where the wire text comes from

The wires are those of the table in providers/__init__.py that make embeddings.
"""

import json

import pytest

from gateway.errors import GatewayError
from tests.support import cases
from tests.support.cases import CONTRACT, read

CASES = CONTRACT / "cases_embeddings"
PROVIDERS = {name: each for name, each in cases.http_providers().items() if each.embeddings}
WIRES = {name: provider.embeddings for name, provider in PROVIDERS.items()}

# No provider may lack these.
REQUIRED = set(
    "text texts tokens token_lists base64 numbers_asked_for dimensions_and_user line_separator"
    " context_length bad_request wrong_key unknown_model throttled quota server_error overloaded"
    " error_in_200 one_is_missing".split()
)


def having(*patterns, wires=WIRES):
    return cases.having(CASES, wires, *patterns)


@pytest.mark.parametrize(("case", "wire"), having("request.json"))
def test_the_request_is_what_the_upstream_wants(case, wire):
    request = wire.request(**read(case / "call.json"))
    assert json.loads(request.body) == read(case / "request.json")


@pytest.mark.parametrize(("case", "wire"), having("response.json", "answer.json"))
def test_a_response_becomes_the_answer(case, wire):
    parameters = read(case / "call.json")["parameters"]
    answer = wire.response(read(case / "response.json"), parameters)
    assert answer == read(case / "answer.json")


@pytest.mark.parametrize(("case", "provider"), having("error.json", wires=PROVIDERS))
def test_what_goes_wrong_becomes_the_callers_error(case, provider):
    with pytest.raises(GatewayError) as caught:
        if (case / "response.json").exists():
            parameters = read(case / "call.json")["parameters"]
            provider.embeddings.response(read(case / "response.json"), parameters)
        raise provider.wire.error(*cases.refusal(case))
    expected = read(case / "error.json")
    assert {key: caught.value.to_dict()[key] for key in expected} == expected
    assert cases.KEY not in caught.value.message


@pytest.mark.parametrize("provider", WIRES)
def test_no_provider_lacks_a_case(provider):
    there = {folder.name for folder in (CASES / provider).iterdir()}
    assert there >= REQUIRED
    assert all((CASES / provider / name / "source.txt").exists() for name in there)
