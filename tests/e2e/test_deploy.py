"""What a Heroku-style deploy relies on."""

from __future__ import annotations

import os
import select
import socket
import ssl
import subprocess
import sys
import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import requests

from gateway.queue import clients
from gateway.settings import Settings
from local.redis_server import RedisServer
from tests.support.stack import PATIENCE_SECONDS, PEPPER, ROOT, Stack, reserved_port, until

pytestmark = pytest.mark.slow

CERTIFICATE = Path(__file__).with_name("self_signed.pem")


class TlsFront:
    """A TLS endpoint with a self-signed certificate before a unix socket."""

    def __init__(self, path: str) -> None:
        self._path = path
        self._context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self._context.load_cert_chain(CERTIFICATE)
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.url = f"rediss://127.0.0.1:{self._listener.getsockname()[1]}/0"
        threading.Thread(target=self._accept, daemon=True).start()

    def close(self) -> None:
        self._listener.close()

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            threading.Thread(target=self._serve, args=(client,), daemon=True).start()

    def _serve(self, client: socket.socket) -> None:
        try:
            with (
                self._context.wrap_socket(client, server_side=True) as front,
                socket.socket(socket.AF_UNIX) as back,
            ):
                back.connect(self._path)
                self._pump(front, back)
        except OSError:
            client.close()

    def _pump(self, front: ssl.SSLSocket, back: socket.socket) -> None:
        while True:
            ready = [front] if front.pending() else select.select([front, back], [], [])[0]
            for source in ready:
                data = source.recv(65536)
                if not data:
                    return
                (back if source is front else front).sendall(data)


@pytest.fixture(scope="module")
def tls(tmp_path_factory: pytest.TempPathFactory) -> Iterator[TlsFront]:
    with RedisServer(tmp_path_factory.mktemp("tls")) as server:
        front = TlsFront(server.url.removeprefix("unix://"))
        yield front
        front.close()


def test_the_service_runs_over_a_self_signed_rediss_address(
    tls: TlsFront, tmp_path_factory: pytest.TempPathFactory
) -> None:
    with Stack(
        tmp_path_factory.mktemp("over-tls"), env={"REDIS_TLS_URL": tls.url}, key_in=tls.url
    ) as stack:
        assert stack.ask("fake/echo", "hello").json()["choices"][0]["message"]["content"] == "hello"
        assert stack.ask("fake/echo", "hello", stream=True).text.endswith("data: [DONE]\n\n")


def test_a_certificate_is_checked_where_that_is_asked_for(
    tls: TlsFront, settings: Settings
) -> None:
    checked = replace(settings, redis_url=tls.url, redis_verify_tls=True)
    client = clients.commands(checked, 1)
    with pytest.raises(Exception, match="certificate"):
        client.ping()
    client.connection_pool.disconnect()


def test_port_and_web_concurrency_are_honoured(tmp_path: Path) -> None:
    with RedisServer(tmp_path / "redis") as server, reserved_port() as port:
        env = {
            "PATH": os.environ["PATH"],
            "KEY_PEPPER": PEPPER,
            "REDIS_URL": server.url,
            "PORT": str(port),
            "WEB_CONCURRENCY": "2",
            # PORT alone would listen on every address of the machine.
            "GUNICORN_CMD_ARGS": f"--bind 127.0.0.1:{port}",
        }
        log = tmp_path / "web.log"
        with log.open("wb") as output:
            web = subprocess.Popen(
                [sys.executable, "-m", "gunicorn", "wsgi:app"],
                cwd=ROOT,
                env=env,
                stdout=output,
                stderr=output,
            )
        try:
            until(lambda: log.read_text().count("Booting worker") == 2)
            until(lambda: healthy(port))
        finally:
            web.terminate()
            assert web.wait(PATIENCE_SECONDS) == 0


def healthy(port: int) -> bool:
    try:
        return requests.get(
            f"http://127.0.0.1:{port}/inference/v1/health", timeout=PATIENCE_SECONDS
        ).ok
    except (requests.ConnectionError, requests.Timeout):
        return False


@pytest.mark.parametrize(
    ("environ", "variable"),
    [
        ({}, "KEY_PEPPER"),
        ({"KEY_PEPPER": PEPPER, "OPENAI_BASE_URL": "api.example/v1"}, "OPENAI_BASE_URL"),
    ],
    ids=["no pepper", "no URL"],
)
@pytest.mark.parametrize("command", [["gunicorn", "wsgi:app"], ["workers"], ["flask", "routes"]])
def test_a_deploy_with_a_wrong_setting_ends_with_one_line(
    command: list[str], environ: dict[str, str], variable: str
) -> None:
    run = subprocess.run(
        [sys.executable, "-m", *command],
        cwd=ROOT,
        env={"PATH": os.environ["PATH"], **environ},
        capture_output=True,
        text=True,
        timeout=PATIENCE_SECONDS,
    )
    assert run.returncode != 0
    assert [line for line in run.stderr.splitlines() if line][-1].startswith(
        f"configuration: {variable} must "
    )
    assert run.stderr.count("\n") <= 2
    assert run.stdout == ""


def test_the_release_command_checks_redis(tmp_path: Path) -> None:
    def release(url: str) -> subprocess.CompletedProcess[str]:
        env = {"PATH": os.environ["PATH"], "KEY_PEPPER": PEPPER, "REDIS_URL": url}
        return subprocess.run(
            [sys.executable, "-m", "flask", "check-config"],
            cwd=ROOT,
            env=env,
            capture_output=True,
            text=True,
            timeout=PATIENCE_SECONDS,
        )

    with RedisServer(tmp_path) as server:
        good = release(server.url)
        assert good.returncode == 0, good.stderr
        assert "answers" in good.stdout
    bad = release(server.url)
    assert bad.returncode == 1
    assert "does not answer" in bad.stderr
