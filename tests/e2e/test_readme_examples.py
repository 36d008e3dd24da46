"""The README's examples, run as they stand but for the address and the key."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.stack import PATIENCE_SECONDS, Stack

pytestmark = pytest.mark.slow

README = (Path(__file__).parents[2] / "README.md").read_text()
EXAMPLES = re.findall(r"```(bash|python|javascript)\n(.*?)```", README, re.DOTALL)


def command(language: str, stack: Stack, code: str, folder: Path) -> list[str]:
    origin = f"http://127.0.0.1:{stack.port}"
    code = code.replace("http://127.0.0.1:8000", origin)
    code = code.replace("mk_inference_YOUR_API_KEY", stack.key)
    if language == "bash":
        return ["bash", "-euc", f"HOST={origin}\n{code}"]
    if language == "python":
        return [sys.executable, "-c", code]
    node = shutil.which("node")
    if node is None:
        if os.environ.get("CI"):
            pytest.fail("CI has to install node")
        pytest.skip("there is no node here")
    script = folder / "example.mjs"
    script.write_text(code)
    return [node, str(script)]


@pytest.mark.parametrize("number", range(len(EXAMPLES)))
def test_the_example_answers(stack: Stack, number: int, tmp_path: Path) -> None:
    language, code = EXAMPLES[number]
    run = subprocess.run(
        command(language, stack, code, tmp_path),
        capture_output=True,
        text=True,
        timeout=PATIENCE_SECONDS,
    )
    assert run.returncode == 0, run.stderr
    # The fake provider says what the user said last.
    expected = re.findall(r"""['"]?content['"]?: ['"]([^'"]+)['"]""", code)[-1]
    assert expected.split()[0] in run.stdout
    assert "error" not in run.stdout


def test_there_are_examples_of_every_kind() -> None:
    assert [language for language, _ in EXAMPLES] == [
        "bash",
        "bash",
        "python",
        "javascript",
        "python",
        "python",
    ]


def test_the_documented_call_has_the_documented_answer_shape(stack: Stack, tmp_path: Path) -> None:
    run = subprocess.run(
        command("bash", stack, EXAMPLES[0][1], tmp_path), capture_output=True, text=True
    )
    for field in ('"id":"chatcmpl-', '"object":"chat.completion"', '"model":"gpt-4o-mini"'):
        assert field in run.stdout
