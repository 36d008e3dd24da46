"""Batches under faults: each line has one answer, and runs once more at most. Row D."""

from __future__ import annotations

import time
from collections import Counter

import orjson
from openai import OpenAI

from gateway.queue import keys
from tests.faults.arena import LONG, SHORT, Arena
from tests.faults.reconciler import Allowed, nonce_of
from tests.faults.rows import row
from tests.support.batches import CHAT, line
from tests.support.stack import until

LINES = 400
SECONDS = 60.0  # for all lines, faults included


@row("D1", "kill -9 of web process and worker, and Redis restarted with its data, during a batch "
     "of 400 lines", workers=2, allowed=Allowed(broken=True, orphan_seconds=5.0))  # fmt: skip
def everything_dies_during_a_batch(arena: Arena) -> None:
    arena.steady()
    texts = [f"line {number} {arena.rng.getrandbits(48):012x}" for number in range(LINES)]
    with OpenAI(api_key=arena.key, base_url=arena.url, max_retries=0) as client:
        content = b"".join(line(text, text, model="fake/delay-150") for text in texts)
        file = client.files.create(file=("input.jsonl", content), purpose="batch")
        batch = client.batches.create(input_file_id=file.id, endpoint=CHAT, completion_window="24h")
    arena.load(LONG, deadline=10)
    arena.load(SHORT, count=60, over=4.0)
    arena.until_running()
    arena.until_called(LINES // 4)
    arena.soon(0.0, 0.5)
    running = arena.redis.zcard(keys.RQ_STARTED)
    killed = arena.kill(arena.web)
    for each in arena.here():
        each.left = each.left or killed  # whoever called has lost the connection
    arena.kill(arena.workers[0])
    arena.server.stop()
    time.sleep(1.0)
    arena.server.start()
    arena.start_worker()
    arena.new_port()
    arena.finish()
    with OpenAI(api_key=arena.key, base_url=arena.url, max_retries=0) as client:
        until(
            lambda: client.batches.retrieve(batch.id).status == "completed",
            arena.within(SECONDS),
            "the end of the batch",
        )
        batch = client.batches.retrieve(batch.id)
        results = [
            orjson.loads(text)
            for file_id in (batch.output_file_id, batch.error_file_id)
            if file_id
            for text in client.files.content(file_id).read().splitlines()
        ]
    # Calls of both killed processes end once a worker has found that they are lost.
    until(lambda: not arena.redis.zcard(keys.RQ_STARTED), arena.within(SECONDS), "their ends")
    answered = Counter(each["custom_id"] for each in results)
    arena.demand(set(answered) == set(texts), f"{len(answered)} of {LINES} lines have a result")
    arena.demand(set(answered.values()) == {1}, "a line has two results")
    called = Counter(nonce_of(call) for call in arena.upstream.log())
    again = [text for text in texts if called[text] > 1]
    arena.demand(max(called.values()) <= 2, "a line was sent to the provider three times")
    arena.demand(len(again) <= running, f"{len(again)} lines were sent to the provider twice")
    failed = Counter(
        each["response"]["body"]["error"]["code"]
        for each in results
        if each["response"]["status_code"] != 200
    )
    arena.demand(not failed, f"unexpected errors: {dict(failed)}")
    arena.notes.append(f"{LINES} lines, of which {len(again)} ran again after the worker's death")
