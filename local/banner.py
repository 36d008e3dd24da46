"""What `make run` prints once the service is ready."""

from __future__ import annotations

import json
import shlex
from collections.abc import Sequence
from urllib.parse import urljoin

MESSAGES = [
    {"role": "system", "content": "You are a helpful assistant."},
    {"role": "user", "content": "What is the capital of France?"},
]


def curl(base_url: str, key: str, model: str, *, stream: bool = False) -> str:
    """A shell command that asks `model` the documented question."""
    body: dict[str, object] = {"model": model, "messages": MESSAGES, "temperature": 0}
    if stream:
        body["stream"] = True
    command = ["curl", *(["-N"] if stream else []), f"{base_url}/chat/completions"]
    command += ["-H", f"Authorization: Bearer {key}", "-H", "Content-Type: application/json"]
    return shlex.join([*command, "-d", json.dumps(body)])


def banner(base_url: str, key: str, model: str, notes: Sequence[str]) -> str:
    """The lines to print: where the service is, what is special, and two calls to paste."""
    rule = "-" * 78
    lines = ["", rule, f"Ready: {base_url}   (Ctrl-C stops everything)"]
    lines += [
        f"Documentation: {urljoin(base_url, '/')}",
        "Another key: make key NAME=me",
        *notes,
        "",
    ]
    lines += ["An answer:", curl(base_url, key, model), ""]
    lines += ["A stream:", curl(base_url, key, model, stream=True), rule, ""]
    return "\n".join(lines) + "\n"
