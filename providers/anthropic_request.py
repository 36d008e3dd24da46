"""A chat call as the body of an Anthropic Messages request."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

import orjson

from gateway.chat import ChatCall
from gateway.errors import InvalidRequest

MAX_TOKENS = 8192  # where the caller names no limit: Anthropic wants one

SYSTEM_ROLES = frozenset({"system", "developer"})

# Data URLs name their media type; these are what Anthropic reads.
IMAGES = {
    "image/jpeg": "image/jpeg",
    "image/jpg": "image/jpeg",
    "image/png": "image/png",
    "image/gif": "image/gif",
    "image/webp": "image/webp",
}

TOOL_CHOICES = {"auto": "auto", "required": "any", "none": "none"}

# Anthropic wants a first turn by the user, and words in it.
OPENING = {"type": "text", "text": "(The assistant opens the conversation.)"}

Block = dict[str, Any]
Turn = dict[str, Any]


def request_body(call: ChatCall) -> dict[str, Any]:
    """The body; raises InvalidRequest, naming the path of what cannot be said to Anthropic.

    Tuning knobs without a counterpart (seed, penalties, log probabilities) are left out.
    """
    asked = {key: value for key, value in call.parameters.items() if value is not None}
    _refuse_unsupported(asked)
    system, turns = _conversation(asked["messages"])
    body: dict[str, Any] = {
        "model": call.model,
        "max_tokens": _max_tokens(asked, call.max_output_tokens),
        "messages": turns,
        "stream": True,
    }
    if system:
        body["system"] = system
    if "temperature" in asked:
        body["temperature"] = min(asked["temperature"], 1)
    elif "top_p" in asked:  # Anthropic takes one of the two
        body["top_p"] = asked["top_p"]
    stops = asked.get("stop", [])
    if stops := [s for s in ([stops] if isinstance(stops, str) else stops) if s.strip()]:
        body["stop_sequences"] = stops
    if "user" in asked:
        body["metadata"] = {"user_id": asked["user"]}
    if asked.get("tools"):
        body["tools"] = [_tool(tool, f"tools[{i}]") for i, tool in enumerate(asked["tools"])]
        if choice := _tool_choice(asked):
            body["tool_choice"] = choice
    if schema := _schema(asked.get("response_format")):
        body["output_config"] = {"format": {"type": "json_schema", "schema": schema}}
    return body


def _unsupported(path: str, what: str) -> InvalidRequest:
    return InvalidRequest(
        f"Unsupported value: '{path}' {what} with this model.", param=path, code="unsupported_value"
    )


def _refuse_unsupported(asked: Mapping[str, Any]) -> None:
    if asked.get("n", 1) != 1:
        raise _unsupported("n", "must be 1")
    if asked.get("modalities", ["text"]) != ["text"]:
        raise _unsupported("modalities", "must be ['text']")
    for name in ("audio", "functions", "function_call"):
        if name in asked:
            raise InvalidRequest(
                f"Unsupported parameter: '{name}' is not supported with this model.",
                param=name,
                code="unsupported_parameter",
            )


def _max_tokens(asked: Mapping[str, Any], limit: int | None) -> int:
    wanted: int = asked.get("max_completion_tokens") or asked.get("max_tokens") or MAX_TOKENS
    return min(wanted, limit) if limit else wanted


def _conversation(messages: Iterable[Mapping[str, Any]]) -> tuple[str, list[Turn]]:
    """The system prompt, and turns in which user and assistant alternate, the user first."""
    prompts: list[str] = []
    turns: list[Turn] = []
    for i, message in enumerate(messages):
        path = f"messages[{i}]"
        role = message["role"]
        if role in SYSTEM_ROLES:
            blocks = _blocks(message.get("content"), f"{path}.content", TEXT_PARTS)
            prompts += (block["text"] for block in blocks)
        elif role in TURNS:
            side, make = TURNS[role]
            _append(turns, side, make(message, path))
        else:
            raise _unsupported(f"{path}.role", f"does not support '{role}'")
    system = "\n".join(prompts)
    if not turns:
        if not system:
            raise InvalidRequest("Invalid 'messages': no text in them.", param="messages")
        # A system prompt on its own is a question.
        return "", [{"role": "user", "content": [{"type": "text", "text": system}]}]
    if turns[0]["role"] == "assistant":
        turns.insert(0, {"role": "user", "content": [OPENING]})
    _strip_end(turns)
    return system, turns


def _append(turns: list[Turn], side: str, blocks: list[Block]) -> None:
    if not blocks:
        return
    if not turns or turns[-1]["role"] != side:
        turns.append({"role": side, "content": []})
    content = turns[-1]["content"]
    if blocks[0]["type"] == "tool_result":
        # Results answer the turn before: Anthropic wants them ahead of all else that is said.
        results = sum(block["type"] == "tool_result" for block in content)
        content[results:results] = blocks
    else:
        content += blocks


def _strip_end(turns: list[Turn]) -> None:
    """A last turn by the assistant is to be continued, and may not end in white space."""
    last = turns[-1]["content"][-1]
    if turns[-1]["role"] == "assistant" and last["type"] == "text":
        last["text"] = last["text"].rstrip()


def _user(message: Mapping[str, Any], path: str) -> list[Block]:
    return _blocks(message.get("content"), f"{path}.content", ALL_PARTS)


def _assistant(message: Mapping[str, Any], path: str) -> list[Block]:
    said = message.get("content") or message.get("refusal")
    blocks = _blocks(said, f"{path}.content", TEXT_PARTS)
    for i, call in enumerate(message.get("tool_calls") or ()):
        blocks.append(_tool_use(call, f"{path}.tool_calls[{i}]"))
    return blocks


def _tool_use(call: Mapping[str, Any], path: str) -> Block:
    if call.get("type", "function") != "function":
        raise _unsupported(f"{path}.type", "must be 'function'")
    function = call["function"]
    try:
        arguments = orjson.loads(function.get("arguments") or "{}")
    except orjson.JSONDecodeError:
        arguments = None
    if not isinstance(arguments, dict):
        path = f"{path}.function.arguments"
        raise InvalidRequest(
            f"Invalid '{path}': expected a JSON object.", param=path, code="invalid_value"
        )
    return {"type": "tool_use", "id": call["id"], "name": function["name"], "input": arguments}


def _tool_result(message: Mapping[str, Any], path: str) -> list[Block]:
    result: Block = {"type": "tool_result", "tool_use_id": message["tool_call_id"]}
    if content := _blocks(message.get("content"), f"{path}.content", ALL_PARTS):
        result["content"] = content
    return [result]


def _blocks(content: Any, path: str, kinds: Mapping[str, PartMaker]) -> list[Block]:
    """Content as blocks, without empty text, which Anthropic refuses."""
    if content is None or isinstance(content, str):
        return [_text(content)] if content and content.strip() else []
    blocks = []
    for i, part in enumerate(content):
        make = kinds.get(part.get("type"))
        if make is None:
            raise _unsupported(f"{path}[{i}]", f"does not support type '{part.get('type')}'")
        blocks.append(make(part, f"{path}[{i}]"))
    return [b for b in blocks if b["type"] != "text" or b["text"].strip()]


def _text(text: str) -> Block:
    return {"type": "text", "text": text}


def _image(part: Mapping[str, Any], path: str) -> Block:
    path = f"{path}.image_url.url"
    url: str = part["image_url"]["url"]
    scheme, _, rest = url.partition(":")
    if scheme.lower() == "https":
        # Passed on, never fetched: it could point into this network.
        return {"type": "image", "source": {"type": "url", "url": url}}
    kind, encoded, data = rest.partition(";base64,")
    if scheme.lower() != "data" or not encoded:
        raise _unsupported(path, "must be an https or a base64 data URL")
    if kind.lower() not in IMAGES:
        raise _unsupported(path, f"must be one of {', '.join(sorted(set(IMAGES.values())))}")
    source = {"type": "base64", "media_type": IMAGES[kind.lower()], "data": data}
    return {"type": "image", "source": source}


PartMaker = Callable[[Mapping[str, Any], str], Block]

TEXT_PARTS: dict[str, PartMaker] = {
    "text": lambda part, path: _text(part["text"]),
    "refusal": lambda part, path: _text(part["refusal"]),
}
ALL_PARTS: dict[str, PartMaker] = {**TEXT_PARTS, "image_url": _image}

# OpenAI's role -> whose turn it is at Anthropic, and how it is said there.
TURNS: dict[str, tuple[str, Callable[[Mapping[str, Any], str], list[Block]]]] = {
    "user": ("user", _user),
    "assistant": ("assistant", _assistant),
    "tool": ("user", _tool_result),
}


def _tool(tool: Mapping[str, Any], path: str) -> Block:
    if tool.get("type") != "function":
        raise _unsupported(f"{path}.type", "must be 'function'")
    function = tool["function"]
    schema = {"type": "object", **(function.get("parameters") or {"properties": {}})}
    made: Block = {"name": function["name"], "input_schema": schema}
    if function.get("description"):
        made["description"] = function["description"]
    if function.get("strict"):
        made["strict"] = True
    return made


def _tool_choice(asked: Mapping[str, Any]) -> Block | None:
    choice = asked.get("tool_choice")
    single = asked.get("parallel_tool_calls") is False
    if choice is None and not single:
        return None
    if isinstance(choice, Mapping):
        if choice.get("type") != "function":
            raise _unsupported("tool_choice.type", "must be 'function'")
        made: Block = {"type": "tool", "name": choice["function"]["name"]}
    else:
        made = {"type": TOOL_CHOICES[choice or "auto"]}
    if single and made["type"] != "none":
        made["disable_parallel_tool_use"] = True
    return made


def _schema(wanted: Mapping[str, Any] | None) -> Any:
    kind = (wanted or {}).get("type", "text")
    if kind == "text":
        return None
    if wanted is None or kind != "json_schema":
        raise _unsupported("response_format.type", f"does not support '{kind}'")
    return wanted["json_schema"]["schema"]
