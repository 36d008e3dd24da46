"""A provider with a dialect of its own is added as CONTRIBUTING.md says, and by nothing else."""

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.contract.test_cases import REQUIRED

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[2]

# Step 1. A dialect that differs from OpenAI's: its path, the header of its key, a field of its own.
WIRE = '''\
"""Toy's chat completions."""

from collections.abc import Mapping

import orjson

from gateway.chat import ChatCall
from providers.base import Endpoint, Request, WireOptions
from providers.openai.chat import OpenAIWire


class ToyWire(OpenAIWire):
    """OpenAI's dialect at another address, with the name of the toy in every request."""

    def __init__(
        self, base_url: str, api_key: str, headers: Mapping[str, str], options: WireOptions
    ) -> None:
        super().__init__(base_url, api_key, headers, options)
        self._toys = Endpoint.build(base_url, "/play", api_key, headers, key_header="x-toy")

    def request(self, call: ChatCall) -> Request:
        return self._toys.request({**orjson.loads(super().request(call).body), "toy": True})
'''
# Step 2. One row in the table of wires, and the row of the provider that speaks it.
TABLE = "WIRES: dict[str, Callable[[Upstream], Provider]] = {\n"
ROW = '    "toy": over_http(ToyWire),\n'
MODELS = '\n[providers.toy]\nwire = "toy"\nbase_url = "https://toy.example/v1"\n'
FILES = [
    "providers/base.py",
    "providers/NAME/wire.py",
    "providers/__init__.py",
    "gateway/catalogue/models.toml",
    "tests/contract/cases/NAME/",
    "tests/contract/test_cases.py",
]


def section():
    """The section "A new provider" of CONTRIBUTING.md."""
    text = (ROOT / "CONTRIBUTING.md").read_text()
    return text.partition("## A new provider\n")[2].partition("\n## ")[0]


@pytest.fixture
def copy(tmp_path):
    """A copy of what the cases need, with the toy in it."""
    for name in ("providers", "gateway", "tests/support"):
        shutil.copytree(ROOT / name, tmp_path / name, ignore=shutil.ignore_patterns("__pycache__"))
    cases = tmp_path / "tests" / "contract" / "cases"
    cases.mkdir(parents=True)
    for name in ("pyproject.toml", "tests/contract/test_cases.py"):
        shutil.copy(ROOT / name, tmp_path / name)
    # 1. The wire.
    folder = tmp_path / "providers" / "toy"
    folder.mkdir()
    (folder / "__init__.py").write_text('"""Toy as a provider."""\n')
    (folder / "wire.py").write_text(WIRE)
    # 2. The rows.
    table = tmp_path / "providers" / "__init__.py"
    text = table.read_text()
    assert TABLE in text
    text = text.replace(TABLE, TABLE + ROW)
    imports = "from providers.openai.embeddings import OpenAIEmbeddings\n"
    text = text.replace(imports, f"{imports}from providers.toy.wire import ToyWire\n")
    table.write_text(text)
    with (tmp_path / "gateway" / "catalogue" / "models.toml").open("a") as models:
        models.write(MODELS)
    # 3. The cases.
    for name in REQUIRED:
        shutil.copytree(
            ROOT / "tests" / "contract" / "cases" / "openai" / name, cases / "toy" / name
        )
    for path in cases.glob("toy/*/request.json"):
        path.write_text(json.dumps({**json.loads(path.read_text()), "toy": True}))
    return tmp_path


def run(copy, *arguments):
    done = subprocess.run(
        [sys.executable, *arguments], cwd=copy, capture_output=True, text=True, timeout=120
    )
    return done.returncode, done.stdout + done.stderr


def test_the_cases_of_a_new_provider_pass_once_its_three_steps_are_done(copy):
    code, output = run(copy, "-m", "pytest", "-q", "tests/contract/test_cases.py", "-k", "toy")
    assert code == 0, output
    assert int(re.search(r"(\d+) passed", output)[1]) > len(REQUIRED)


def test_a_new_provider_that_lacks_a_case_is_named(copy):
    shutil.rmtree(copy / "tests" / "contract" / "cases" / "toy" / "cut_stream")
    code, output = run(copy, "-m", "pytest", "-q", "tests/contract/test_cases.py", "-k", "toy")
    assert code == 1
    assert "test_no_provider_lacks_a_case[toy]" in output


CHECK = """
import sys
from gateway.catalogue.catalogue import Catalogue
from gateway.settings import Settings
path = "own.toml"
open(path, "w").write('[providers.mine]\\nwire = "toy"\\nbase_url = "http://x"\\n')
print(Catalogue.load(Settings(models_file=path)).providers["mine"].wire)
"""


def test_the_wire_of_a_new_provider_may_be_named_in_models_file(copy):
    assert run(copy, "-c", CHECK) == (0, "toy\n")


def test_the_page_has_three_steps_and_names_the_files_that_they_touch():
    assert re.findall(r"^(\d)\. ", section(), re.MULTILINE) == ["1", "2", "3"]
    named = re.findall(r"`([\w/]+/[\w/.]*)`", section())
    assert sorted(set(named)) == sorted(FILES)
    assert all((ROOT / name).exists() for name in FILES if "NAME" not in name)
