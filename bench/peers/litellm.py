"""LiteLLM proxy, with as many processes as we have.

1.82.7 and 1.82.8 were compromised releases: never install those.
"""

from __future__ import annotations

from pathlib import Path

from bench.client import Endpoint
from bench.peers import venvs
from bench.processes import Child, free_port, wait_until_open
from bench.targets import Running, Stage, begin

TITLE = "LiteLLM proxy"
VERSION = "1.106.2"
COMPROMISED = ("1.82.7", "1.82.8")
PROCESSES = 2
KEY = "sk-bench-1234"
CONFIG = """
model_list:
  - model_name: gpt-4o-mini
    litellm_params:
      model: openai/gpt-4o-mini
      api_base: {url}
      api_key: sk-upstream
general_settings:
  master_key: {key}
litellm_settings:
  telemetry: false
"""


def install(home: Path) -> None:
    if VERSION in COMPROMISED:
        raise OSError(f"LiteLLM {VERSION} was a compromised release")
    venvs.install(home, f"litellm[proxy]=={VERSION}")


def start(stage: Stage, home: Path) -> Running:
    port = free_port()
    config = stage.folder / "litellm.yaml"
    config.write_text(CONFIG.format(url=stage.upstream.url, key=KEY))
    command = [venvs.script(home, "litellm"), "--config", str(config), "--host", "127.0.0.1"]
    # Without this it downloads a price list as it starts.
    env = stage.env(LITELLM_LOCAL_MODEL_COST_MAP="True", LITELLM_LOG="ERROR")
    child = Child(
        [*command, "--port", str(port), "--num_workers", str(PROCESSES), "--telemetry", "False"],
        env,
        stage.log("litellm"),
        stage.folder,
    )
    running = Running(
        Endpoint(port, headers={"Authorization": f"Bearer {KEY}"}), {"gateway": [child]}
    )
    return begin(running, lambda: wait_until_open(port, child, "/health/liveliness"))
