"""The bare proxy: what Flask and requests alone cost. No keys, no checks, no queue."""

from gevent import monkey

monkey.patch_all()

import json  # noqa: E402
import os  # noqa: E402
from collections.abc import Iterator  # noqa: E402

import requests  # noqa: E402
from flask import Flask, Response, request  # noqa: E402

app = Flask(__name__)
session = requests.Session()
session.mount("http://", requests.adapters.HTTPAdapter(pool_maxsize=1000))
URL = os.environ["BENCH_UPSTREAM"] + "/chat/completions"
HEADERS = {"Content-Type": "application/json", "Authorization": "Bearer sk-upstream"}


@app.post("/v1/chat/completions")
def chat() -> Response:
    """Call the upstream and pass on its response: whole, or event by event."""
    response = session.post(URL, data=request.get_data(), headers=HEADERS, stream=True, timeout=600)
    kind = response.headers["Content-Type"]
    if not kind.startswith("text/event-stream"):
        return Response(response.content, response.status_code, mimetype=kind)
    return Response(events(response), response.status_code, mimetype="text/event-stream")


def events(response: requests.Response) -> Iterator[str]:
    """Parse each event of a stream and write it again, as a proxy does that looks at them."""
    for line in response.iter_lines():
        data = line.removeprefix(b"data: ")
        if data == b"[DONE]":
            yield "data: [DONE]\n\n"
        elif data:
            yield f"data: {json.dumps(json.loads(data))}\n\n"
