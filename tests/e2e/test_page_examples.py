"""The commands of docs/queue.md and docs/account.md run from top to bottom, in one shell."""

from __future__ import annotations

import re
import subprocess
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest
from flask.testing import FlaskCliRunner

from api.services import services
from app import create_app
from gateway.settings import Settings
from tests.support.stack import PATIENCE_SECONDS, Stack

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[2]
# `NAME=...` takes the last of these in what the command before has printed. That is repeated until
# there is one.
VALUES = {
    "ID": r"^x-generation-id: (\w+)|^id: (\w+):",
    "RESPONSE": r"\"id\":\"(resp_\w+)",
    "CALL": r"^x-generation-id: (\w+)",
    "FILE": r"\"id\":\"(file-\w+)",
    "BATCH": r"\"id\":\"(batch_\w+)",
    "OUTPUT": r"\"output_file_id\":\"([\w-]+)",
    "WORKER": r"^(worker-\w+)",
    "KEY": r"^(mk_inference_\w+)",
    "OPERATOR": r"^(mk_inference_\w+)",
}
PRELUDE = r"""
set -euo pipefail
curl() { command curl -sS --fail-with-body "$@" | tee last; }
flask() { printf '%s\0' "$@" | curl --data-binary @- $FLASK; }
value() {
  python3 -c 'import re, sys
values = [m[m.lastindex] for m in re.finditer(sys.argv[1], open("last").read(), re.I | re.M)]
print(values[-1] if values else sys.exit(1))' "$1"
}
"""


@pytest.fixture
def flask(stack: Stack) -> Iterator[str]:
    """The address of a server that runs `flask` commands: starting Python for each takes longer."""
    app = create_app(Settings.from_env(stack.env))
    runner = app.test_cli_runner()
    server = HTTPServer(("127.0.0.1", 0), type("Handler", (Commands,), {"runner": runner}))
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}/"
    server.shutdown()
    thread.join()
    server.server_close()
    services(app).broker.redis.connection_pool.disconnect()


class Commands(BaseHTTPRequestHandler):
    """Runs the command whose words are in the body of a request."""

    runner: FlaskCliRunner

    def do_POST(self) -> None:
        words = self.rfile.read(int(self.headers["Content-Length"])).decode().split("\0")[:-1]
        result = self.runner.invoke(args=words)
        self.send_response(500 if result.exit_code else 200)
        self.end_headers()
        self.wfile.write(result.output.encode())

    def log_message(self, *_: object) -> None:
        """Say nothing."""


def script(page: str, stack: Stack) -> str:
    """The commands of a page, for `stack`."""
    blocks = re.findall(r"```bash\n(.*?)```", (ROOT / page).read_text(), re.DOTALL)
    for text, replacement in {
        "demo/slow": "demo/echo",  # which answers at once
        "search": "examples-owner",  # other tests have owners too
        "http://127.0.0.1:8000": f"http://127.0.0.1:{stack.port}",
        "$(cat .data/development-key)": stack.keys.create("examples"),
        "$(cat .data/admin-key)": stack.keys.create("operator", operator=True),
        'flask() { .venv/bin/python -m local.flask "$@"; }\n': "",
    }.items():
        blocks = [block.replace(text, replacement) for block in blocks]
    # A command ends where a line begins that is no continuation, and no content of a file.
    commands = re.findall(r"^\w.*?(?=^\w|\Z)", "".join(blocks), re.MULTILINE | re.DOTALL)
    lines = []
    for at, command in enumerate(commands):
        name, _, assigned = command.strip().partition("=")
        if assigned == "...":
            again = commands[at - 1]
            command = f"until {name}=$(value '{VALUES[name]}'); do sleep 0.1; {again}done\n"
        lines.append(command)
    return PRELUDE + "".join(lines)


@pytest.mark.parametrize("page", ["docs/queue.md", "docs/account.md"])
def test_each_command_of_the_page_works(
    page: str, stack: Stack, flask: str, tmp_path: Path
) -> None:
    process = subprocess.run(
        ["bash", "-c", f"FLASK={flask}\n{script(page, stack)}"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=PATIENCE_SECONDS,
    )
    assert process.returncode == 0, f"{process.stdout}\n{process.stderr}"
