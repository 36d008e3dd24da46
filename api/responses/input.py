"""The input items of OpenAI's Responses API as chat messages.

Chat says in one message of the assistant what Responses says in several items: its reasoning, its
text and its tool calls.
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
DETAILS = {"original": "high"}  # the most that every chat model knows
CALL_OUTPUTS = ("function_call_output", "custom_tool_call_output")


def messages(asked: Data) -> list[Message]:
    """The conversation, `instructions` first.

    Raises InvalidRequest, with its path into `input`, for what needs stored files, for a tool's
    output that answers no call before it, and for damaged reasoning.
    """
    made: list[Message] = []
    if asked.get("instructions"):
        made.append({"role": "system", "content": asked["instructions"]})
    if isinstance(asked["input"], str):
        return [*made, {"role": "user", "content": asked["input"]}]
    called: set[str] = set()
    for index, item in enumerate(asked["input"]):
        path = f"input[{index}]"
        kind = item.get("type") or "message"
        if kind in CALL_OUTPUTS and item["call_id"] not in called:
            reason = "answers no tool call before it in 'input'"
            raise invalid("wrong.value", f"{path}.call_id", reason=reason)
        if kind in ("function_call", "custom_tool_call"):
            called.add(item["call_id"])
        ITEM_READERS[kind](made, item, path)
    return _complete(made)


def _complete(made: list[Message]) -> list[Message]:
    """Without the reasoning that nothing came of; chat wants a content, if only null."""
    complete = []
    for message in made:
        if "content" in message:
            complete.append(message)
        elif "tool_calls" in message:
            complete.append({"role": message["role"], "content": None, **message})
    if not complete:
        raise invalid("wrong.value", "input", reason="there is no message in it")
    return complete


def _message(made: list[Message], item: Data, path: str) -> None:
    if item["role"] != "assistant":
        content = _content(item["content"], f"{path}.content")
        made.append({"role": item["role"], "content": content})
        return
    message = _turn(made, begins=True)
    content = _content(item["content"], f"{path}.content")
    if "content" in message:
        content = [*_as_parts(message["content"]), *_as_parts(content)]
    message["content"] = content


def _reasoning(made: list[Message], item: Data, path: str) -> None:
    try:
        blocks = unsealed(item.get("encrypted_content") or "")
    except ValueError:
        path = f"{path}.encrypted_content"
        raise invalid("wrong.value", path, reason="it is not what this service gave out") from None
    thought = "".join(part["text"] for part in item.get("content") or item["summary"])
    if not blocks and not thought:
        return
    message = _turn(made, begins=True)
    if thought:
        message["reasoning_content"] = message.get("reasoning_content", "") + thought
    if blocks:
        message.setdefault("thinking_blocks", []).extend(blocks)


def _function_call(made: list[Message], item: Data, path: str) -> None:
    function = {"name": item["name"], "arguments": item["arguments"]}
    _call(made, {"id": item["call_id"], "type": "function", "function": function})


def _custom_call(made: list[Message], item: Data, path: str) -> None:
    custom = {"name": item["name"], "input": item["input"]}
    _call(made, {"id": item["call_id"], "type": "custom", "custom": custom})


def _call(made: list[Message], call: dict[str, Any]) -> None:
    _turn(made, begins=False).setdefault("tool_calls", []).append(call)


def _output(made: list[Message], item: Data, path: str) -> None:
    content = _content(item["output"], f"{path}.output")
    made.append({"role": "tool", "tool_call_id": item["call_id"], "content": content})


def _turn(made: list[Message], begins: bool) -> Message:
    """The assistant's message that an item belongs to; a new one where none is open.

    `begins`: the item is of a kind that begins an answer, so it belongs to no message that has its
    text already. Tool calls keep a message open: chat wants nothing between them and their outputs.
    """
    last = made[-1] if made else {"role": ""}
    spoken = "content" in last and "tool_calls" not in last
    if last["role"] != "assistant" or (begins and spoken):
        made.append({"role": "assistant"})
    return made[-1]


def _content(content: Any, path: str) -> Any:
    """Chat's content; a string where that says the same, since not every server takes parts."""
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


def refuse_addresses(asked: Data) -> None:
    """Raises InvalidRequest for files by their address, for a provider that takes none."""
    items = asked["input"] if isinstance(asked["input"], list) else []
    for i, item in enumerate(items):
        for name in ("content", "output"):
            parts = item.get(name) if isinstance(item.get(name), list) else []
            for j, part in enumerate(parts):
                if part.get("file_url") is not None:
                    raise _unsupported(f"input[{i}].{name}[{j}].file_url", INSTEAD)


def _unsupported(path: str, instead: str) -> InvalidRequest:
    return InvalidRequest(
        f"Unsupported parameter: '{path}' is not supported by this service, which keeps and"
        f" fetches no files: {instead}.",
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
