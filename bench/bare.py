"""The bare proxy: what Flask and requests alone cost. No keys, no checks, no queue."""

from gevent import monkey

monkey.patch_all()

import os  # noqa: E402

import requests  # noqa: E402
from flask import Flask, Response, request  # noqa: E402

app = Flask(__name__)
session = requests.Session()
session.mount("http://", requests.adapters.HTTPAdapter(pool_maxsize=1000))
URL = os.environ["BENCH_UPSTREAM"] + "/chat/completions"
HEADERS = {"Content-Type": "application/json", "Authorization": "Bearer sk-upstream"}


@app.post("/v1/chat/completions")
def chat() -> Response:
    """Ask the upstream and pass its answer on, in the pieces in which it arrives."""
    answer = session.post(URL, data=request.get_data(), headers=HEADERS, stream=True, timeout=600)
    kind = answer.headers["Content-Type"]
    if not kind.startswith("text/event-stream"):
        return Response(answer.content, answer.status_code, mimetype=kind)
    pieces = iter(lambda: answer.raw.read1(65536), b"")
    return Response(pieces, answer.status_code, mimetype="text/event-stream")
