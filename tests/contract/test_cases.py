"""Every dialect against its cases. A case is a folder of files:

call.json with request.json        a call, and what the upstream must be sent
response.json, response.sse        what the upstream sends, whole and streamed ...
  with answer.json                 ... and what the caller must get, both ways
  with error.json                  ... or the error that the caller must get
response.STATUS.json, error.json   a refusal (its headers, if any, in headers.json)
source.txt                         where the wire text comes from

The wires are those of the table in providers/__init__.py that are called over HTTP.
"""

import json

import pytest

from gateway.chat import ChatCall, fold
from gateway.errors import GatewayError, UpstreamTruncated
from providers.http.sse import EventSplitter
from tests.support import cases
from tests.support.cases import CONTRACT, read

CASES = CONTRACT / "cases"
WIRES = {name: provider.wire for name, provider in cases.http_providers().items()}

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
REQUIRED_OF: dict[str, set[str]] = {
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
    return cases.having(CASES, WIRES, *patterns)


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
def test_a_whole_response_becomes_the_answer(case, wire):
    assert wire.response(read(case / "response.json")) == read(case / "answer.json")


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
        for chunk in stream(wire, [(case / "response.sse").read_bytes()]):
            roles += [c["index"] for c in chunk["choices"] if "role" in c["delta"]]
            ends += [c["index"] for c in chunk["choices"] if c["finish_reason"]]
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
            wire.response(read(case / "response.json"))
        else:
            raise wire.error(*cases.refusal(case))
    expected = read(case / "error.json")
    assert {key: caught.value.to_dict()[key] for key in expected} == expected
    assert cases.KEY not in caught.value.message


@pytest.mark.parametrize("provider", WIRES)
def test_no_provider_lacks_a_case(provider):
    there = {folder.name for folder in (CASES / provider).iterdir()}
    assert REQUIRED | REQUIRED_OF.get(provider, set()) <= there
    assert all((CASES / provider / name / "source.txt").exists() for name in there)
