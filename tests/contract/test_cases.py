"""Every dialect against its cases: a folder each, with what is asked, sent, said and answered.

call.json with request.json        what the upstream must be sent
response.json, response.sse        what it says, whole and streamed ...
  with answer.json                 ... and what the caller must get, both ways
  with error.json                  ... or the error that it must get
response.STATUS.json, error.json   a refusal (its headers, if any, in headers.json)
source.txt                         where the wire text comes from
"""

import json
from pathlib import Path

import pytest

from gateway.chat import ChatCall, fold
from gateway.errors import GatewayError, UpstreamTruncated
from providers.anthropic.wire import AnthropicWire
from providers.http.sse import EventSplitter
from providers.openai.chat import OpenAIWire

CASES = Path(__file__).parent / "cases"

WIRES = {
    "openai": OpenAIWire("https://api.openai.com/v1", "sk-operator-key"),
    "anthropic": AnthropicWire("https://api.anthropic.com", "sk-ant-operator-key"),
}

# No provider may lack these.
REQUIRED = set(
    # conversations
    "text system system_only multi_turn"
    # tools
    " tool_call tool_calls tool_results forced_tool tool_without_arguments thinking_tool_use"
    # what is shown, and how the answer is to look
    " image_data image_url json_schema"
    # ends
    " stop_sequence length refusal cached_prompt"
    # streams
    " line_separator ping_and_unknown_events error_in_stream throttled_in_stream cut_stream"
    # refusals: a case for each status that a provider documents
    " bad_request context_length wrong_key not_permitted unknown_model too_large throttled"
    " server_error overloaded timeout".split()
)
REQUIRED_OF = {
    "openai": set(
        "content_filter two_choices logprobs quota no_country bad_gateway slow_down audio"
        " audio_and_file_parts annotations reasoning_by_its_other_name no_choices no_end_marker"
        " no_finish_reason extensions_of_others tool_result_with_image".split()
    ),
    "anthropic": set(
        "two_choices no_credit pause output_limit file_pdf file_text cache_control"
        " cached_prompt_by_ttl citations thinking_redacted thinking_replayed thinking_adaptive"
        " timeout_in_stream server_error_in_stream tool_result_with_image temperature_and_top_p"
        " assistant_first".split()
    ),
}


def having(*patterns):
    """The cases with a file of each pattern."""
    folders = sorted(path.parent for path in CASES.glob("*/*/source.txt"))
    found = [f for f in folders if all(any(f.glob(pattern)) for pattern in patterns)]
    return [pytest.param(f, WIRES[f.parent.name], id=f"{f.parent.name}-{f.name}") for f in found]


def read(path):
    return json.loads(path.read_text("utf-8"))


def stream(wire, pieces):
    splitter, decoder = EventSplitter(), wire.decoder()
    for events in (*map(splitter.feed, pieces), splitter.close()):
        for event, data in events:
            yield from decoder.feed(event, data)
    if not decoder.finished:
        raise UpstreamTruncated()


@pytest.mark.parametrize(("case", "wire"), having("request.json"))
def test_the_request_is_what_the_upstream_wants(case, wire):
    request = wire.request(ChatCall(**read(case / "call.json")))
    assert json.loads(request.body) == read(case / "request.json")


@pytest.mark.parametrize(("case", "wire"), having("response.json", "answer.json"))
def test_the_whole_answer_is_the_answer(case, wire):
    assert wire.answer(read(case / "response.json")) == read(case / "answer.json")


@pytest.mark.parametrize(("case", "wire"), having("response.sse", "answer.json"))
def test_the_stream_adds_up_to_the_answer_however_it_is_cut(case, wire):
    body = (case / "response.sse").read_bytes()
    answer = read(case / "answer.json")
    assert fold(stream(wire, [body])) == answer
    assert fold(stream(wire, (bytes([byte]) for byte in body))) == answer
    assert fold(stream(wire, [body.replace(b"\n", b"\r\n")])) == answer


@pytest.mark.parametrize(("case", "wire"), having("response.sse"))
def test_each_choice_of_a_stream_has_one_role_and_at_most_one_end(case, wire):
    roles, ends = [], []
    try:
        for part in stream(wire, [(case / "response.sse").read_bytes()]):
            roles += [c["index"] for c in part["choices"] if "role" in c["delta"]]
            ends += [c["index"] for c in part["choices"] if c["finish_reason"]]
    except GatewayError:
        assert (case / "error.json").exists()
    assert len(set(roles)) == len(roles)
    assert len(set(ends)) == len(ends)
    assert (case / "error.json").exists() or sorted(ends) == sorted(roles)


@pytest.mark.parametrize(("case", "wire"), having("error.json"))
def test_what_goes_wrong_becomes_the_callers_error(case, wire):
    with pytest.raises(GatewayError) as caught:
        if (case / "call.json").exists():
            wire.request(ChatCall(**read(case / "call.json")))
        elif (case / "response.sse").exists():
            list(stream(wire, [(case / "response.sse").read_bytes()]))
        elif (case / "response.json").exists():
            wire.answer(read(case / "response.json"))
        else:
            (refusal,) = case.glob("response.*.json")
            headers = read(case / "headers.json") if (case / "headers.json").exists() else {}
            raise wire.error(int(refusal.name.split(".")[1]), refusal.read_bytes(), headers)
    expected = read(case / "error.json")
    assert {key: caught.value.to_dict()[key] for key in expected} == expected
    assert "operator-key" not in caught.value.message


@pytest.mark.parametrize("provider", WIRES)
def test_no_provider_lacks_a_case(provider):
    there = {folder.name for folder in (CASES / provider).iterdir()}
    assert REQUIRED | REQUIRED_OF[provider] <= there
    assert all((CASES / provider / name / "source.txt").exists() for name in there)
