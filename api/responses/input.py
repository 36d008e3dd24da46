"""Converts the input items of OpenAI's Responses API to chat messages.

Reasoning, text and tool calls are separate items in Responses, and one assistant message in chat.
Items that only their own service can use are left out and named. So a conversation that began
elsewhere, or with tools that are not served here, goes on.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

import orjson

from api.responses.items_schema import CHAT_PARTS
from api.responses.reasoning import unsealed
from api.responses.tools import BRINGS_TOOLS, Tools
from api.schemas.errors import invalid
from gateway.errors import InvalidRequest

Data = Mapping[str, Any]
Message = dict[str, Any]
Part = dict[str, Any]

INSTEAD = "send the file itself in 'file_data'"
DETAILS = {"original": "high"}  # the highest that all chat models accept
OUTPUT = "_output"  # end of the type of an item with a tool's output
CALL = "_call"  # end of the type of an item with a tool call
# Types of calls that the client runs -> their field with the arguments. They are functions in chat.
CLIENT_CALLS = {
    "local_shell_call": "action",
    "shell_call": "action",
    "apply_patch_call": "operation",
    "computer_call": "action",
}


class Conversation:
    """The messages of a request's input, and the types of what was left out of it."""

    def __init__(self, tools: Tools) -> None:
        self.messages: list[Message] = []
        self.ignored: list[str] = []
        self._tools = tools
        self._called: set[str] = set()
        self._answered: set[str] = set()

    def read(self, items: list[Data]) -> None:
        """Add the messages of these items.

        Raises InvalidRequest, with its path into `input`, for stored files and for a tool output
        without a call before it.
        """
        answered = (_call_id(item) for item in items if _kind(item).endswith(OUTPUT))
        self._answered = set(filter(None, answered))
        for index, item in enumerate(items):
            path = f"input[{index}]"
            kind = _kind(item)
            if reader := ITEM_READERS.get(kind):
                reader(self, item, path)
            elif kind.endswith(OUTPUT) and kind.removesuffix(OUTPUT) in CLIENT_CALLS:
                self._client_output(item, path)
            elif kind in CLIENT_CALLS and _call_id(item) in self._answered:
                self._client_call(item, kind)
            elif kind not in BRINGS_TOOLS:
                self.ignored.append(kind)

    def complete(self) -> list[Message]:
        """The messages with a `content`, which chat requires, without those of reasoning alone.

        Raises InvalidRequest if there are none.
        """
        complete = []
        for message in self.messages:
            if "content" in message:
                complete.append(message)
            elif "tool_calls" in message:
                complete.append({"role": message["role"], "content": None, **message})
        if not complete:
            raise invalid("wrong.value", "input", reason="expected at least one message")
        return complete

    def _message(self, item: Data, path: str) -> None:
        role = item["role"]
        content = self._content(item["content"], f"{path}.content", role)
        if role != "assistant":
            if content == "":
                return
            if role != "user" and not _is_text(content):
                role = "user"  # instructions are text in chat
            self.messages.append({"role": role, "content": content})
            return
        message = self._turn(begins=True)
        if message.get("content") and content:
            content = [*_as_parts(message["content"]), *_as_parts(content)]
        message["content"] = content or message.get("content", "")

    def _agent_message(self, item: Data, path: str) -> None:
        content = self._content(item["content"], f"{path}.content")
        if content == "":
            return
        name = {"type": "text", "text": f"Message from {item.get('author') or 'another agent'}:\n"}
        parts = [name, *_as_parts(content)]
        if _is_text(parts):
            self.messages.append({"role": "user", "content": "".join(p["text"] for p in parts)})
        else:
            self.messages.append({"role": "user", "content": parts})

    def _reasoning(self, item: Data, path: str) -> None:
        try:
            blocks = unsealed(item.get("encrypted_content") or "")
        except ValueError:
            blocks = []
            self.ignored.append("encrypted_content")
        text = "".join(part["text"] for part in item.get("content") or item.get("summary") or ())
        if not blocks and not text:
            return
        message = self._turn(begins=True)
        if text:
            message["reasoning_content"] = message.get("reasoning_content", "") + text
        if blocks:
            message.setdefault("thinking_blocks", []).extend(blocks)

    def _function_call(self, item: Data, path: str) -> None:
        arguments = item.get("arguments")
        name = self._tools.sent_name(item["name"], item.get("namespace"))
        self._call(item["call_id"], "function", {"name": name, "arguments": _as_json(arguments)})

    def _custom_call(self, item: Data, path: str) -> None:
        name = self._tools.sent_name(item["name"], item.get("namespace"))
        self._call(item["call_id"], "custom", {"name": name, "input": item.get("input") or ""})

    def _client_call(self, item: Data, kind: str) -> None:
        arguments = _as_json(item.get(CLIENT_CALLS[kind]))
        function = {"name": kind.removesuffix(CALL), "arguments": arguments}
        self._call(_call_id(item), "function", function)

    def _call(self, call_id: str, kind: str, called: dict[str, str]) -> None:
        self._called.add(call_id)
        call = {"id": call_id, "type": kind, kind: called}
        self._turn(begins=False).setdefault("tool_calls", []).append(call)

    def _output(self, item: Data, path: str) -> None:
        content = self._content(item.get("output"), f"{path}.output")
        call_id = item.get("call_id")
        if call_id is None:  # a text that the client has put in
            self.messages.append({"role": "user", "content": content})
            return
        if call_id not in self._called:
            reason = "answers no tool call before it in 'input'"
            raise invalid("wrong.value", f"{path}.call_id", reason=reason)
        self._add_result(call_id, content)

    def _client_output(self, item: Data, path: str) -> None:
        output = item.get("output")
        content = output if isinstance(output, str) else _as_json(output)
        if _call_id(item) in self._called:
            self._add_result(_call_id(item), content)
        else:
            self.ignored.append(item["type"])

    def _add_result(self, call_id: str, content: Any) -> None:
        """Add a tool message behind its call, where chat requires it.

        Clients put messages between a call and its output, such as one that came meanwhile.
        """
        at = len(self.messages)
        while not _has_call(self.messages[at - 1], call_id):
            at -= 1
        while at < len(self.messages) and self.messages[at]["role"] == "tool":
            at += 1
        message = {"role": "tool", "tool_call_id": call_id, "content": content}
        self.messages.insert(at, message)

    def _turn(self, begins: bool) -> Message:
        """The assistant message that an item belongs to; a new one if none is open.

        `begins`: items of this type begin a turn, so they belong to no message that already has
        text. Tool calls keep a message open: in chat, their outputs must follow directly.
        """
        last = self.messages[-1] if self.messages else {"role": ""}
        has_text = "content" in last and "tool_calls" not in last
        if last["role"] != "assistant" or (begins and has_text):
            self.messages.append({"role": "assistant"})
        return self.messages[-1]

    def _content(self, content: Any, path: str, role: str = "") -> Any:
        """Chat's content; a string if possible, since not every server accepts parts.

        In chat, an assistant has only text, and only an assistant refuses.
        """
        if content is None or isinstance(content, str):
            return content or ""
        parts: list[Part] = []
        for i, part in enumerate(content):
            kind = part["type"]
            make = PART_MAKERS.get(kind)
            if make is None or (role == "assistant" and make not in TEXT_MAKERS):
                self.ignored.append(kind)
            elif make is _refusal and role != "assistant":
                parts.append({"type": "text", "text": part["refusal"]})
            else:
                parts.append(make(part, f"{path}[{i}]"))
        if not parts:
            return ""
        return parts[0]["text"] if len(parts) == 1 and parts[0]["type"] == "text" else parts


def _kind(item: Data) -> str:
    return item.get("type") or "message"


def _call_id(item: Data) -> str:
    """The id of a call; items of a local shell may have it in `id` alone."""
    return str(item.get("call_id") or item.get("id") or "")


def _has_call(message: Message, call_id: str) -> bool:
    return any(call["id"] == call_id for call in message.get("tool_calls") or ())


def _as_json(value: Any) -> str:
    """The arguments of a call as chat has them: JSON in a string."""
    if value is None:
        return "{}"
    return value if isinstance(value, str) else orjson.dumps(value).decode()


def _as_parts(content: Any) -> Iterable[Part]:
    return [{"type": "text", "text": content}] if isinstance(content, str) else content


def _is_text(content: Any) -> bool:
    return all(part["type"] == "text" for part in _as_parts(content))


def _text(part: Data, path: str) -> Part:
    return {"type": "text", "text": part["text"]}


def _refusal(part: Data, path: str) -> Part:
    return {"type": "refusal", "refusal": part["refusal"]}


def _image(part: Data, path: str) -> Part:
    if part.get("image_url") is None:
        if part.get("file_id") is not None:
            raise _unsupported(f"{path}.file_id", "send the image itself in 'image_url'")
        raise invalid("missing", f"{path}.image_url")
    image = {"url": part["image_url"]}
    if detail := part.get("detail"):
        image["detail"] = DETAILS.get(detail, detail)
    return {"type": "image_url", "image_url": image}


def _file(part: Data, path: str) -> Part:
    if part.get("file_id") is not None:
        raise _unsupported(f"{path}.file_id", INSTEAD)
    data = part.get("file_data") or part.get("file_url")
    if data is None:
        raise invalid("missing", f"{path}.file_data")
    name = {"filename": part["filename"]} if part.get("filename") is not None else {}
    return {"type": "file", "file": {**name, "file_data": data}}


def _audio(part: Data, path: str) -> Part:
    if audio := part.get("input_audio"):
        return {"type": "input_audio", "input_audio": audio}
    url = part.get("audio_url")
    if url is None:
        raise invalid("missing", f"{path}.input_audio")
    if url[:5].lower() != "data:":
        return {"type": "audio_url", "audio_url": {"url": url}}
    kind, _, data = url.partition(",")
    audio_format = kind.partition("/")[2].partition(";")[0].lower()
    audio = {"data": data, "format": AUDIO_FORMATS.get(audio_format, audio_format)}
    return {"type": "input_audio", "input_audio": audio}


def _chat_part(part: Data, path: str) -> Part:
    return dict(part)


def refuse_addresses(request: Data) -> None:
    """Raise InvalidRequest for files by URL, for a provider that does not accept them."""
    items = request["input"] if isinstance(request["input"], list) else []
    for i, item in enumerate(items):
        for name in ("content", "output"):
            parts = item.get(name) if isinstance(item.get(name), list) else []
            for j, part in enumerate(parts):
                if isinstance(part, dict) and part.get("file_url") is not None:
                    raise _unsupported(f"input[{i}].{name}[{j}].file_url", INSTEAD)


def _unsupported(path: str, instead: str) -> InvalidRequest:
    return InvalidRequest(
        f"Unsupported parameter: '{path}' is not supported by this service, which neither"
        f" stores nor fetches files: {instead}.",
        param=path,
        code="unsupported_parameter",
    )


AUDIO_FORMATS = {"mpeg": "mp3", "x-wav": "wav", "wave": "wav"}  # subtype of a MIME type -> format
PART_MAKERS: dict[str, Callable[[Data, str], Part]] = {
    "input_text": _text,
    "output_text": _text,
    "text": _text,
    "summary_text": _text,
    "reasoning_text": _text,
    "refusal": _refusal,
    "input_image": _image,
    "input_file": _file,
    "input_audio": _audio,
    **dict.fromkeys(CHAT_PARTS, _chat_part),
}
TEXT_MAKERS = (_text, _refusal)
ITEM_READERS: dict[str, Callable[[Conversation, Data, str], None]] = {
    "message": Conversation._message,
    "agent_message": Conversation._agent_message,
    "reasoning": Conversation._reasoning,
    "function_call": Conversation._function_call,
    "function_call_output": Conversation._output,
    "custom_tool_call": Conversation._custom_call,
    "custom_tool_call_output": Conversation._output,
}
