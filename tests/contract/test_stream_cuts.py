"""However the network cuts a stream, and whatever is in it, the same chunks come out."""

import json

from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.chat import fold
from gateway.errors import GatewayError
from providers.http.sse import EventSplitter
from tests.support.cases import CONTRACT, http_providers

WIRES = {name: provider.wire for name, provider in http_providers().items()}
STREAMS = sorted((CONTRACT / "cases").glob("*/*/response.sse"))

# Line ends that are none in server-sent events, halves of what looks like an event, and the rest.
TEXTS = st.lists(
    st.text(st.characters(exclude_categories=["Cs"]), max_size=8)
    | st.sampled_from(["\u2028", "\u2029", "\x85", "\n\n", "\r", "data: [DONE]", "event: error"]),
    max_size=6,
)
LINE_ENDS = st.sampled_from([b"\n", b"\r\n", b"\r"])


def decoded(wire, pieces):
    """All chunks of a stream, and the error that ended it, if one did."""
    splitter, decoder = EventSplitter(), wire.decoder()
    chunks = []
    try:
        for events in (*map(splitter.feed, pieces), splitter.close()):
            for event, data in events:
                chunks += decoder.feed(event, data)
    except GatewayError as error:
        return chunks, error.to_dict()
    return chunks, decoder.finished


def cut(body, offsets):
    ends = sorted({min(offset, len(body)) for offset in offsets} | {0, len(body)})
    return [body[start:end] for start, end in zip(ends, ends[1:], strict=False)]


@settings(max_examples=200, deadline=None)
@given(st.sampled_from(STREAMS), st.lists(st.integers(0, 4000), max_size=12), LINE_ENDS)
def test_a_cases_stream_says_the_same_however_it_is_cut(path, offsets, end):
    wire = WIRES[path.parts[-3]]
    whole = path.read_bytes()
    body = whole.replace(b"\r\n", b"\n").replace(b"\n", end)
    assert decoded(wire, cut(body, offsets)) == decoded(wire, [whole])


def openai_stream(texts, ascii_only):
    deltas = [{"role": "assistant", "content": ""}, *({"content": text} for text in texts)]
    chunks = [{"choices": [{"index": 0, "delta": d, "finish_reason": None}]} for d in deltas]
    chunks.append({"choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]})
    lines = [json.dumps(chunk, ensure_ascii=ascii_only) for chunk in chunks]
    return "".join(f"data: {line}\n\n" for line in [*lines, "[DONE]"]).encode()


def anthropic_stream(texts, ascii_only):
    events = [
        {"type": "content_block_start", "index": 0, "content_block": {"type": "text", "text": ""}},
        *(
            {
                "type": "content_block_delta",
                "index": 0,
                "delta": {"type": "text_delta", "text": text},
            }
            for text in texts
        ),
        {"type": "message_delta", "delta": {"stop_reason": "end_turn"}},
        {"type": "message_stop"},
    ]
    lines = [(event["type"], json.dumps(event, ensure_ascii=ascii_only)) for event in events]
    return "".join(f"event: {kind}\ndata: {line}\n\n" for kind, line in lines).encode()


@settings(max_examples=200, deadline=None)
@given(TEXTS, st.booleans(), st.lists(st.integers(0, 2000), max_size=12), st.data())
def test_any_text_arrives_whole(texts, ascii_only, offsets, data):
    name, stream = data.draw(
        st.sampled_from([("openai", openai_stream), ("anthropic", anthropic_stream)])
    )
    body = stream(texts, ascii_only)
    chunks, finished = decoded(WIRES[name], cut(body, offsets))
    assert finished is True
    assert (chunks, True) == decoded(WIRES[name], [body])
    content = fold(chunks)["choices"][0]["message"]["content"]
    assert (content or "") == "".join(texts)
