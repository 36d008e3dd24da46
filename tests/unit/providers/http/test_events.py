"""providers/http/events.py: events that are not parsed give what parsing them would."""

from __future__ import annotations

import json
from collections.abc import Iterable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.chat import Chunk
from gateway.errors import UpstreamError
from providers.anthropic.stream import AnthropicDecoder
from providers.http.events import EventReader
from providers.http.sse import EventSplitter
from providers.openai.chat import OpenAIDecoder


class Counting(OpenAIDecoder):
    """A decoder that notes the events that it is given."""

    def __init__(self) -> None:
        super().__init__()
        self.events: list[str] = []

    def feed(self, event: str, data: str) -> Iterable[Chunk]:
        self.events.append(data)
        return super().feed(event, data)


def event(choice: dict[str, object], ascii_only: bool = False, **fields: object) -> bytes:
    body = {"id": "c-1", "model": "m", "choices": [{"index": 0, **choice}], **fields}
    return b"data: " + json.dumps(body, ensure_ascii=ascii_only).encode() + b"\n\n"


def delta(text: str, **fields: object) -> bytes:
    return event({"delta": {"content": text}, "finish_reason": None}, **fields)


def parsed(decoder, stream: bytes) -> tuple[list[Chunk], str]:
    """What a decoder makes of a stream of which every event is parsed."""
    chunks: list[Chunk] = []
    splitter = EventSplitter()
    try:
        for name, data in [*splitter.feed(stream), *splitter.close()]:
            chunks.extend(decoder.feed(name, data))
    except UpstreamError as error:
        return chunks, error.code
    return chunks, ""


def read(decoder, *pieces: bytes) -> tuple[list[Chunk], str]:
    """What the reader makes of a stream that comes in these pieces."""
    chunks: list[Chunk] = []
    reader = EventReader(decoder)
    try:
        for piece in (*pieces, b""):
            reader.feed(piece, chunks)
    except UpstreamError as error:
        return chunks, error.code
    return chunks, ""


TEXTS = st.one_of(
    st.sampled_from(["a", "b", " c", "c-1", "m", "content", "index", "data", "", '"', "\\", "\n",
                     "é", "\u2028", "\x7f", "😀", "data: x", "\\u0041", 'a","b":"c']),
    st.text(max_size=5),
)  # fmt: skip
EVENTS = st.one_of(
    TEXTS.map(delta),
    TEXTS.map(delta),
    TEXTS.map(lambda text: delta(text, ascii_only=True)),
    TEXTS.map(lambda text: delta(text, system_fingerprint="f")),
    TEXTS.map(lambda text: delta("same", system_fingerprint=text)),
    TEXTS.map(lambda text: delta(text, usage={"prompt_tokens": 1, "completion_tokens": 2})),
    TEXTS.map(lambda text: event({"delta": {"role": "assistant", "content": text}})),
    TEXTS.map(lambda text: event({"delta": {"content": [{"type": "text", "text": text}]}})),
    TEXTS.map(lambda text: event({"delta": {"reasoning": text, "content": ""}})),
    TEXTS.map(lambda text: event({"index": 1, "delta": {"content": text}})),
    TEXTS.map(lambda text: event({"delta": {"content": text}, "finish_reason": "stop"})),
    TEXTS.map(lambda text: event({"delta": {"content": text}, "logprobs": {"content": []}})),
    st.sampled_from([b": ping\n\n", b"data: {}\n\n", b"id: 7\n", b"event: message\n", b"\n",
                     b'data: {"error": {"message": "no"}}\n\n', b"data: [DONE]\n\n"]),
)  # fmt: skip


@settings(max_examples=100)
@given(
    st.lists(EVENTS, max_size=12),
    st.lists(st.integers(0, 2_000), max_size=6),
    st.sampled_from([b"\n", b"\r\n"]),
    st.booleans(),
)
def test_a_stream_gives_the_same_chunks_as_if_each_event_were_parsed(events, cuts, end, apart):
    events = [each.replace(b"\n", end) for each in events]
    stream = b"".join(events)
    pieces = [each for each in events if each]
    if not apart:
        at = sorted({0, len(stream), *(min(cut, len(stream)) for cut in cuts)})
        pieces = [stream[a:b] for a, b in zip(at, at[1:], strict=False)]
    assert read(OpenAIDecoder(), *pieces) == parsed(OpenAIDecoder(), stream)


def test_an_event_that_is_like_two_before_it_is_not_parsed():
    decoder = Counting()
    texts = ["one", "two", "three", "four", "five"]
    chunks, _ = read(decoder, delta("zero"), *map(delta, texts[:3]), *[delta("x") + delta("y")])
    assert [chunk["choices"][0]["delta"].get("content") for chunk in chunks] == [
        "zero", "one", "two", "three", "x", "y",
    ]  # fmt: skip
    assert len(decoder.events) == 3, "the first has the role; two more show the rest"


def test_a_text_with_escapes_is_parsed_and_those_after_it_are_not():
    decoder = Counting()
    read(decoder, *map(delta, ["0", "1", "2", "3", '"\n', "4", "5"]))
    assert [json.loads(data)["choices"][0]["delta"]["content"] for data in decoder.events] == [
        "0", "1", "2", '"\n',
    ]  # fmt: skip


@pytest.mark.parametrize("trap", ["content", "c-1", "0", "null"])
def test_a_text_that_another_field_has_too_is_not_mistaken_for_it(trap):
    stream = [delta(text) for text in ("x", "y", trap, "z", trap, trap, "w")]
    assert read(OpenAIDecoder(), *stream) == parsed(OpenAIDecoder(), b"".join(stream))


def test_a_field_that_changes_beside_the_same_text_is_not_mistaken_for_the_text():
    stream = [
        b'data: {"id":"%b","choices":[{"index":0,"delta":{"content":"\\u0041"}}]}\n\n' % ident
        for ident in (b"x", b"A", b"B", b"A", b"C", b"D")
    ]
    chunks, _ = read(OpenAIDecoder(), *stream)
    assert {chunk["choices"][0]["delta"]["content"] for chunk in chunks} == {"A"}


def test_bytes_that_are_no_utf_8_are_replaced():
    stream = [delta(text) for text in ("x", "y", "z")]
    stream.append(stream[-1].replace(b'"z"', b'"\xff"'))
    chunks, _ = read(OpenAIDecoder(), *stream)
    assert chunks[-1]["choices"][0]["delta"]["content"] == "\ufffd"


@pytest.mark.parametrize("as_json", [False, True])
def test_anthropics_events_are_read_alike(as_json):
    texts = ["Hello", " there", ",", " {", "} not", " any", " more"]
    stream = [
        b"event: content_block_delta\ndata: "
        + json.dumps(
            {
                "type": "content_block_delta",
                "index": 0,
                "delta": {"type": "text_delta", "text": text},
            }
        ).encode()
        + b"\n\n"
        for text in texts
    ]
    expected = parsed(AnthropicDecoder(json=as_json), b"".join(stream))
    assert read(AnthropicDecoder(json=as_json), *stream) == expected
