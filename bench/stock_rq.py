"""Stock RQ: one forked process a job, the answer read from the job's result stream."""

from gevent import monkey

monkey.patch_all()

import os  # noqa: E402

import requests  # noqa: E402
from flask import Flask, Response, request  # noqa: E402
from redis import BlockingConnectionPool, Redis  # noqa: E402
from rq import Queue  # noqa: E402

URL = os.environ["BENCH_UPSTREAM"] + "/chat/completions"
HEADERS = {"Content-Type": "application/json", "Authorization": "Bearer sk-upstream"}
WAIT_SECONDS = 60

pool = BlockingConnectionPool.from_url(
    os.environ["REDIS_URL"], max_connections=300, timeout=60, socket_timeout=None
)
queue = Queue("bench", connection=Redis(connection_pool=pool))
app = Flask(__name__)


def ask(body: bytes) -> bytes:
    """The job: one call of the upstream."""
    return requests.post(URL, data=body, headers=HEADERS, timeout=600).content


@app.post("/v1/chat/completions")
def chat() -> Response:
    """Queue the call and wait for its result. Stock RQ has no way to hand on a stream."""
    if b'"stream":true' in request.get_data():
        return Response('{"error":{"message":"no streams"}}', 501, mimetype="application/json")
    job = queue.enqueue("bench.stock_rq.ask", request.get_data(), result_ttl=60)
    result = job.latest_result(timeout=WAIT_SECONDS)
    if result is None or result.return_value is None:
        return Response('{"error":{"message":"failed"}}', 502, mimetype="application/json")
    return Response(result.return_value, mimetype="application/json")
