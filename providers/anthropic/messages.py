"""OpenAI's messages as Anthropic's system prompt and turns."""

from __future__ import annotations

import re
from bisect import bisect_left
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, TypeAlias

from providers.anthropic.blocks import ALL_PARTS, TEXT_PARTS, Block, blocks, marked, text
from providers.anthropic.refusals import invalid, unsupported
from providers.anthropic.tools import ToolIds, tool_use

Turn: TypeAlias = dict[str, Any]

SYSTEM_ROLES = frozenset({"system", "developer"})
THINKING = frozenset({"thinking", "redacted_thinking"})

# Anthropic wants a first turn by the user, and words in it.
OPENING = "(The assistant opens the conversation.)"

MAX_BREAKPOINTS = 4  # platform.claude.com/docs, "Prompt caching", read in November 2026

# Signatures and redacted thinking are base64; whatever else stands there is not Anthropic's.
_BASE64 = re.compile(r"[A-Za-z0-9+/_-]+={0,2}")


@dataclass(slots=True)
class Conversation:
    """A conversation in Anthropic's terms.

    In `turns`, user and assistant alternate, the user first; `system` holds blocks of text.
    """

    system: list[Block] = field(default_factory=list)
    turns: list[Turn] = field(default_factory=list)
    last_message: int = 0  # where the caller's last message of a turn stands

    @property
    def prompt(self) -> str | list[Block]:
        """The system prompt: one text, or blocks where a cache breakpoint must keep its place."""
        if any("cache_control" in block for block in self.system):
            return self.system
        return "\n".join(block["text"] for block in self.system)

    @property
    def prefilled(self) -> bool:
        """Whether the assistant is to continue a turn of its own."""
        return _is_assistants(self.turns[-1])

    @property
    def may_think(self) -> bool:
        """Whether a model with a thinking budget may think: it goes on only from its own thinking.

        Source: platform.claude.com/docs, "Extended thinking with tool use".
        """
        if self.turns[-1]["content"][0]["type"] != "tool_result":
            return True
        return self.turns[-2]["content"][0]["type"] in THINKING


def conversation(messages: Iterable[Mapping[str, Any]]) -> Conversation:
    """The messages in Anthropic's terms; raises InvalidRequest, naming the path of what cannot be.

    A system prompt on its own is a question, and an answer of the assistant at the beginning gets a
    turn of the user before it.
    """
    made = Conversation()
    ids = ToolIds()
    waiting = ""  # the path of the assistant's message whose calls wait for results
    for i, message in enumerate(messages):
        path = f"messages[{i}]"
        role = message["role"]
        if role in SYSTEM_ROLES:
            made.system += blocks(message.get("content"), f"{path}.content", TEXT_PARTS)
        elif role == "assistant":
            said = _assistant(message, path, ids, waiting, made.turns)
            waiting = path if any(b["type"] == "tool_use" for b in said) else waiting
            _append(made, "assistant", said, i)
        elif role == "tool":
            _append(made, "user", [_tool_result(message, path, ids)], i)
        elif role == "user":
            said = blocks(message.get("content"), f"{path}.content", ALL_PARTS)
            _append(made, "user", said, i)
        else:
            raise unsupported(f"{path}.role", f"does not support '{role}'")
    ids.check_answered(waiting)
    _open(made)
    _strip_end(made.turns)
    return made


def check_breakpoints(body: Mapping[str, Any]) -> None:
    """Raises InvalidRequest for more cache breakpoints, or in another order, than Anthropic takes.

    Source: platform.claude.com/docs, "Prompt caching": long-lived ones come first.
    """
    lives = [mark.get("ttl", "5m") for mark in _breakpoints(body)]
    if len(lives) > MAX_BREAKPOINTS:
        raise unsupported("cache_control", f"may stand at most {MAX_BREAKPOINTS} times")
    if "5m" in lives and "1h" in lives[lives.index("5m") :]:
        raise unsupported("cache_control", "may not have a ttl of '1h' after one of '5m'")


def _breakpoints(body: Mapping[str, Any]) -> Iterable[Mapping[str, Any]]:
    """Every `cache_control`, in the order in which Anthropic reads: tools, system, messages."""
    system = body.get("system")
    contents = [
        body.get("tools") or [],
        system if isinstance(system, list) else [],
        *(turn["content"] for turn in body["messages"]),
    ]
    for block in (block for content in contents for block in content):
        inner = block.get("content")
        for each in (*(inner if isinstance(inner, list) else ()), block):
            if "cache_control" in each:
                yield each["cache_control"]


def _append(made: Conversation, side: str, said: list[Block], i: int) -> None:
    if not said:
        return
    made.last_message = i
    turns = made.turns
    if not turns or turns[-1]["role"] != side:
        turns.append({"role": side, "content": []})
    content = turns[-1]["content"]
    if said[0]["type"] == "tool_result":
        # Results answer the turn before: Anthropic wants them ahead of all else that is said.
        end = bisect_left(content, True, key=lambda block: block["type"] != "tool_result")
        content[end:end] = said
    else:
        content += said


def _open(made: Conversation) -> None:
    if not made.turns:
        if not made.system:
            raise invalid("messages", "no text in them")
        made.turns.append({"role": "user", "content": made.system})
        made.system = []
    elif made.turns[0]["role"] == "assistant":
        made.turns.insert(0, {"role": "user", "content": [text(OPENING)]})


def _is_assistants(turn: Turn) -> bool:
    return bool(turn["role"] == "assistant")


def _strip_end(turns: list[Turn]) -> None:
    """A last turn by the assistant is to be continued, and may not end in white space."""
    last = turns[-1]["content"][-1]
    if _is_assistants(turns[-1]) and last["type"] == "text":
        last["text"] = last["text"].rstrip()


def _assistant(
    message: Mapping[str, Any], path: str, ids: ToolIds, waiting: str, turns: list[Turn]
) -> list[Block]:
    goes_on = bool(turns) and _is_assistants(turns[-1])
    words = message.get("content") or message.get("refusal")
    said = blocks(words, f"{path}.content", TEXT_PARTS)
    if not goes_on:
        ids.check_answered(waiting)
    for i, call in enumerate(message.get("tool_calls") or ()):
        said.append(tool_use(call, f"{path}.tool_calls[{i}]", ids))
    # Thinking comes before all that is said in a turn, and cannot stand alone in it.
    return said if goes_on or not said else [*_thinking(message), *said]


def _thinking(message: Mapping[str, Any]) -> list[Block]:
    """The assistant's thinking as Anthropic has signed it; what has no signature is left out."""
    made: list[Block] = []
    for block in message.get("thinking_blocks") or ():
        proof = block.get("signature" if block["type"] == "thinking" else "data")
        if not isinstance(proof, str) or not _BASE64.fullmatch(proof):
            continue
        if block["type"] == "thinking":
            made.append({"type": "thinking", "thinking": block["thinking"], "signature": proof})
        else:
            made.append({"type": "redacted_thinking", "data": proof})
    return made


def _tool_result(message: Mapping[str, Any], path: str, ids: ToolIds) -> Block:
    ident = ids.answer(message["tool_call_id"], path)
    result: Block = {"type": "tool_result", "tool_use_id": ident}
    if content := blocks(message.get("content"), f"{path}.content", ALL_PARTS):
        result["content"] = content
    if message.get("is_error"):
        result["is_error"] = True
    return marked(result, message)
