"""local/banner.py: the lines to paste."""

from __future__ import annotations

import json
import shlex
import subprocess

import pytest

from local.banner import banner, curl

BASE = "http://127.0.0.1:8000/inference/v1"


@pytest.mark.parametrize("stream", [False, True])
def test_a_shell_takes_the_line_apart_as_meant(stream: bool) -> None:
    line = curl(BASE, "mk_inference_abc", "demo/echo", stream=stream)

    words = shlex.split(line)
    assert words[0] == "curl"
    assert f"{BASE}/chat/completions" in words
    assert "Authorization: Bearer mk_inference_abc" in words
    assert ("-N" in words) == stream
    body = json.loads(words[words.index("-d") + 1])
    assert body["model"] == "demo/echo"
    assert body["temperature"] == 0
    assert body.get("stream", False) == stream
    assert [message["role"] for message in body["messages"]] == ["system", "user"]


def test_a_quote_in_a_value_survives_the_shell() -> None:
    line = curl(BASE, "it's", "demo/$HOME`id`")

    shown = subprocess.run(
        ["sh", "-c", line.replace("curl", "printf '%s\\n'", 1)], capture_output=True, text=True
    ).stdout

    assert "Bearer it's\n" in shown
    assert '"demo/$HOME`id`"' in shown


def test_the_banner_holds_the_address_the_notes_and_both_lines() -> None:
    lines = banner(BASE, "key", "demo/echo", ["Port 8000 is taken."], "token").splitlines()

    assert any(BASE in line and "Ready" in line for line in lines)
    assert (
        "Console: http://127.0.0.1:8000/console/sign-in?link=token   (signs you in once)" in lines
    )
    assert "Documentation: http://127.0.0.1:8000/" in lines
    assert "Another key: make key NAME=me" in lines
    assert "Port 8000 is taken." in lines
    assert curl(BASE, "key", "demo/echo") in lines
    assert curl(BASE, "key", "demo/echo", stream=True) in lines
