"""Calls that go on without their client, and streams that are read again, with real processes."""

from __future__ import annotations

import contextlib
import re
from concurrent.futures import ThreadPoolExecutor
from threading import Barrier
from typing import Any

import pytest
import requests

from tests.support.stack import PATIENCE_SECONDS, Stack, events, reserved_port, until

CHAT, MESSAGES = "/chat/completions", "/messages"
STREAMS = 50


def post(stack: Stack, path: str, text: str, **more: Any) -> requests.Response:
    headers = stack.headers(**more.pop("headers", {}))
    body = {
        "model": more.pop("model", "fake/stream-60-10"),
        "max_tokens": 99,
        "messages": [{"role": "user", "content": text}],
        **more,
    }
    return requests.post(
        stack.url + path, json=body, headers=headers, timeout=PATIENCE_SECONDS, stream=True
    )


def get(stack: Stack, path: str, **headers: str) -> requests.Response:
    return requests.get(
        stack.url + path, headers=stack.headers(**headers), timeout=PATIENCE_SECONDS, stream=True
    )


def without_comments(response: requests.Response) -> bytes:
    return re.sub(rb"^:.*\n\n", b"", response.content, flags=re.MULTILINE)


def test_an_asynchronous_call_is_where_its_location_says(stack: Stack) -> None:
    for path in (CHAT, MESSAGES):
        response = post(stack, path, "async", headers={"Prefer": "respond-async"})
        assert response.status_code == 202
        assert response.headers["Preference-Applied"] == "respond-async"
        call_id = response.headers["X-Generation-Id"]
        assert response.headers["Location"] == f"/inference/v1/generations/{call_id}"
        assert response.json()["data"]["id"] == call_id
        call = get(stack, f"/generations/{call_id}?wait=60").json()["data"]
        assert (call["status"], call["error"]) == ("completed", None)
        assert call_id in call["response"]["id"]
        assert get(stack, f"/generations/{call_id}/stream").status_code == 404  # not streamed


def test_background_is_the_same_and_wait_saves_the_way(stack: Stack) -> None:
    response = post(stack, CHAT, "background", background=True)
    assert response.status_code == 202
    headers = {"Prefer": "respond-async, wait=60"}
    response = post(stack, CHAT, "in time", headers=headers)
    assert response.status_code == 200
    assert response.json()["choices"]


def test_a_resumable_stream_is_read_again_byte_by_byte(stack: Stack) -> None:
    for path in (CHAT, MESSAGES):
        response = post(stack, path, "again", stream=True, headers={"X-Resumable": "true"})
        call_id = response.headers["X-Generation-Id"]
        first = without_comments(response)
        numbers = [int(n) for n in re.findall(rb"^id: %b:(\d+)$" % call_id.encode(), first, re.M)]
        assert numbers == list(range(len(numbers)))
        assert without_comments(get(stack, f"/generations/{call_id}/stream")) == first
        middle = len(numbers) // 2
        start = first.index(b"id: %b:%d\n" % (call_id.encode(), middle + 1))
        rest = get(stack, f"/generations/{call_id}/stream?starting_after={middle}")
        assert without_comments(rest) == first[start:]
        rest = get(
            stack, f"/generations/{call_id}/stream", **{"Last-Event-ID": f"{call_id}:{middle}"}
        )
        assert without_comments(rest) == first[start:]


def test_a_resumable_stream_goes_on_when_its_client_leaves(stack: Stack) -> None:
    response = post(stack, CHAT, "leaves", stream=True, headers={"X-Resumable": "true"})
    call_id = response.headers["X-Generation-Id"]
    assert next(events(response))
    response.close()
    rest = without_comments(get(stack, f"/generations/{call_id}/stream?starting_after=0"))
    assert rest.startswith(b"id: %b:1\n" % call_id.encode())
    assert rest.endswith(b"data: [DONE]\n\n")
    until(lambda: get(stack, f"/generations/{call_id}").json()["data"]["settled_at"])
    assert get(stack, f"/generations/{call_id}").json()["data"]["status"] == "completed"


def test_a_call_is_cancelled_and_all_who_follow_it_learn_it(stack: Stack) -> None:
    response = post(
        stack, CHAT, "cancel", stream=True, model="fake/slow-60", headers={"X-Resumable": "true"}
    )
    call_id = response.headers["X-Generation-Id"]
    assert next(events(response))
    follower = get(stack, f"/generations/{call_id}/stream")
    cancel = f"{stack.url}/generations/{call_id}/cancel"
    for _ in range(2):
        data = requests.post(cancel, headers=stack.headers(), timeout=PATIENCE_SECONDS).json()
        assert data["data"]["status"] == "cancelled"
    last = without_comments(follower)
    assert b"client_closed_request" in last
    assert last.endswith(response.content[-200:])


def test_another_key_sees_nothing(stack: Stack) -> None:
    response = post(stack, CHAT, "mine", stream=True, headers={"X-Resumable": "true"})
    path = f"{stack.url}/generations/{response.headers['X-Generation-Id']}"
    other = {"Authorization": f"Bearer {stack.keys.create('other')}"}
    for method, address in (("GET", path), ("GET", f"{path}/stream"), ("POST", f"{path}/cancel")):
        response = requests.request(method, address, headers=other, timeout=PATIENCE_SECONDS)
        assert response.status_code == 404
        assert response.json()["error"]["code"] == "generation_not_found"


@pytest.mark.slow
def test_streams_whose_web_process_is_killed_are_read_on_from_another(stack: Stack) -> None:
    with reserved_port() as port:
        web, url = stack.start_web(port), f"http://127.0.0.1:{port}/inference/v1"
        until(lambda: answers(url))
        with ThreadPoolExecutor(STREAMS) as threads:
            begun = Barrier(STREAMS + 1)
            jobs = [threads.submit(read_until_cut, stack, url, i, begun) for i in range(STREAMS)]
            begun.wait()
            web.kill()
            cut = [job.result() for job in jobs]
        for call_id, text in cut:
            before = text[: text.rindex(b"\n\n") + 2]  # an event may be cut in the middle
            last = re.findall(rb"^id: (\S+)$", before, re.M)[-1].decode()
            rest = get(stack, f"/generations/{call_id}/stream", **{"Last-Event-ID": last})
            again = before + without_comments(rest)
            assert again.endswith(b"data: [DONE]\n\n")
            assert b"error" not in again
            assert again == without_comments(get(stack, f"/generations/{call_id}/stream"))


def answers(url: str) -> bool:
    try:
        return requests.get(f"{url}/health", timeout=PATIENCE_SECONDS).status_code == 200
    except requests.ConnectionError:
        return False


def read_until_cut(stack: Stack, url: str, number: int, begun: Barrier) -> tuple[str, bytes]:
    """The id of a resumable stream, and what has come of it when its connection broke."""
    response = requests.post(
        f"{url}{CHAT}",
        json={
            "model": "fake/stream-100-30",
            "messages": [{"role": "user", "content": f"cut {number}"}],
            "stream": True,
        },
        headers=stack.headers(**{"X-Resumable": "true"}),
        timeout=PATIENCE_SECONDS,
        stream=True,
    )
    pieces, waited = [], False
    with contextlib.suppress(requests.RequestException):
        for piece in response.iter_content(None):
            pieces.append(piece)
            if not waited and b"".join(pieces).count(b"\n\n") > 3:
                waited = True
                begun.wait()
    text = re.sub(rb"^:.*\n\n", b"", b"".join(pieces), flags=re.MULTILINE)
    return response.headers["X-Generation-Id"], text
