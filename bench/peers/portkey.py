"""Portkey's gateway for Node.

With the web server that npm resolves for it, every stream fails (Portkey-AI/gateway#1389): an
older one is pinned. It would listen on all interfaces: a preloaded script keeps it to this machine.
"""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path

from bench.client import Endpoint
from bench.processes import Child, free_port, wait_until_open
from bench.targets import Running, Stage, begin

TITLE = "Portkey gateway"
VERSION = "1.15.2"
PROCESSES = 1
PACKAGE = {
    "private": True,
    "dependencies": {"@portkey-ai/gateway": VERSION},
    "overrides": {"@hono/node-server": "1.13.8"},
}
LOOPBACK = """
const net = require('net');
const listen = net.Server.prototype.listen;
net.Server.prototype.listen = function (...args) {
  const first = args[0];
  if (first !== null && typeof first === 'object' && 'port' in first) {
    args[0] = { ...first, host: '127.0.0.1' };
  } else if (typeof first === 'number' || typeof first === 'string') {
    if (typeof args[1] === 'string') args[1] = '127.0.0.1';
    else args.splice(1, args[1] === undefined ? 1 : 0, '127.0.0.1');
  }
  return listen.apply(this, args);
};
"""


def install(home: Path) -> None:
    (home / "package.json").write_text(json.dumps(PACKAGE, indent=2))
    (home / "loopback.cjs").write_text(LOOPBACK)
    npm = ["npm", "install", "--ignore-scripts", "--no-audit", "--no-fund", "--loglevel=error"]
    subprocess.run(npm, cwd=home, check=True)


def start(stage: Stage, home: Path) -> Running:
    port = free_port()
    server = home / "node_modules" / "@portkey-ai" / "gateway" / "build" / "start-server.js"
    command = [shutil.which("node") or "node", "--require", str(home / "loopback.cjs")]
    child = Child(
        [*command, str(server), "--headless", f"--port={port}"],
        stage.env(TRUSTED_CUSTOM_HOSTS="127.0.0.1,localhost", NODE_ENV="production"),
        stage.log("portkey"),
        stage.folder,
    )
    headers = {
        "Authorization": "Bearer sk-upstream",
        "x-portkey-provider": "openai",
        "x-portkey-custom-host": stage.upstream.url,
    }
    running = Running(Endpoint(port, headers=headers), {"gateway": [child]})
    return begin(running, lambda: wait_until_open(port, child))
