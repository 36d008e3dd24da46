"""Responses that are kept, in the background and not, read by OpenAI's own client."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import openai
import pytest

from tests.support.stack import PATIENCE_SECONDS, Stack, until

STREAM, SLOW = "fake/stream-60-10", "fake/slow-60"


@pytest.fixture
def client(stack: Stack) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(
        base_url=stack.url, api_key=stack.key, max_retries=0, timeout=PATIENCE_SECONDS
    ) as client:
        yield client


def ended(client: openai.OpenAI, response_id: str) -> Any:
    """The response once it has ended."""
    until(lambda: client.responses.retrieve(response_id).status not in ("queued", "in_progress"))
    return client.responses.retrieve(response_id)


def plain(response: Any) -> dict[str, Any]:
    return response.model_dump(mode="json", exclude={"id", "created_at", "completed_at", "output"})


def test_a_background_response_is_queued_and_completed_later(client: openai.OpenAI) -> None:
    queued = client.responses.create(model=STREAM, input="later", background=True)
    assert (queued.status, queued.background, queued.output) == ("queued", True, [])
    response = ended(client, queued.id)
    assert (response.status, response.error) == ("completed", None)
    assert response.output_text
    assert response.usage is not None and response.usage.output_tokens
    waited = client.responses.create(model=STREAM, input="later")
    assert response.output_text == waited.output_text
    same = {"status": "completed", "background": False}
    assert {**plain(response), **same} == plain(waited)


def test_who_leaves_at_the_first_event_finds_the_response_completed(
    client: openai.OpenAI,
) -> None:
    with client.responses.create(model=STREAM, input="go", background=True, stream=True) as stream:
        first = next(iter(stream))
    assert (first.type, first.response.status) == ("response.created", "queued")
    response = ended(client, first.response.id)
    assert (response.status, bool(response.output_text)) == ("completed", True)


def test_a_background_stream_is_taken_up_after_any_event(client: openai.OpenAI) -> None:
    with client.responses.create(model=STREAM, input="go", background=True, stream=True) as stream:
        events = list(stream)
    assert [event.sequence_number for event in events] == list(range(len(events)))
    kinds = [event.type for event in events]
    assert kinds[:3] == ["response.created", "response.queued", "response.in_progress"]
    assert kinds[-1] == "response.completed"
    response_id = events[0].response.id
    for after in (0, 1, 2, len(events) // 2):
        with client.responses.retrieve(response_id, stream=True, starting_after=after) as stream:
            assert list(stream) == events[after + 1 :]
    assert client.responses.retrieve(response_id) == events[-1].response


def test_a_background_response_is_cancelled_at_its_provider(
    stack: Stack, client: openai.OpenAI
) -> None:
    response = client.responses.create(model=SLOW, input="stop me", background=True, stream=False)
    until(lambda: client.responses.retrieve(response.id).status == "in_progress")
    for _ in range(2):
        assert client.responses.cancel(response.id).status == "cancelled"
    assert client.responses.retrieve(response.id).error is None


def test_only_background_responses_are_cancelled(client: openai.OpenAI) -> None:
    response = client.responses.create(model=STREAM, input="stay", store=True)
    with pytest.raises(openai.BadRequestError, match="background"):
        client.responses.cancel(response.id)


def test_a_background_response_that_fails_says_why(client: openai.OpenAI) -> None:
    queued = client.responses.create(model="fake/status-400", input="fail", background=True)
    response = ended(client, queued.id)
    assert response.status == "failed"
    assert response.error is not None and response.error.message
    with client.responses.create(
        model="fake/status-400", input="fail", background=True, stream=True
    ) as stream:
        kinds = [event.type for event in _until_error(stream)]
    assert kinds[:2] == ["response.created", "response.queued"]


def _until_error(stream: Any) -> Iterator[Any]:
    try:
        yield from stream
    except openai.APIError:
        return


def test_a_conversation_goes_on_from_a_stored_response(stack: Stack, client: openai.OpenAI) -> None:
    first = client.responses.create(model=STREAM, input="one", store=True)
    assert first.store is True
    second = client.responses.create(
        model=STREAM, input="two", store=True, previous_response_id=first.id
    )
    assert second.previous_response_id == first.id
    page = client.responses.input_items.list(second.id, order="asc")
    items = [(item.type, getattr(item, "role", "")) for item in page.data]
    assert items == [("message", "user"), ("message", "assistant"), ("message", "user")]
    texts = [item.content[0].text for item in page.data]
    assert texts == ["one", first.output_text, "two"]
    newest = client.responses.input_items.list(second.id, limit=1)
    assert newest.data[0].content[0].text == "two"
    assert newest.has_more
    assert len(list(newest)) == 3  # the client asks for the other pages


def test_a_response_that_was_deleted_or_not_stored_is_not_found(client: openai.OpenAI) -> None:
    response = client.responses.create(model=STREAM, input="forget", store=True)
    assert client.responses.retrieve(response.id).output_text == response.output_text
    client.responses.delete(response.id)
    unstored = client.responses.create(model=STREAM, input="forget")
    for response_id in (response.id, unstored.id, "resp_x"):
        with pytest.raises(openai.NotFoundError):
            client.responses.retrieve(response_id)
        with pytest.raises(openai.BadRequestError, match="Previous response"):
            client.responses.create(model=STREAM, input="a", previous_response_id=response_id)


def test_another_key_does_not_find_it(stack: Stack, client: openai.OpenAI) -> None:
    response = client.responses.create(model=STREAM, input="mine", store=True)
    with openai.OpenAI(
        base_url=stack.url, api_key=stack.keys.create("other"), max_retries=0
    ) as other:
        for call in (
            other.responses.retrieve,
            other.responses.cancel,
            other.responses.delete,
            other.responses.input_items.list,
        ):
            with pytest.raises(openai.NotFoundError):
                call(response.id)


def test_nothing_is_kept_of_a_response_that_a_limit_refuses(stack: Stack) -> None:
    before = set(stack.redis.scan_iter("gw:log:*"))
    with openai.OpenAI(
        base_url=stack.url, api_key=stack.keys.create("poor", limit=0), max_retries=0
    ) as poor:
        for background in (False, True):
            with pytest.raises(openai.RateLimitError):
                poor.responses.create(
                    model=STREAM, input="x" * 100_000, store=True, background=background
                )
    assert set(stack.redis.scan_iter("gw:log:*")) == before
