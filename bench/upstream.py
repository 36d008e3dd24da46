"""The fake upstream that gateways call: nginx with its Lua module, or a Python server."""

from __future__ import annotations

import os
import pwd
import re
import shutil
import subprocess
import sys
import urllib.request
from pathlib import Path

from bench.processes import Child, clean_env, free_port, wait_until_open

MODULES = ("ndk_http_module.so", "ngx_http_lua_module.so")
TEMPLATE = Path(__file__).parent / "upstream.conf"


class Upstream:
    """A running fake upstream; `url` is the base that OpenAI clients take, with /v1."""

    def __init__(self, folder: Path) -> None:
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}/v1"
        nginx, modules = shutil.which("nginx"), _module_folder()
        if nginx and modules:
            self.title = f"{_version(nginx)} with Lua"
            self.child = self._start_nginx(nginx, modules, folder / "upstream")
        else:
            self.title = "Python (nginx with Lua is missing: slower, see README)"
            self.child = self._start_python(folder)
        wait_until_open(self.port, self.child, "/count")

    def calls(self) -> int:
        """How many completions it has been asked for."""
        with urllib.request.urlopen(f"http://127.0.0.1:{self.port}/count", timeout=5) as answer:
            return int(answer.read())

    def stop(self) -> None:
        self.child.stop()

    def _start_nginx(self, nginx: str, modules: Path, folder: Path) -> Child:
        folder.mkdir()
        load = "\n".join(f"load_module {modules / name};" for name in MODULES)
        user = f"user {pwd.getpwuid(0).pw_name};" if os.getuid() == 0 else ""
        text = TEMPLATE.read_text().replace("LOAD_MODULES", load)
        text = text.replace("USER", user).replace("PORT", str(self.port))
        (folder / "nginx.conf").write_text(text)
        command = [nginx, "-p", str(folder), "-e", "error.log", "-c", "nginx.conf"]
        return Child(
            [*command, "-g", "daemon off;"], clean_env(folder), folder / "nginx.log", folder
        )

    def _start_python(self, folder: Path) -> Child:
        command = [sys.executable, "-m", "bench.python_upstream", str(self.port)]
        return Child(command, clean_env(folder), folder / "upstream.log")


def _module_folder() -> Path | None:
    nginx = shutil.which("nginx")
    if nginx is None:
        return None
    told = subprocess.run([nginx, "-V"], capture_output=True, text=True).stderr
    match = re.search(r"--modules-path=(\S+)", told)
    folder = Path(match[1]) if match else Path("/usr/lib/nginx/modules")
    return folder if all((folder / name).exists() for name in MODULES) else None


def _version(nginx: str) -> str:
    told = subprocess.run([nginx, "-v"], capture_output=True, text=True).stderr
    match = re.search(r"nginx/[\d.]+", told)
    return match[0].replace("/", " ") if match else "nginx"
