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

# The text of the first turn where the caller has none: Anthropic requires one by the user.
OPENING = "(The assistant opens the conversation.)"
# The text of a last turn of the user, for models that do not continue one of the assistant.
CONTINUATION = "(Continue.)"

MAX_BREAKPOINTS = 4  # platform.claude.com/docs, "Prompt caching", read in November 2026

# Signatures and redacted thinking are base64; other values are not Anthropic's.
_BASE64 = re.compile(r"[A-Za-z0-9+/_-]+={0,2}")


@dataclass(slots=True)
class Conversation:
    """A conversation in Anthropic's terms.

    In `turns`, user and assistant alternate, the user first; a turn of the system may stand between
    a turn of the user and one of the assistant, or at the end. `system` holds blocks of text.
    """

    system: list[Block] = field(default_factory=list)
    turns: list[Turn] = field(default_factory=list)
    last_message: int = 0  # index of the last message that is in a turn

    @property
    def prompt(self) -> str | list[Block]:
        """The system prompt: one text, or blocks if one of them has a cache breakpoint."""
        if any("cache_control" in block for block in self.system):
            return self.system
        return "\n".join(block["text"] for block in self.system)

    @property
    def prefilled(self) -> bool:
        """Whether the last turn is the assistant's, for the model to continue."""
        return _is_assistants(self.turns[-1])

    @property
    def may_think(self) -> bool:
        """Whether a model with a thinking budget may think.

        After a tool call it may only if the turn of that call begins with thinking.
        Source: platform.claude.com/docs, "Extended thinking with tool use".
        """
        turns = [turn for turn in self.turns[-3:] if turn["role"] != "system"]
        if turns[-1]["content"][0]["type"] != "tool_result":
            return True
        return turns[-2]["content"][0]["type"] in THINKING

    def instruct(self, words: str) -> None:
        """Add words at the end of the conversation, where they leave cached prompts as they are."""
        if self.prefilled:
            self.system.append(text(words))
        else:
            self.turns[-1]["content"].append(text(words))

    def go_on(self) -> None:
        """Let the user speak last."""
        self.turns.append({"role": "user", "content": [text(CONTINUATION)]})


def conversation(messages: Iterable[Mapping[str, Any]], system_turns: bool = False) -> Conversation:
    """Return the messages in Anthropic's terms.

    System messages at the beginning are the system prompt. Later ones stay where they are, so that
    what was cached before them stays cached: as turns of the system where the model takes them
    (`system_turns`), else as text of the user's turn. A system prompt without other messages
    becomes a turn of the user. An assistant's message at the beginning gets a turn of the user
    before it. Raises InvalidRequest with the path of a message that Anthropic cannot take.
    """
    result = Conversation()
    ids = ToolIds()
    waiting = ""  # the path of the assistant's message whose calls wait for results
    for i, message in enumerate(messages):
        path = f"messages[{i}]"
        role = message["role"]
        if role in SYSTEM_ROLES:
            content = blocks(message.get("content"), f"{path}.content", TEXT_PARTS)
            if not result.turns:
                result.system += content
            else:
                follows_user = not _is_assistants(result.turns[-1])
                _append(result, "system" if system_turns and follows_user else "user", content, i)
        elif role == "assistant":
            content = _assistant(message, path, ids, waiting, result.turns)
            waiting = path if any(b["type"] == "tool_use" for b in content) else waiting
            _append(result, "assistant", content, i)
        elif role == "tool":
            _append(result, "user", [_tool_result(message, path, ids)], i)
        elif role == "user":
            content = blocks(message.get("content"), f"{path}.content", ALL_PARTS)
            _append(result, "user", content, i)
        else:
            raise unsupported(f"{path}.role", f"does not support '{role}'")
    ids.check_answered(waiting)
    _open(result)
    _strip_end(result.turns)
    return result


def fit_breakpoints(body: Mapping[str, Any], scoped: bool) -> None:
    """Keep the last cache breakpoints that Anthropic takes, in a form that it takes.

    It takes four, and none of 1 h after one of 5 min. The later ones cache more. `scoped`: the
    caller's betas allow a scope. Source: platform.claude.com/docs, "Prompt caching".
    """
    marked = list(_breakpoints(body))
    for block in marked[:-MAX_BREAKPOINTS]:
        del block["cache_control"]
    short = False
    for block in marked[-MAX_BREAKPOINTS:]:
        mark = block["cache_control"]
        if short:
            mark.pop("ttl", None)
        if not scoped:
            mark.pop("scope", None)
        short = short or mark.get("ttl", "5m") == "5m"


def _breakpoints(body: Mapping[str, Any]) -> Iterable[Block]:
    """Yield every block with a `cache_control`, in Anthropic's order: tools, system, messages."""
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
                yield each


def _append(to: Conversation, role: str, new: list[Block], i: int) -> None:
    if not new:
        return
    to.last_message = i
    turns = to.turns
    if role == "user" and turns and turns[-1]["role"] == "system":
        # Only the assistant may speak after the system. Source: platform.claude.com/docs,
        # "Mid-conversation system messages".
        turns[-2]["content"] += turns.pop()["content"]
    if not turns or turns[-1]["role"] != role:
        turns.append({"role": role, "content": []})
    content = turns[-1]["content"]
    if new[0]["type"] == "tool_result":
        # Anthropic wants the results of tools at the beginning of a turn.
        end = bisect_left(content, True, key=lambda block: block["type"] != "tool_result")
        content[end:end] = new
    else:
        content += new


def _open(talk: Conversation) -> None:
    """Make the first turn the user's."""
    if not talk.turns:
        if not talk.system:
            raise invalid("messages", "expected at least one with text")
        talk.turns.append({"role": "user", "content": talk.system})
        talk.system = []
    elif talk.turns[0]["role"] == "assistant":
        talk.turns.insert(0, {"role": "user", "content": [text(OPENING)]})


def _is_assistants(turn: Turn) -> bool:
    return bool(turn["role"] == "assistant")


def _strip_end(turns: list[Turn]) -> None:
    """Strip the end of a last turn by the assistant: Anthropic refuses white space there."""
    last = turns[-1]["content"][-1]
    if _is_assistants(turns[-1]) and last["type"] == "text":
        last["text"] = last["text"].rstrip()


def _assistant(
    message: Mapping[str, Any], path: str, ids: ToolIds, waiting: str, turns: list[Turn]
) -> list[Block]:
    continues = bool(turns) and _is_assistants(turns[-1])
    content = message.get("content") or message.get("refusal")
    result = blocks(content, f"{path}.content", TEXT_PARTS)
    if not continues:
        ids.check_answered(waiting)
    for i, call in enumerate(message.get("tool_calls") or ()):
        result.append(tool_use(call, f"{path}.tool_calls[{i}]", ids))
    if continues and turns[-1]["content"][0]["type"] not in THINKING:
        return result  # a turn with thinking begins with it
    # Thinking cannot stand alone in a turn.
    return [*_thinking(message), *result] if result else []


def _thinking(message: Mapping[str, Any]) -> list[Block]:
    """Return the assistant's thinking that Anthropic has signed."""
    result: list[Block] = []
    for block in message.get("thinking_blocks") or ():
        proof = block.get("signature" if block["type"] == "thinking" else "data")
        if not isinstance(proof, str) or not _BASE64.fullmatch(proof):
            continue
        if block["type"] == "thinking":
            result.append({"type": "thinking", "thinking": block["thinking"], "signature": proof})
        else:
            result.append({"type": "redacted_thinking", "data": proof})
    return result


def _tool_result(message: Mapping[str, Any], path: str, ids: ToolIds) -> Block:
    ident = ids.result(message["tool_call_id"], path)
    result: Block = {"type": "tool_result", "tool_use_id": ident}
    if content := blocks(message.get("content"), f"{path}.content", ALL_PARTS):
        result["content"] = content
    if message.get("is_error"):
        result["is_error"] = True
    return marked(result, message)
