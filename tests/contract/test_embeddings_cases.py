"""Every dialect of embeddings against its cases: a folder each, as those of chat completions.

call.json with request.json        what the upstream must be sent
  with response.json, answer.json  what it says, and what the worker passes on
  with response.json, error.json   ... or the error that it becomes
response.STATUS.json, error.json   a refusal (its headers, if any, in headers.json)
source.txt                         where the wire text comes from
"""

import json
from pathlib import Path

import pytest

from gateway.errors import GatewayError
from providers.openai.embeddings import OpenAIEmbeddings

CASES = Path(__file__).parent / "cases_embeddings"

WIRES = {"openai": OpenAIEmbeddings("https://api.openai.com/v1", "sk-operator-key")}

# No provider may lack these.
REQUIRED = set(
    "text texts tokens token_lists base64 numbers_asked_for dimensions_and_user line_separator"
    " context_length bad_request wrong_key unknown_model throttled quota server_error overloaded"
    " error_in_200 one_is_missing".split()
)


def having(*patterns):
    """The cases with a file of each pattern."""
    folders = sorted(path.parent for path in CASES.glob("*/*/source.txt"))
    found = [f for f in folders if all(any(f.glob(pattern)) for pattern in patterns)]
    return [pytest.param(f, WIRES[f.parent.name], id=f"{f.parent.name}-{f.name}") for f in found]


def read(path):
    return json.loads(path.read_text("utf-8"))


@pytest.mark.parametrize(("case", "wire"), having("request.json"))
def test_the_request_is_what_the_upstream_wants(case, wire):
    request = wire.request(**read(case / "call.json"))
    assert json.loads(request.body) == read(case / "request.json")


@pytest.mark.parametrize(("case", "wire"), having("response.json", "answer.json"))
def test_the_answer_is_the_answer(case, wire):
    parameters = read(case / "call.json")["parameters"]
    answer = wire.answer(read(case / "response.json"), parameters)
    assert answer == read(case / "answer.json")


@pytest.mark.parametrize(("case", "wire"), having("error.json"))
def test_what_goes_wrong_becomes_the_callers_error(case, wire):
    with pytest.raises(GatewayError) as caught:
        if (case / "response.json").exists():
            wire.answer(read(case / "response.json"), read(case / "call.json")["parameters"])
        (refusal,) = case.glob("response.*.json")
        headers = read(case / "headers.json") if (case / "headers.json").exists() else {}
        raise wire.error(int(refusal.name.split(".")[1]), refusal.read_bytes(), headers)
    expected = read(case / "error.json")
    assert {key: caught.value.to_dict()[key] for key in expected} == expected
    assert "operator-key" not in caught.value.message


@pytest.mark.parametrize("provider", WIRES)
def test_no_provider_lacks_a_case(provider):
    there = {folder.name for folder in (CASES / provider).iterdir()}
    assert there >= REQUIRED
    assert all((CASES / provider / name / "source.txt").exists() for name in there)
