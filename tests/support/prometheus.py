"""A real Prometheus, Debian's package, that scrapes a service twice a second."""

from __future__ import annotations

import json
import subprocess
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import requests

from tests.support.stack import PATIENCE_SECONDS, reserved_port, until

SCRAPE_INTERVAL = "500ms"
RATE_INTERVAL = "5s"  # what Grafana makes of it: at least four scrapes


class Prometheus:
    """Scrapes /metrics of 127.0.0.1:`port` and evaluates the rules of a file; a context manager."""

    def __init__(self, folder: Path, port: int, token: str, rules: Path) -> None:
        self._folder = folder
        job = {
            "job_name": "inference",
            "authorization": {"credentials": token},
            "static_configs": [{"targets": [f"127.0.0.1:{port}"]}],
        }
        self._config = {
            "global": {"scrape_interval": SCRAPE_INTERVAL, "evaluation_interval": SCRAPE_INTERVAL},
            "rule_files": [str(rules)],
            "scrape_configs": [job],
        }

    def __enter__(self) -> Prometheus:
        self._folder.mkdir(parents=True, exist_ok=True)
        config = self._folder / "prometheus.yml"
        config.write_text(json.dumps(self._config))  # JSON is YAML
        self._ending = ExitStack()
        address = f"127.0.0.1:{self._ending.enter_context(reserved_port())}"
        self.url = f"http://{address}"
        log = self._ending.enter_context((self._folder / "prometheus.log").open("ab"))
        command = ["prometheus", f"--config.file={config}", "--log.level=warn"]
        command += [f"--storage.tsdb.path={self._folder}/data", f"--web.listen-address={address}"]
        self._process = subprocess.Popen(command, stdout=log, stderr=log)
        self._ending.enter_context(self._process)  # which waits for its end
        self._ending.callback(self._process.kill)
        until(self._ready, what="Prometheus")
        return self

    def __exit__(self, *_: object) -> None:
        self._ending.close()

    def query(self, expression: str) -> list[dict[str, Any]]:
        """The series that an expression has now; fails if it cannot be evaluated."""
        params = {"query": expression}
        response = requests.post(f"{self.url}/api/v1/query", params, timeout=PATIENCE_SECONDS)
        assert response.ok, response.text
        result: list[dict[str, Any]] = response.json()["data"]["result"]
        return result

    def rules(self) -> list[dict[str, Any]]:
        """The rules, with the health of their last evaluation."""
        response = requests.get(f"{self.url}/api/v1/rules", timeout=PATIENCE_SECONDS)
        groups = response.json()["data"]["groups"]
        return [rule for group in groups for rule in group["rules"]]

    def _ready(self) -> bool:
        assert self._process.poll() is None, (self._folder / "prometheus.log").read_text()
        try:
            return requests.get(f"{self.url}/-/ready", timeout=PATIENCE_SECONDS).ok
        except requests.ConnectionError:
            return False
