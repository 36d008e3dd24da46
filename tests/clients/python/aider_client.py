"""aider, as people run it: one message on the command line, in a repository of its own."""

import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from cells import BASE_URL, ENDLESS, KEY, QUESTION, provider_calls

HOME = Path(tempfile.mkdtemp())
# It takes long to start.
CELL_SECONDS = QUICK_SECONDS = 120

NO_TOOLS = "aider calls no tools"
NOT = {
    "tools": NO_TOOLS,
    "streamed_tools": NO_TOOLS,
    "structured": "aider reads edits out of text",
    "json_mode": "aider reads edits out of text",
    "usage": "aider counts by itself",
    "image": "only models in aider's own list take images",
}


class Refused(Exception):
    """aider prints its errors."""


AUTH_ERROR = NOT_FOUND_ERROR = Refused


def command(model, prompt, *more, key=KEY):
    caches = HOME / ".aider" / "caches"
    caches.mkdir(parents=True, exist_ok=True)  # with a list of prices, else it asks for one
    (caches / "model_prices_and_context_window.json").write_text('{"none": {}}')
    folder = tempfile.mkdtemp(dir=HOME)
    env = {
        "PATH": os.environ["PATH"],
        "HOME": str(HOME),
        "OPENAI_API_BASE": BASE_URL,
        "OPENAI_API_KEY": key,
        "LITELLM_LOCAL_MODEL_COST_MAP": "True",
        "NO_PROXY": "127.0.0.1",
        "HTTPS_PROXY": "http://127.0.0.1:9",
    }
    words = ["-m", "aider", "--model", f"openai/{model}", "--message", prompt, "--no-git"]
    words += [
        "--yes-always",
        "--no-show-model-warnings",
        "--no-check-update",
        "--analytics-disable",
    ]
    words += ["--no-pretty", "--no-detect-urls", "--no-show-release-notes"]
    words += ["--edit-format", "ask", *more]
    output = subprocess.PIPE
    return subprocess.Popen(
        [sys.executable, *words], cwd=folder, env=env, stdout=output, stderr=subprocess.STDOUT
    )


def printed(process):
    text = process.communicate(timeout=CELL_SECONDS)[0].decode()
    for name in ("AuthenticationError", "NotFoundError"):
        if name in text:
            raise Refused(text)
    return text


def whole(model, key=KEY):
    text = printed(command(model, QUESTION, "--no-stream", key=key))
    answer = "Paris is the capital of France."
    return answer if answer in text else text


def streamed(model):
    text = printed(command(model, QUESTION, "--stream"))
    answer = "Paris is the capital of France."
    return ["Paris ", "is the capital", " of France."] if answer in text else [text]


def cancel(model):
    process = command(model, ENDLESS, "--stream")
    end = time.monotonic() + CELL_SECONDS
    while not provider_calls() and process.poll() is None and time.monotonic() < end:
        time.sleep(0.1)
    process.kill()
    process.communicate()
