"""Converts the input items of OpenAI's Responses API to chat messages.

Reasoning, text and tool calls are separate items in Responses, and one assistant message in chat.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

from api.responses.reasoning import unsealed
from api.schemas.errors import invalid
from gateway.errors import InvalidRequest

Data = Mapping[str, Any]
Message = dict[str, Any]

INSTEAD = "send the file itself in 'file_data'"
DETAILS = {"original": "high"}  # the highest that all chat models accept
CALL_OUTPUTS = ("function_call_output", "custom_tool_call_output")


def chat_messages(request: Data) -> list[Message]:
    """The conversation, `instructions` first.

    Raises InvalidRequest, with its path into `input`, for stored files, for a tool output without
    a call before it, and for damaged reasoning.
    """
    messages: list[Message] = []
    if request.get("instructions"):
        messages.append({"role": "system", "content": request["instructions"]})
    if isinstance(request["input"], str):
        return [*messages, {"role": "user", "content": request["input"]}]
    called: set[str] = set()
    for index, item in enumerate(request["input"]):
        path = f"input[{index}]"
        kind = item.get("type") or "message"
        if kind in CALL_OUTPUTS and item["call_id"] not in called:
            reason = "answers no tool call before it in 'input'"
            raise invalid("wrong.value", f"{path}.call_id", reason=reason)
        if kind in ("function_call", "custom_tool_call"):
            called.add(item["call_id"])
        ITEM_READERS[kind](messages, item, path)
    return _complete(messages)


def _complete(messages: list[Message]) -> list[Message]:
    """The messages with a `content`, which chat requires, and without those of reasoning alone."""
    complete = []
    for message in messages:
        if "content" in message:
            complete.append(message)
        elif "tool_calls" in message:
            complete.append({"role": message["role"], "content": None, **message})
    if not complete:
        raise invalid("wrong.value", "input", reason="expected at least one message")
    return complete


def _message(messages: list[Message], item: Data, path: str) -> None:
    if item["role"] != "assistant":
        content = _content(item["content"], f"{path}.content")
        messages.append({"role": item["role"], "content": content})
        return
    message = _turn(messages, begins=True)
    content = _content(item["content"], f"{path}.content")
    if "content" in message:
        content = [*_as_parts(message["content"]), *_as_parts(content)]
    message["content"] = content


def _reasoning(messages: list[Message], item: Data, path: str) -> None:
    try:
        blocks = unsealed(item.get("encrypted_content") or "")
    except ValueError:
        path = f"{path}.encrypted_content"
        reason = "expected the value that this service returned"
        raise invalid("wrong.value", path, reason=reason) from None
    text = "".join(part["text"] for part in item.get("content") or item["summary"])
    if not blocks and not text:
        return
    message = _turn(messages, begins=True)
    if text:
        message["reasoning_content"] = message.get("reasoning_content", "") + text
    if blocks:
        message.setdefault("thinking_blocks", []).extend(blocks)


def _function_call(messages: list[Message], item: Data, path: str) -> None:
    function = {"name": item["name"], "arguments": item["arguments"]}
    _call(messages, {"id": item["call_id"], "type": "function", "function": function})


def _custom_call(messages: list[Message], item: Data, path: str) -> None:
    custom = {"name": item["name"], "input": item["input"]}
    _call(messages, {"id": item["call_id"], "type": "custom", "custom": custom})


def _call(messages: list[Message], call: dict[str, Any]) -> None:
    _turn(messages, begins=False).setdefault("tool_calls", []).append(call)


def _output(messages: list[Message], item: Data, path: str) -> None:
    content = _content(item["output"], f"{path}.output")
    messages.append({"role": "tool", "tool_call_id": item["call_id"], "content": content})


def _turn(messages: list[Message], begins: bool) -> Message:
    """The assistant message that an item belongs to; a new one if none is open.

    `begins`: items of this type begin a turn, so they belong to no message that already has text.
    Tool calls keep a message open: in chat, their outputs must follow directly.
    """
    last = messages[-1] if messages else {"role": ""}
    has_text = "content" in last and "tool_calls" not in last
    if last["role"] != "assistant" or (begins and has_text):
        messages.append({"role": "assistant"})
    return messages[-1]


def _content(content: Any, path: str) -> Any:
    """Chat's content; a string if possible, since not every server accepts parts."""
    if isinstance(content, str):
        return content
    parts = [PART_MAKERS[part["type"]](part, f"{path}[{i}]") for i, part in enumerate(content)]
    if not parts:
        return ""
    return parts[0]["text"] if len(parts) == 1 and parts[0]["type"] == "text" else parts


def _as_parts(content: Any) -> Iterable[dict[str, Any]]:
    return [{"type": "text", "text": content}] if isinstance(content, str) else content


def _text(part: Data, path: str) -> dict[str, Any]:
    return {"type": "text", "text": part["text"]}


def _refusal(part: Data, path: str) -> dict[str, Any]:
    return {"type": "refusal", "refusal": part["refusal"]}


def _image(part: Data, path: str) -> dict[str, Any]:
    if part.get("image_url") is None:
        if part.get("file_id") is not None:
            raise _unsupported(f"{path}.file_id", "send the image itself in 'image_url'")
        raise invalid("missing", f"{path}.image_url")
    image = {"url": part["image_url"]}
    if detail := part.get("detail"):
        image["detail"] = DETAILS.get(detail, detail)
    return {"type": "image_url", "image_url": image}


def _file(part: Data, path: str) -> dict[str, Any]:
    if part.get("file_id") is not None:
        raise _unsupported(f"{path}.file_id", INSTEAD)
    data = part.get("file_data") or part.get("file_url")
    if data is None:
        raise invalid("missing", f"{path}.file_data")
    name = {"filename": part["filename"]} if part.get("filename") is not None else {}
    return {"type": "file", "file": {**name, "file_data": data}}


def refuse_addresses(request: Data) -> None:
    """Raise InvalidRequest for files by URL, for a provider that does not accept them."""
    items = request["input"] if isinstance(request["input"], list) else []
    for i, item in enumerate(items):
        for name in ("content", "output"):
            parts = item.get(name) if isinstance(item.get(name), list) else []
            for j, part in enumerate(parts):
                if part.get("file_url") is not None:
                    raise _unsupported(f"input[{i}].{name}[{j}].file_url", INSTEAD)


def _unsupported(path: str, instead: str) -> InvalidRequest:
    return InvalidRequest(
        f"Unsupported parameter: '{path}' is not supported by this service, which neither"
        f" stores nor fetches files: {instead}.",
        param=path,
        code="unsupported_parameter",
    )


PART_MAKERS: dict[str, Callable[[Data, str], dict[str, Any]]] = {
    "input_text": _text,
    "output_text": _text,
    "refusal": _refusal,
    "input_image": _image,
    "input_file": _file,
}
ITEM_READERS: dict[str, Callable[[list[Message], Data, str], None]] = {
    "message": _message,
    "reasoning": _reasoning,
    "function_call": _function_call,
    "function_call_output": _output,
    "custom_tool_call": _custom_call,
    "custom_tool_call_output": _output,
}
