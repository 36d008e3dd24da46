"""The examples of the README and of docs/clients.md run as they are, but for address and key."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.programs import program
from tests.support.stack import PATIENCE_SECONDS, Stack

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[2]
EXAMPLES = [
    pytest.param(*example, id=f"{page}-{number}-{example[0]}")
    for page in ("README.md", "docs/clients.md")
    for number, example in enumerate(
        re.findall(r"```(bash|python|javascript)\n(.*?)```", (ROOT / page).read_text(), re.DOTALL)
    )
]
README = [example.values for example in EXAMPLES if str(example.id).startswith("README")]


def command(language: str, code: str, stack: Stack, folder: Path) -> list[str]:
    """What runs the example against `stack`, which has no local model."""
    for text, replacement in {
        "http://127.0.0.1:8000": f"http://127.0.0.1:{stack.port}",
        "mk_inference_YOUR_API_KEY": stack.key,
        "$(cat .data/development-key)": stack.key,
        "local/smollm2-135m-instruct": "demo/echo",
    }.items():
        code = code.replace(text, replacement)
    if language == "bash":
        return ["bash", "-euc", f"HOST=http://127.0.0.1:{stack.port}\n{code}"]
    if language == "python":
        return [sys.executable, "-c", code]
    node = program("node")
    script = folder / "example.mjs"
    script.write_text(code)
    return [node, str(script)]


def run(language: str, code: str, stack: Stack, folder: Path) -> str:
    """What the example prints; fails if it fails."""
    process = subprocess.run(
        command(language, code, stack, folder),
        capture_output=True,
        text=True,
        timeout=PATIENCE_SECONDS,
    )
    assert process.returncode == 0, process.stderr
    return process.stdout


@pytest.mark.parametrize("language, code", EXAMPLES)
def test_the_example_prints_an_answer(
    stack: Stack, language: str, code: str, tmp_path: Path
) -> None:
    output = run(language, code, stack, tmp_path)

    # demo/echo and the fake provider repeat the last message of the user.
    messages = re.findall(r"""['"]?content['"]?: ['"]([^'"]+)['"]""", code)
    expected = "on the screen." if "demo/slow" in code else messages[-1]
    assert expected.split()[0] in output
    assert "error" not in output


def test_the_readme_has_a_call_and_a_stream_that_need_no_provider() -> None:
    (_, first), (_, second) = README[:2]
    assert "local/smollm2-135m-instruct" in first
    assert "demo/slow" in second and '"stream": true' in second


def test_the_documented_call_has_the_documented_shape(stack: Stack, tmp_path: Path) -> None:
    language, code = next(each for each in README if "openai/gpt-4o-mini" in each[1])
    output = run(language, code, stack, tmp_path)
    for field in ('"id":"chatcmpl-', '"object":"chat.completion"', '"model":"gpt-4o-mini"'):
        assert field in output
