"""A provider whose model does what the conversation asks for, in OpenAI's and Anthropic's formats.

The user's text may hold directives, `[[tool {"argument": 1}]]`: the model calls these tools, one in
each turn, and then repeats the last result. A tool that is forced, or asked for in the service's
words, is called, a JSON schema is satisfied, images are counted. `ENDLESS` in the text is answered
by a stream that never ends. Any other text is answered by ANSWER.
"""

from __future__ import annotations

import json
import re
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

ANSWER = "Paris is the capital of France."
ENDLESS = "Count without an end."
INPUT_TOKENS = 42
DIRECTIVE = re.compile(r"\[\[(\w[\w.-]*) (\{.*?\})\]\]", re.DOTALL)
# What this service tells a model that cannot be forced to call a tool.
FORCING = re.compile(r"^Respond with a call of (?:one of the tools|the tool `([^`]+)`)\.$", re.M)
SMALL_BODY = 8_000  # bytes; larger bodies are billed by their length
BYTES_PER_TOKEN = 4


@dataclass
class Conversation:
    """One request, whatever its format."""

    texts: list[str] = field(default_factory=list)  # what users wrote
    results: list[str] = field(default_factory=list)  # of tools
    images: int = 0
    tools: dict[str, Any] = field(default_factory=dict)  # schemas by name; None: it takes text
    forced: str = ""  # a tool's name
    schema: Any = None
    json: bool = False


@dataclass
class Reply:
    text: str = ""
    tool: str = ""
    arguments: str = ""
    custom: bool = False  # the tool takes text instead of arguments
    endless: bool = False
    thinks: bool = False  # before all else, signed; Anthropic's format alone


def from_openai(body: dict[str, Any]) -> Conversation:
    conversation = Conversation()
    for tool in body.get("tools") or []:
        if tool["type"] == "custom":
            conversation.tools[tool["custom"]["name"]] = None
        else:
            function = tool["function"]
            conversation.tools[function["name"]] = function.get("parameters") or {}
    for message in body["messages"]:
        content = message.get("content") or []
        parts = [{"type": "text", "text": content}] if isinstance(content, str) else content
        text = "".join(part.get("text", "") for part in parts)
        conversation.images += sum(part["type"] == "image_url" for part in parts)
        if message["role"] == "user":
            conversation.texts.append(text)
        elif message["role"] == "tool":
            conversation.results.append(text)
    choice = body.get("tool_choice")
    if isinstance(choice, dict):
        conversation.forced = choice["function"]["name"]
    elif choice == "required":
        conversation.forced = next(iter(conversation.tools))
    form = body.get("response_format") or {}
    conversation.schema = (form.get("json_schema") or {}).get("schema")
    conversation.json = form.get("type") == "json_object"
    return conversation


def from_anthropic(body: dict[str, Any]) -> Conversation:
    conversation = Conversation()
    for tool in body.get("tools") or []:
        conversation.tools[tool["name"]] = tool.get("input_schema") or {"type": "object"}
    system = json.dumps(body.get("system") or "")
    for message in body["messages"]:
        content = message["content"]
        blocks = [{"type": "text", "text": content}] if isinstance(content, str) else content
        for block in blocks:
            if block["type"] == "image":
                conversation.images += 1
            elif block["type"] == "tool_result":
                content = block.get("content") or ""
                inner = [] if isinstance(content, str) else content
                conversation.images += sum(each["type"] == "image" for each in inner)
                text = "".join(each.get("text", "") for each in inner)
                conversation.results.append(content if isinstance(content, str) else text)
            elif block["type"] == "text" and message["role"] == "user":
                conversation.texts.append(block["text"])
    choice = body.get("tool_choice") or {}
    if choice.get("type") == "tool":
        conversation.forced = choice["name"]
    elif choice.get("type") == "any":
        conversation.forced = next(iter(conversation.tools))
    elif words := FORCING.search("\n".join(conversation.texts)):
        conversation.forced = words[1] or next(iter(conversation.tools))
    form = (body.get("output_config") or {}).get("format") or body.get("output_format") or {}
    conversation.schema = form.get("schema")
    conversation.json = "json" in system.lower() and len(system) < SMALL_BODY
    return conversation


def example_of(schema: dict[str, Any], root: dict[str, Any] | None = None) -> Any:
    """A value that fits a JSON schema; an object has all of its properties."""
    root = root or schema
    if "$ref" in schema:
        target: Any = root
        for name in schema["$ref"].removeprefix("#/").split("/"):
            target = target[name]
        return example_of(target, root)
    if options := schema.get("anyOf") or schema.get("oneOf") or schema.get("allOf"):
        return example_of(options[0], root)
    if "enum" in schema or "const" in schema:
        return schema.get("const", (schema.get("enum") or [None])[0])
    kind = schema.get("type", "object")
    kind = kind[0] if isinstance(kind, list) else kind
    if kind == "object":
        properties = schema.get("properties") or {}
        return {name: example_of(inner, root) for name, inner in properties.items()}
    if kind == "array":
        return [example_of(schema.get("items") or {"type": "string"}, root)]
    return {"string": "Paris", "integer": 21, "number": 0.5, "boolean": True, "null": None}[kind]


CITY = {"name": "Paris", "degrees": 0.5, "capital": True}


class Provider:
    """Serves on a free port of loopback in threads of this process; a context manager."""

    def __init__(self) -> None:
        self.calls: list[dict[str, Any]] = []
        self.directives_done: list[str] = []
        provider = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def log_message(self, *_: object) -> None:
                pass

            def do_GET(self) -> None:
                provider.send(self, 200, provider.calls)

            def do_POST(self) -> None:
                length = int(self.headers.get("content-length") or 0)
                provider.answer(self, json.loads(self.rfile.read(length)), length)

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self.server.server_port}"
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def __enter__(self) -> Provider:
        return self

    def __exit__(self, *_: object) -> None:
        self.server.shutdown()
        self.server.server_close()

    def forget(self) -> None:
        """Begin anew: no calls, no directives followed."""
        self.calls.clear()
        self.directives_done.clear()

    def send(self, handler: BaseHTTPRequestHandler, status: int, value: object) -> None:
        body = json.dumps(value).encode()
        handler.send_response(status)
        handler.send_header("Content-Type", "application/json")
        handler.send_header("Content-Length", str(len(body)))
        handler.end_headers()
        handler.wfile.write(body)

    def answer(self, handler: BaseHTTPRequestHandler, body: dict[str, Any], length: int) -> None:
        tokens = INPUT_TOKENS if length < SMALL_BODY else length // BYTES_PER_TOKEN
        headers = {name.lower(): value for name, value in handler.headers.items()}
        call = {"path": handler.path, "headers": headers, "body": body, "closed_early": False}
        self.calls.append(call)
        if handler.path.endswith("/count_tokens"):
            self.send(handler, 200, {"input_tokens": tokens})
            return
        anthropic = handler.path.endswith("/messages")
        conversation = from_anthropic(body) if anthropic else from_openai(body)
        reply = self.reply_to(conversation)
        reply.thinks = body.get("thinking", {}).get("type") in ("adaptive", "enabled")
        if not body.get("stream"):
            self.send(handler, 200, whole(body["model"], reply, tokens))
            return
        events = anthropic_events if anthropic else openai_events
        handler.send_response(200)
        handler.send_header("Content-Type", "text/event-stream")
        handler.send_header("Connection", "close")
        handler.end_headers()
        handler.close_connection = True
        try:
            for event in events(body["model"], reply, tokens):
                name = f"event: {event['type']}\n" if "type" in event else ""
                handler.wfile.write(f"{name}data: {json.dumps(event)}\n\n".encode())
                handler.wfile.flush()
            if not anthropic:
                handler.wfile.write(b"data: [DONE]\n\n")
        except OSError:
            call["closed_early"] = True

    def reply_to(self, conversation: Conversation) -> Reply:
        directives = DIRECTIVE.findall("\n".join(conversation.texts))
        for word, arguments in directives[len(conversation.results) :]:
            name = tool_for(word, conversation.tools)
            if arguments not in self.directives_done and name:
                self.directives_done.append(arguments)
                if conversation.tools[name] is None:
                    return Reply(tool=name, arguments=json.loads(arguments)["input"], custom=True)
                return Reply(tool=name, arguments=arguments)
        if conversation.forced and not conversation.results:
            example = example_of(conversation.tools[conversation.forced])
            return Reply(tool=conversation.forced, arguments=json.dumps(example))
        if conversation.schema:
            return Reply(json.dumps(example_of(conversation.schema)))
        if conversation.json:
            return Reply(json.dumps(CITY))
        if conversation.results:
            return Reply(said_of(conversation))
        if any(ENDLESS in text for text in conversation.texts):
            return Reply(endless=True)
        return Reply(said_of(conversation) if conversation.images else ANSWER)


def tool_for(word: str, tools: dict[str, Any]) -> str:
    """The tool that a directive names; gateways may put a namespace in front of its name."""
    names = [name for name in tools if re.fullmatch(rf"(.*[^a-zA-Z0-9])?{re.escape(word)}", name)]
    return min(names, key=len, default="")


def said_of(conversation: Conversation) -> str:
    parts = [f"It says: {conversation.results[-1][:2_000]}"] if conversation.results else []
    if conversation.images:
        parts.append(f"I see {conversation.images} image.")
    return " ".join(parts)


def pieces(reply: Reply) -> Iterator[str]:
    """The text or the arguments, a word at a time."""
    while reply.endless:
        yield "more "
        time.sleep(0.02)
    yield from re.findall(r"\s*\S+|\s+$", reply.arguments if reply.tool else reply.text)


def usage(tokens: int) -> dict[str, int]:
    return {"prompt_tokens": tokens, "completion_tokens": 7, "total_tokens": tokens + 7}


def call_of(reply: Reply, content: str) -> dict[str, Any]:
    if reply.custom:
        return {"type": "custom", "custom": {"name": reply.tool, "input": content}}
    return {"type": "function", "function": {"name": reply.tool, "arguments": content}}


def whole(model: str, reply: Reply, tokens: int) -> dict[str, Any]:
    calls: list[dict[str, Any]] = [{"id": "call_1", **call_of(reply, reply.arguments)}]
    message = {"role": "assistant", "content": None if reply.tool else reply.text}
    message |= {"tool_calls": calls} if reply.tool else {}
    reason = "tool_calls" if reply.tool else "stop"
    choice = {"index": 0, "message": message, "finish_reason": reason}
    identity = {"id": "chatcmpl-1", "object": "chat.completion", "created": 1, "model": model}
    return {**identity, "choices": [choice], "usage": usage(tokens)}


def openai_events(model: str, reply: Reply, tokens: int) -> Iterator[dict[str, Any]]:
    identity = {"id": "chatcmpl-1", "object": "chat.completion.chunk", "created": 1, "model": model}

    def chunk(delta: dict[str, Any], reason: str | None = None) -> dict[str, Any]:
        return {**identity, "choices": [{"index": 0, "delta": delta, "finish_reason": reason}]}

    yield chunk({"role": "assistant", "content": None if reply.tool else ""})
    if reply.tool:
        yield chunk({"tool_calls": [{"index": 0, "id": "call_1", **call_of(reply, "")}]})
    for piece in pieces(reply):
        inner: dict[str, Any] = {"index": 0, "function": {"arguments": piece}}
        if reply.custom:
            inner = {"index": 0, "custom": {"input": piece}}
        yield chunk({"tool_calls": [inner]} if reply.tool else {"content": piece})
    yield chunk({}, "tool_calls" if reply.tool else "stop")
    yield {**identity, "choices": [], "usage": usage(tokens)}


def anthropic_events(model: str, reply: Reply, tokens: int) -> Iterator[dict[str, Any]]:
    counts = {"input_tokens": tokens, "output_tokens": 1}
    block: dict[str, Any]
    message: dict[str, Any] = {"id": "msg_1", "type": "message", "role": "assistant"}
    message |= {"model": model, "content": [], "stop_reason": None, "stop_sequence": None}
    yield {"type": "message_start", "message": {**message, "usage": counts}}
    if reply.thinks:
        block = {"type": "thinking", "thinking": "", "signature": ""}
        yield {"type": "content_block_start", "index": 0, "content_block": block}
        for delta in (
            {"type": "thinking_delta", "thinking": "Let me think."},
            {"type": "signature_delta", "signature": "c2lnbmF0dXJl"},
        ):
            yield {"type": "content_block_delta", "index": 0, "delta": delta}
        yield {"type": "content_block_stop", "index": 0}
    index = int(reply.thinks)
    block = {"type": "text", "text": ""}
    if reply.tool:
        block = {"type": "tool_use", "id": "toolu_1", "name": reply.tool, "input": {}}
    yield {"type": "content_block_start", "index": index, "content_block": block}
    for piece in pieces(reply):
        delta = {"type": "text_delta", "text": piece}
        if reply.tool:
            delta = {"type": "input_json_delta", "partial_json": piece}
        yield {"type": "content_block_delta", "index": index, "delta": delta}
    yield {"type": "content_block_stop", "index": index}
    reason = {"stop_reason": "tool_use" if reply.tool else "end_turn", "stop_sequence": None}
    yield {"type": "message_delta", "delta": reason, "usage": {"output_tokens": 7}}
    yield {"type": "message_stop"}
