"""Batches for tests: their lines, and a runner that runs until they have ended."""

from __future__ import annotations

from typing import Any

import gevent
import orjson

from api.batches.runner import BatchRunner
from app import PREFIX

CHAT = "/v1/chat/completions"
PATIENCE_SECONDS = 60.0


def line(custom_id: str, text: str = "hi", url: str = CHAT, **body: Any) -> bytes:
    """One request of a batch."""
    messages = [{"role": "user", "content": text}]
    request = {
        "custom_id": custom_id,
        "method": "POST",
        "url": url,
        "body": {"model": "openai/gpt-4o-mini", "messages": messages, **body},
    }
    return orjson.dumps(request) + b"\n"


def run_all(app: Any) -> None:
    """Run all batches of the app to their ends, in this process."""
    runner = BatchRunner(app, PREFIX)
    try:
        with gevent.Timeout(PATIENCE_SECONDS):
            runner.step()
            while runner.services.batches.active():
                gevent.sleep(0.01)
                runner.step()
    finally:
        runner.stop()
