"""What the fake provider answers, and how: the words of a model's name, and the two dialects."""

from __future__ import annotations

import asyncio
import base64
import json
import struct
from typing import Any

WORDS = {
    "delay": "delay-MS: wait before the answer",
    "stream": "stream-N-MS: N deltas of one word, MS apart",
    "slow": "slow-N: N deltas, a second apart",
    "nonce": "with `stream`: the last user message comes first, as a delta of its own",
    "fat": "fat-N: each delta is N kilobytes longer",
    "status": "status-N: this HTTP status, with an error of the dialect",
    "once": "once-N: this status the first time this model and text are asked for, then an answer",
    "after": "after-N: with `Retry-After: N`",
    "reset": "the connection is reset before the first byte; with `mid`, in the middle",
    "hang": "no answer at all; with `mid`, silence in the middle",
    "cut": "the answer ends before it is complete",
    "error": "error-mid: an error inside the stream",
    "linger": "the body stays open after the stream's end marker",
    "stale": "the connection is closed when its next request arrives",
    "redirect": "a redirect to /log",
    "gzip": "an answer that claims to be compressed",
    "html": "a page instead of JSON",
    "malformed": "JSON that is none",
    "huge": "huge-N: an answer of N megabytes",
    "json": "JSON, even to a call that wants a stream",
    "sse": "a stream, even to a call that wants JSON",
    "think": "thinking before the text, signed (Anthropic's dialect alone)",
    "tool": "a call of the first tool that it is given; after a result, that result",
    "schema": "an object that fits the JSON schema that it is given",
    "numbers": "embeddings as numbers, even to a call that wants base64",
    "picky": "no embeddings for a call that names an encoding",
}


def behaviour(model: str) -> dict[str, list[int]]:
    words: dict[str, list[int]] = {}
    numbers: list[int] = []
    for word in model.split("/")[-1].split("-"):
        if word.isdigit():
            numbers.append(int(word))
        else:
            numbers = words.setdefault(word, [])
    return words


class Answer:
    """One call's answer."""

    def __init__(self, connection: Any, path: str, asked: dict) -> None:
        self.connection = connection
        self.asked = asked
        self.words = behaviour(asked["model"])
        self.dialect: Any = OpenAI(asked["model"])
        if path.endswith("/messages"):
            self.dialect = Anthropic(thinks="think" in self.words)
        elif path.endswith("/embeddings"):
            self.dialect = Embeddings(asked, self.words)
        self.text = last_user_text(asked["messages"]) if "messages" in asked else "none"
        if "tool" in self.words:
            self.use_tool()
        if "schema" in self.words:
            wanted = asked["response_format"]["json_schema"]["schema"]
            self.text = json.dumps(example_of(wanted))
        self.pause = 0.0
        self.deltas = [word + " " for word in self.text.split(" ")]
        self.deltas[-1] = self.deltas[-1][:-1]
        if "stream" in self.words:
            count, pause = [*self.words["stream"], 64, 20][:2]
            self.deltas, self.pause = [f"t{i} " for i in range(count)], pause / 1000
        if "slow" in self.words:
            self.deltas = [f"t{i} " for i in range(self.number("slow", 10))]
            self.pause = 1.0
        if "nonce" in self.words:
            self.deltas.insert(0, self.text + " ")
        if "fat" in self.words:
            self.deltas = [each + "x" * 1024 * self.number("fat", 1) for each in self.deltas]

    def number(self, word: str, default: int) -> int:
        return (self.words.get(word) or [default])[0]

    def use_tool(self) -> None:
        """Call the first tool, and once it has answered, say what it said."""
        last = self.asked["messages"][-1]
        if last["role"] == "tool":
            self.text = last["content"]
        else:
            function = self.asked["tools"][0]["function"]
            self.dialect = ToolCall(self.asked["model"], function["name"])
            self.text = json.dumps(example_of(function["parameters"]))

    async def give(self) -> None:
        words, connection = self.words, self.connection
        early = "mid" not in words
        if "delay" in words:
            await asyncio.sleep(self.number("delay", 500) / 1000)
        if "hang" in words and early:
            await asyncio.Event().wait()
        if "reset" in words and early:
            connection.reset()
            return
        status = self.dialect.status(self.number("status", 200))
        if "once" in words and connection.records.first_time(self.asked["model"], self.text):
            status = self.number("once", 500)
        connection.stale = "stale" in words
        headers = {"Retry-After": str(self.number("after", 1))} if "after" in words else {}
        if "redirect" in words:
            connection.reply(302, b"{}", {"Location": "/log"})
        elif status != 200:
            connection.reply(status, self.dialect.error(status), headers)
        elif "html" in words:
            connection.reply(200, b"<p>Hello</p>", {"Content-Type": "text/html"})
        elif "malformed" in words:
            connection.reply(200, b'{"choices": [')
        elif "gzip" in words:
            connection.reply(200, b"\x1f\x8b", {"Content-Encoding": "gzip"})
        elif "huge" in words:
            await self.huge(self.number("huge", 64))
        elif "sse" in words or (self.asked.get("stream") and "json" not in words):
            await self.stream()
        else:
            await self.whole()

    async def huge(self, megabytes: int) -> None:
        body = b" " * (1 << 20)
        length = {"Content-Type": "application/json", "Content-Length": str(megabytes << 20)}
        await self.connection.write(self.connection.head(200, length))
        for _ in range(megabytes):
            await self.connection.write(body)

    async def whole(self) -> None:
        await asyncio.sleep(self.pause * len(self.deltas))
        body = self.dialect.whole("".join(self.deltas))
        if not {"cut", "reset", "hang"} & self.words.keys():
            self.connection.reply(200, body)
            return
        half = len(body) // 2
        self.connection.reply(200, body[:half], missing=len(body) - half)
        await self.break_off()

    async def stream(self) -> None:
        broken = {"cut", "reset", "hang", "error"} & self.words.keys()
        kind = {"Content-Type": "text/event-stream", "Transfer-Encoding": "chunked"}
        deltas = self.deltas[: len(self.deltas) // 2] if broken else self.deltas
        data = self.connection.head(200, kind) + chunk(self.dialect.opening())
        for delta in deltas:
            if self.pause:
                await self.connection.write(data)
                await asyncio.sleep(self.pause)
                data = b""
            data += chunk(self.dialect.delta(delta))
        if broken:
            await self.connection.write(data)
            await self.break_off()
            return
        data += chunk(self.dialect.ending(len(self.deltas)))
        if "linger" in self.words:
            await self.connection.write(data)
            await asyncio.Event().wait()
        await self.connection.write(data + b"0\r\n\r\n")

    async def break_off(self) -> None:
        if "hang" in self.words:
            await asyncio.Event().wait()
        elif "reset" in self.words:
            self.connection.reset()
        elif "error" in self.words and self.asked.get("stream"):
            await self.connection.write(chunk(self.dialect.error_event()) + b"0\r\n\r\n")
        elif self.asked.get("stream"):
            await self.connection.write(b"0\r\n\r\n")
        else:
            self.connection.transport.close()


class Dialect:
    def status(self, status: int) -> int:
        return status


class OpenAI(Dialect):
    def __init__(self, model: str) -> None:
        self.identity = {"id": "chatcmpl-upstream", "created": 1, "model": model}

    def chunk(self, choices: list[dict], **more) -> bytes:
        body = {**self.identity, "object": "chat.completion.chunk", "choices": choices, **more}
        return event(body)

    def opening(self) -> bytes:
        return self.choice({"role": "assistant", "content": ""})

    def delta(self, text: str) -> bytes:
        return self.choice({"content": text})

    def choice(self, delta: dict, reason: str | None = None) -> bytes:
        return self.chunk([{"index": 0, "delta": delta, "finish_reason": reason}])

    def ending(self, tokens: int) -> bytes:
        return self.choice({}, "stop") + self.chunk([], usage=usage(tokens)) + b"data: [DONE]\n\n"

    def whole(self, text: str) -> bytes:
        message = {"role": "assistant", "content": text, "refusal": None}
        choice = {"index": 0, "message": message, "logprobs": None, "finish_reason": "stop"}
        tokens = usage(len(text.split()))
        return json.dumps({**self.identity, "choices": [choice], "usage": tokens}).encode()

    def error(self, status: int) -> bytes:
        message = f"The upstream says {status}."
        said = {"message": message, "type": "upstream", "param": None, "code": None}
        return json.dumps({"error": said}).encode()

    def error_event(self) -> bytes:
        return event({"error": {"message": "broken", "type": "server_error", "code": None}})


class ToolCall(OpenAI):
    """One call of a tool; its arguments come where others' text does."""

    def __init__(self, model: str, name: str) -> None:
        super().__init__(model)
        self.name = name

    def call(self, arguments: str) -> dict:
        return {
            "id": "call_1",
            "type": "function",
            "function": {"name": self.name, "arguments": arguments},
        }

    def opening(self) -> bytes:
        return self.choice({"role": "assistant", "tool_calls": [{"index": 0, **self.call("")}]})

    def delta(self, text: str) -> bytes:
        return self.choice({"tool_calls": [{"index": 0, "function": {"arguments": text}}]})

    def ending(self, tokens: int) -> bytes:
        return super().ending(tokens).replace(b'"stop"', b'"tool_calls"')

    def whole(self, text: str) -> bytes:
        answer = json.loads(super().whole(text))
        message = {"role": "assistant", "content": None, "tool_calls": [self.call(text)]}
        answer["choices"][0] |= {"message": message, "finish_reason": "tool_calls"}
        return json.dumps(answer).encode()


class Embeddings(OpenAI):
    """A vector for each input: the length of the text in each of its (by default three) numbers."""

    def __init__(self, asked: dict, words: dict[str, list[int]]) -> None:
        super().__init__(asked["model"])
        self.asked, self.words = asked, words

    def status(self, status: int) -> int:
        """The status of the answer: `picky` upstreams refuse what they do not know."""
        return 400 if "picky" in self.words and "encoding_format" in self.asked else status

    def whole(self, text: str) -> bytes:
        given = self.asked["input"]
        inputs = [given] if isinstance(given, str) or isinstance(given[0], int) else given
        data = [
            {"object": "embedding", "index": i, "embedding": self.encoded(float(len(each)))}
            for i, each in enumerate(inputs)
        ]
        tokens = {"prompt_tokens": len(inputs), "total_tokens": len(inputs)}
        body = {"object": "list", "data": data, "model": self.asked["model"], "usage": tokens}
        return json.dumps(body).encode()

    def error(self, status: int) -> bytes:
        if "picky" not in self.words:
            return super().error(status)
        message = "encoding_format: Extra inputs are not permitted"
        return json.dumps({"error": {"message": message, "type": "invalid_request_error"}}).encode()

    def encoded(self, number: float) -> object:
        numbers = [number] * self.asked.get("dimensions", 3)
        if self.asked.get("encoding_format") != "base64" or "numbers" in self.words:
            return numbers
        return base64.b64encode(struct.pack(f"<{len(numbers)}f", *numbers)).decode()


class Anthropic(Dialect):
    def __init__(self, thinks: bool = False) -> None:
        self.index = int(thinks)  # of the block of text

    def opening(self) -> bytes:
        counts = {"input_tokens": 3, "output_tokens": 1}
        block = {"type": "text", "text": ""}
        start = {"type": "message_start", "message": {"role": "assistant", "usage": counts}}
        return (
            named(start)
            + (self.thinking() if self.index else b"")
            + named({"type": "content_block_start", "index": self.index, "content_block": block})
        )

    def thinking(self) -> bytes:
        block = {"type": "thinking", "thinking": "", "signature": ""}
        deltas = [
            {"type": "thinking_delta", "thinking": "Let me "},
            {"type": "thinking_delta", "thinking": "think."},
            {"type": "signature_delta", "signature": "c2lnbmF0dXJl"},
        ]
        return (
            named({"type": "content_block_start", "index": 0, "content_block": block})
            + b"".join(
                named({"type": "content_block_delta", "index": 0, "delta": delta})
                for delta in deltas
            )
            + named({"type": "content_block_stop", "index": 0})
        )

    def delta(self, text: str) -> bytes:
        delta = {"type": "text_delta", "text": text}
        return named({"type": "content_block_delta", "index": self.index, "delta": delta})

    def ending(self, tokens: int) -> bytes:
        delta = {"stop_reason": "end_turn", "stop_sequence": None}
        last = {"type": "message_delta", "delta": delta, "usage": {"output_tokens": tokens}}
        stop = {"type": "content_block_stop", "index": self.index}
        return named(stop) + named(last) + named({"type": "message_stop"})

    def whole(self, text: str) -> bytes:
        return json.dumps({"type": "message", "content": [{"type": "text", "text": text}]}).encode()

    def error(self, status: int) -> bytes:
        said = {"type": "api_error", "message": f"The upstream says {status}."}
        return json.dumps({"type": "error", "error": said}).encode()

    def error_event(self) -> bytes:
        said = {"type": "api_error", "message": "broken"}
        return named({"type": "error", "error": said})


def event(body: dict) -> bytes:
    return b"data: " + json.dumps(body).encode() + b"\n\n"


def named(body: dict) -> bytes:
    return f"event: {body['type']}\n".encode() + event(body)


def chunk(data: bytes) -> bytes:
    return b"%x\r\n%s\r\n" % (len(data), data)


def usage(tokens: int) -> dict[str, int]:
    return {"prompt_tokens": 3, "completion_tokens": tokens, "total_tokens": 3 + tokens}


def example_of(schema: dict) -> object:
    """A value that fits a simple JSON schema; an object has all of its properties."""
    if schema["type"] == "object":
        return {name: example_of(inner) for name, inner in schema["properties"].items()}
    return {"string": "Paris", "integer": 21, "number": 0.5, "boolean": True}[schema["type"]]


def last_user_text(messages: list[dict]) -> str:
    for message in reversed(messages):
        if message["role"] == "user":
            content = message.get("content") or ""
            if isinstance(content, str):
                return content
            return "".join(part.get("text", "") for part in content)
    return "nothing"
