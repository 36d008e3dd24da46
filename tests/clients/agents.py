"""Claude Code and Codex CLI, as installed from npm, in sessions of their own.

Each scenario runs the agent's command line in a new home and a new folder, and holds what it
printed and what the service answered to what a user may expect. In a scenario that is no error of
the user's, every response to the agent must be 2xx.
"""

from __future__ import annotations

import base64
import contextlib
import json
import os
import signal
import subprocess
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.clients import install
from tests.clients.matrix import MODELS, NO_MODEL, closed_network
from tests.clients.provider import ANSWER, Provider
from tests.clients.recorder import Recorder
from tests.support.stack import Stack

QUESTION = "What is the capital of France?"
MARK = "a-word-that-only-the-file-has"
PNG = base64.b64decode(
    "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mP8z8BQDwAEhQGAhKmMIQAAAABJRU5ErkJg"
    "gg=="
)
AGENT_SECONDS = 120
QUICK_SECONDS = 20
CLAUDE = MODELS[1]
PACKAGES = {"Claude Code": "@anthropic-ai/claude-code", "Codex CLI": "@openai/codex"}

# Also in docs/clients.md.
CODEX_CONFIG = """
model = "{model}"
model_provider = "inference"
[model_providers.inference]
name = "Inference service"
base_url = "{base_url}"
env_key = "INFERENCE_API_KEY"
wire_api = "responses"
"""


@dataclass(frozen=True)
class Session:
    """Where an agent runs, and what it talks to."""

    agent: str
    model: str  # "" for the agent's own default
    home: Path
    folder: Path
    origin: str
    key: str
    provider: Provider

    def run(self, *words: str, seconds: float = AGENT_SECONDS) -> str:
        """What the agent prints; raises TimeoutExpired after these seconds."""
        command, env = COMMANDS[self.agent](self)
        base = {"PATH": os.environ["PATH"], "HOME": str(self.home)}
        process = subprocess.Popen(
            [*command, *words],
            cwd=self.folder,
            env={**base, **env, **closed_network()},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )
        try:
            return process.communicate(timeout=seconds)[0]
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)


def claude(session: Session) -> tuple[list[str], dict[str, str]]:
    wrapper = install.javascript() / "node_modules/@anthropic-ai/claude-code/cli-wrapper.cjs"
    command = ["node", str(wrapper), "--print", "--allowedTools", "Bash,Read", "--output-format"]
    command += ["json", *(["--model", session.model] if session.model else [])]
    return command, {
        "ANTHROPIC_BASE_URL": f"{session.origin}/inference",
        "ANTHROPIC_API_KEY": session.key,
        "CLAUDE_CODE_DISABLE_NONESSENTIAL_TRAFFIC": "1",
        **({"ANTHROPIC_DEFAULT_HAIKU_MODEL": session.model} if session.model else {}),
    }


def codex(session: Session) -> tuple[list[str], dict[str, str]]:
    home = session.home / ".codex"
    home.mkdir(exist_ok=True)
    config = CODEX_CONFIG.format(model=session.model, base_url=f"{session.origin}/inference/v1")
    (home / "config.toml").write_text(config)
    command = [str(install.javascript() / "node_modules/.bin/codex"), "exec"]
    command += ["--skip-git-repo-check", "--dangerously-bypass-approvals-and-sandbox"]
    return command, {"INFERENCE_API_KEY": session.key, "CODEX_HOME": str(home)}


COMMANDS = {"Claude Code": claude, "Codex CLI": codex}


def call(tool: str, **arguments: Any) -> str:
    """A prompt that makes the provider's model call a tool."""
    return f"Do this. [[{tool} {json.dumps(arguments)}]]"


def plain(session: Session) -> None:
    expect(session.run(QUESTION), ANSWER)


def tool_loop(session: Session) -> None:
    (session.folder / "secret.txt").write_text(MARK)
    if session.agent == "Claude Code":
        prompts = [
            call("Bash", command="cat secret.txt", description="Read it"),
            call("Read", file_path=str(session.folder / "secret.txt")),
        ]
    elif session.model.startswith("openai/gpt-6"):  # Codex gives these models JavaScript to write
        script = 'text(await tools.exec_command({cmd: "cat secret.txt"}))'
        prompts = [call("exec", input=script)]
    else:
        prompts = [call("exec_command", cmd="cat secret.txt")]
    for prompt in prompts:
        expect(session.run(prompt), "It says:", MARK)


def image(session: Session) -> None:
    path = session.folder / "dot.png"
    path.write_bytes(PNG)
    if session.agent == "Claude Code":
        expect(session.run(call("Read", file_path=str(path))), "I see 1 image.")
    else:
        expect(session.run("--image", str(path), "--", "See"), "I see 1 image.")


def compaction(session: Session) -> None:
    """A conversation goes on after it was compacted."""
    if session.agent == "Claude Code":
        expect(session.run(QUESTION), ANSWER)
        expect(session.run("--continue", QUESTION), ANSWER)
        printed = session.run("--continue", "/compact")
        assert '"is_error":false' in printed and "Not enough" not in printed, printed
        expect(session.run("--continue", QUESTION), ANSWER)
    else:
        expect(session.run(QUESTION), ANSWER)
        limit = "model_auto_compact_token_limit=100"
        expect(session.run("-c", limit, "resume", "--last", QUESTION), ANSWER)


def namespace(session: Session) -> None:
    """A tool in a namespace, as those of MCP servers are, is called under its own name."""
    gpt = session.model.startswith("openai/gpt-6")
    prompt = call("sleep", duration_ms=1) if gpt else call("wait_agent", targets=["nobody"])
    printed = session.run(prompt)
    expect(printed, "It says:")
    assert "unsupported call" not in printed, printed


def thinking(session: Session) -> None:
    """The thinking of a turn goes back to Claude with the result of its tool."""
    expect(session.run(call("Bash", command="echo it", description="Say it")), "It says: it")
    (*_, last) = session.provider.calls
    blocks = [block["type"] for message in last["body"]["messages"] for block in message["content"]]
    assert "thinking" in blocks, f"the second request has no thinking, but {blocks}"


def betas(session: Session) -> None:
    """What the agent says in `anthropic-beta` arrives at Anthropic."""
    expect(session.run(QUESTION), ANSWER)
    (*_, last) = session.provider.calls
    names = last["headers"].get("anthropic-beta", "")
    assert "interleaved-thinking" in names, f"Anthropic was sent anthropic-beta: {names!r}"


def wrong_key(session: Session) -> None:
    printed = session.run(QUESTION, seconds=QUICK_SECONDS)
    assert "401" in printed or "API key" in printed, printed


def unknown_model(session: Session) -> None:
    expect(session.run(QUESTION, seconds=QUICK_SECONDS), NO_MODEL)


def expect(printed: str, *texts: str) -> None:
    for text in texts:
        assert text in printed, f"{text!r} is not in what it printed: {printed[-1_500:]}"


@dataclass(frozen=True)
class Scenario:
    agent: str
    cell: str
    model: str
    play: Callable[[Session], None]
    key: str = ""  # instead of the service's

    @property
    def name(self) -> str:
        return f"agents/{self.agent}/{self.model or 'default model'}/{self.cell}"


def scenarios() -> list[Scenario]:
    plays = {
        "plain": plain,
        "tool_loop": tool_loop,
        "image": image,
        "compaction": compaction,
    }
    rows = [
        Scenario(agent, cell, model, play)
        for agent in PACKAGES
        for model in MODELS
        for cell, play in plays.items()
    ]
    rows += [Scenario("Codex CLI", "namespace", model, namespace) for model in MODELS]
    rows.append(Scenario("Claude Code", "thinking", CLAUDE, thinking))
    rows.append(Scenario("Claude Code", "betas", CLAUDE, betas))
    rows.append(Scenario("Claude Code", "default_model", "", plain))
    for agent in PACKAGES:
        rows.append(Scenario(agent, "wrong_key", MODELS[0], wrong_key, key="sk-wrong"))
        rows.append(Scenario(agent, "unknown_model", NO_MODEL, unknown_model))
    return rows


SCENARIOS = scenarios()
ERRORS_EXPECTED = ("wrong_key", "unknown_model")


def run(scenario: Scenario, stack: Stack, recorder: Recorder) -> dict[str, Any]:
    """How one scenario went, as a row of the results."""
    package = install.javascript() / "node_modules" / PACKAGES[scenario.agent] / "package.json"
    result: dict[str, Any] = {
        "client": scenario.agent,
        "api": "agent",
        "version": json.loads(package.read_text())["version"],
        "cell": scenario.cell,
        "model": scenario.model,
        "result": "ok",
        "detail": "",
    }
    recorder.begin(scenario.name)
    stack.upstream.forget()
    started = time.monotonic()
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as temporary:
        home, folder = Path(temporary) / "home", Path(temporary) / "work"
        home.mkdir()
        folder.mkdir()
        key = scenario.key or stack.key
        session = Session(
            scenario.agent, scenario.model, home, folder, recorder.origin, key, stack.upstream
        )
        try:
            scenario.play(session)
        except (AssertionError, subprocess.TimeoutExpired) as error:
            output = getattr(error, "output", None) or ""
            result |= {"result": "failed", "detail": f"{error} {output}"[:2_000]}
    result["seconds"] = round(time.monotonic() - started, 1)
    exchanges = recorder.of(scenario.name)
    refused = [each for each in exchanges if not 200 <= each.get("status", 0) < 300]
    if refused and scenario.cell not in ERRORS_EXPECTED:
        summary = "; ".join(f"{e['method']} {e['path']}: {e.get('status')}" for e in refused[:5])
        detail = f"{len(refused)} of {len(exchanges)} responses are no 2xx: {summary}. "
        result |= {"result": "failed", "detail": detail + result["detail"]}
    if result["result"] == "failed":
        result["exchanges"] = exchanges
    return result


def table(results: list[dict[str, Any]]) -> str:
    """The agents' results as Markdown, a line for each agent and model."""
    rows = [each for each in results if each["api"] == "agent"]
    cells = list(dict.fromkeys(row["cell"] for row in rows))
    names = [cell.replace("_", " ").capitalize() for cell in cells]
    lines = ["| Agent | Version | Model | " + " | ".join(names) + " |"]
    lines.append("|---" * (len(cells) + 3) + "|")
    for key in dict.fromkeys((row["client"], row["version"], row["model"]) for row in rows):
        marks = []
        for cell in cells:
            found = [
                row["result"]
                for row in rows
                if (row["client"], row["version"], row["model"]) == key and row["cell"] == cell
            ]
            marks.append({"ok": "✓", "failed": "**fails**"}[found[0]] if found else "")
        agent, version, model = key
        name = f"`{model}`" if model else "its default"
        lines.append("| " + " | ".join([agent, version, name, *marks]) + " |")
    return "\n".join(lines) + "\n"
