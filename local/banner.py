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
    """Return a shell command that sends the documented question to `model`."""
    body: dict[str, object] = {"model": model, "messages": MESSAGES, "temperature": 0}
    if stream:
        body["stream"] = True
    command = ["curl", *(["-N"] if stream else []), f"{base_url}/chat/completions"]
    command += ["-H", f"Authorization: Bearer {key}", "-H", "Content-Type: application/json"]
    return shlex.join([*command, "-d", json.dumps(body)])


def banner(base_url: str, key: str, model: str, notes: Sequence[str], link: str) -> str:
    """Return the lines to print: the address, the console, the notes, and two calls to paste.

    `link` is the token of a link that signs in to the console once.
    """
    rule = "-" * 78
    lines = ["", rule, f"Ready: {base_url}   (Ctrl-C finishes running calls and stops everything)"]
    lines += [
        f"Console: {urljoin(base_url, '/console/sign-in')}?link={link}   (signs you in once)",
        f"Documentation: {urljoin(base_url, '/')}",
        "Another key: make key NAME=me",
        *notes,
        "",
    ]
    lines += ["A call:", curl(base_url, key, model), ""]
    lines += ["A stream:", curl(base_url, key, model, stream=True), rule, ""]
    return "\n".join(lines) + "\n"
