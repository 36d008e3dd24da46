"""TensorZero's Rust gateway, which its wheel starts inside a Python process, on a port it picks."""

from __future__ import annotations

import time
from pathlib import Path

from bench.client import Endpoint
from bench.peers import venvs
from bench.processes import READY_SECONDS, Child, DidNotServe
from bench.targets import Running, Stage, begin

TITLE = "TensorZero"
VERSION = "2026.6.0"
PROCESSES = 1
CONFIG = """
[gateway]
observability.enabled = false
[models.gpt-4o-mini]
routing = ["bench"]
[models.gpt-4o-mini.providers.bench]
type = "openai"
model_name = "gpt-4o-mini"
api_base = "{url}/"
api_key_location = "none"
"""
SERVER = """
import pathlib, sys, threading
from openai import OpenAI
from tensorzero import patch_openai_client
client = patch_openai_client(OpenAI(api_key="none"), config_file=sys.argv[1], async_setup=False)
pathlib.Path(sys.argv[2]).write_text(str(client.base_url.port))
threading.Event().wait()
"""


def install(home: Path) -> None:
    venvs.install(home, f"tensorzero=={VERSION}", "openai")
    (home / "server.py").write_text(SERVER)


def start(stage: Stage, home: Path) -> Running:
    config, told = stage.folder / "tensorzero.toml", stage.folder / "tensorzero.port"
    config.write_text(CONFIG.format(url=stage.upstream.url))
    told.unlink(missing_ok=True)
    command = [venvs.python(home), str(home / "server.py"), str(config), str(told)]
    child = Child(command, stage.env(), stage.log("tensorzero"), stage.folder)
    running = Running(Endpoint(0), {"gateway": [child]})
    begin(running, lambda: _until_told(told, child))
    running.endpoint = Endpoint(
        int(told.read_text()),
        "/openai/v1/chat/completions",
        "tensorzero::model_name::gpt-4o-mini",
    )
    return running


def _until_told(told: Path, child: Child) -> None:
    end = time.monotonic() + READY_SECONDS
    while not (told.exists() and told.read_text()):
        if child.ended or time.monotonic() > end:
            raise DidNotServe(f"it told no port: {child.tail()}")
        time.sleep(0.1)
