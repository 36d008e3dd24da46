"""The matrix: which client calls which API, what each cell asks of it, and the table of results."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.clients import install
from tests.clients.provider import Provider
from tests.clients.recorder import Recorder
from tests.support.stack import Stack

HERE = Path(__file__).parent
MODELS = ("openai/gpt-6-luna", "anthropic/claude-sonnet-5-5")
NO_MODEL = "openai/no-such-model"
CELLS = {
    "whole": "Whole",
    "streamed": "Streamed",
    "usage": "Usage of a stream",
    "tools": "Tool loop",
    "streamed_tools": "Streamed tool loop",
    "structured": "JSON schema",
    "json_mode": "JSON mode",
    "image": "Image",
    "count_tokens": "Token count",
    "wrong_key": "Wrong key",
    "unknown_model": "Unknown model",
    "cancel": "Cancel",
}
CLIENT_SECONDS = 900


@dataclass(frozen=True)
class Row:
    client: str
    script: str
    api: str
    package: str
    environment: str = "clients"  # a requirements-NAME.txt, or "node"

    @property
    def name(self) -> str:
        return f"{self.script}/{self.api}"


ROWS = (
    Row("openai-python", "openai_python", "chat", "openai"),
    Row("openai-python", "openai_python", "responses", "openai"),
    Row("openai-node", "openai_node", "chat", "openai", "node"),
    Row("openai-node", "openai_node", "responses", "openai", "node"),
    Row("anthropic-python", "anthropic_python", "messages", "anthropic"),
    Row("anthropic-node", "anthropic_node", "messages", "@anthropic-ai/sdk", "node"),
    Row("Pydantic AI", "pydantic_ai_client", "chat", "pydantic-ai-slim"),
    Row("Pydantic AI", "pydantic_ai_client", "responses", "pydantic-ai-slim"),
    Row("Pydantic AI", "pydantic_ai_client", "messages", "pydantic-ai-slim"),
    Row("OpenAI Agents SDK", "openai_agents_client", "chat", "openai-agents"),
    Row("OpenAI Agents SDK", "openai_agents_client", "responses", "openai-agents"),
    Row("Instructor", "instructor_client", "chat", "instructor", "openai-2"),
    Row("LlamaIndex", "llama_index_client", "chat", "llama-index-llms-openai-like", "openai-2"),
    Row("LlamaIndex", "llama_index_client", "messages", "llama-index-llms-anthropic", "openai-2"),
    Row("LangChain", "langchain_python", "chat", "langchain-openai"),
    Row("LangChain", "langchain_python", "responses", "langchain-openai"),
    Row("LangChain", "langchain_python", "messages", "langchain-anthropic"),
    Row("LangChain.js", "langchain_js", "chat", "@langchain/openai", "node"),
    Row("LangChain.js", "langchain_js", "responses", "@langchain/openai", "node"),
    Row("LangChain.js", "langchain_js", "messages", "@langchain/anthropic", "node"),
    Row("AI SDK, OpenAI", "ai_sdk", "chat", "@ai-sdk/openai", "node"),
    Row("AI SDK, OpenAI", "ai_sdk", "responses", "@ai-sdk/openai", "node"),
    Row("AI SDK, compatible", "ai_sdk", "compatible", "@ai-sdk/openai-compatible", "node"),
    Row("AI SDK, Anthropic", "ai_sdk", "messages", "@ai-sdk/anthropic", "node"),
    Row("Haystack", "haystack_client", "chat", "haystack-ai"),
    Row("LiteLLM", "litellm_client", "chat", "litellm"),
    Row("LiteLLM", "litellm_client", "messages", "litellm"),
    Row("aider", "aider_client", "chat", "aider-chat", "aider"),
)


class ClientStack(Stack):
    """The service in front of this tier's provider."""

    def fake_provider(self) -> Any:
        """What the service is to call."""
        return Provider()


def run(row: Row, stack: Stack, recorder: Recorder, cells: Iterable[str]) -> list[dict[str, Any]]:
    """The results of a row's cells, two models each; recorded exchanges of failures with them."""
    results = stack.folder / f"{row.script}-{row.api}.jsonl"
    results.unlink(missing_ok=True)
    version, command, folder = launch(row)
    env = {
        "PATH": os.environ["PATH"],
        "HOME": str(stack.folder),
        "ORIGIN": recorder.origin,
        "BASE_URL": f"{recorder.origin}/inference/v1",
        "API_KEY": stack.key,
        "API": row.api,
        "ROW": row.name,
        "MODELS": ",".join(MODELS),
        "NO_MODEL": NO_MODEL,
        "CELLS": ",".join(cells),
        "PROVIDER": stack.upstream.url,
        "RESULTS": str(results),
        **closed_network(),
    }
    log = stack.folder / f"{row.script}-{row.api}.out"
    with log.open("wb") as output:
        subprocess.run(
            command, cwd=folder, env=env, stdout=output, stderr=output, timeout=CLIENT_SECONDS
        )
    lines = results.read_text().splitlines() if results.exists() else []
    if not lines:
        broken = {"cell": "whole", "model": MODELS[0], "result": "failed"}
        lines = [json.dumps({**broken, "detail": log.read_text()[-2_000:]})]
    identity = {"client": row.client, "api": row.api, "version": version}
    rows = []
    for line in lines:
        result = {**identity, **json.loads(line)}
        if result["result"] == "failed":
            label = f"{row.name}/{result['model']}/{result['cell']}"
            result["exchanges"] = recorder.of(label)
        rows.append(result)
    return rows


def launch(row: Row) -> tuple[str, list[str], Path]:
    """The client's version, the command that runs its cells, and the folder to run it in."""
    if row.environment == "node":
        folder = install.javascript()
        package = folder / "node_modules" / row.package / "package.json"
        version = json.loads(package.read_text())["version"]
        return version, ["node", "cells.mjs", row.script], folder
    interpreter = str(install.python(row.environment))
    source = f"import importlib.metadata as m; print(m.version({row.package!r}))"
    version = subprocess.run(
        [interpreter, "-c", source], capture_output=True, text=True, check=True
    )
    return version.stdout.strip(), [interpreter, "cells.py", row.script], HERE / "python"


def closed_network() -> dict[str, str]:
    """Environment that lets a client reach loopback and nothing else."""
    dead = "http://127.0.0.1:9"
    proxies = dict.fromkeys(("HTTP_PROXY", "HTTPS_PROXY", "https_proxy", "http_proxy"), dead)
    return {**proxies, "NO_PROXY": "127.0.0.1,localhost", "no_proxy": "127.0.0.1,localhost"}


def table(results: list[dict[str, Any]]) -> str:
    """The results as Markdown: a line for each client and API, and the failures below."""
    lines = ["| Client | Version | API | " + " | ".join(CELLS.values()) + " |"]
    lines.append("|---" * (len(CELLS) + 3) + "|")
    notes: dict[str, int] = {}
    keys = dict.fromkeys((r["client"], r["version"], r["api"]) for r in results)
    for key in keys:
        marks = []
        for cell in CELLS:
            matching = [
                r
                for r in results
                if (r["client"], r["version"], r["api"]) == key and r["cell"] == cell
            ]
            marks.append(mark(matching, notes))
        lines.append("| " + " | ".join([*key, *marks]) + " |")
    lines += ["", f"Each cell was run with {' and '.join(f'`{model}`' for model in MODELS)}."]
    lines += [f"{number}. {note}" for note, number in notes.items()]
    return "\n".join(lines) + "\n"


def mark(results: list[dict[str, Any]], notes: dict[str, int]) -> str:
    """One cell of the table; a reason becomes a note below it."""
    if not results:
        return "not run"
    if all(result["result"] == "none" for result in results):
        note = results[0]["detail"]
        number = notes.setdefault(note, len(notes) + 1)
        return f"– ({number})"
    failed = [result["model"].split("/")[0] for result in results if result["result"] == "failed"]
    return f"**fails**: {', '.join(failed)}" if failed else "✓"


def say(text: str) -> None:
    sys.stdout.write(text + "\n")
    sys.stdout.flush()
