"""What the fake provider answers, and how: the words of a model's name, and the two dialects."""

from __future__ import annotations

import asyncio
import base64
import json
import struct
from typing import Any

from tests.support.upstream_oddities import INSTEAD, Shape

WORDS = {
    "delay": "delay-MS: wait before the answer",
    "stream": "stream-N-MS: N deltas of one word, MS apart",
    "slow": "slow-N: N deltas, a second apart",
    "from": "from-N: with `stream`, the deltas are numbered from N on",
    "nonce": "with `stream`: the last user message comes first, as a delta of its own",
    "emoji": "with `stream`: each delta ends with one",
    "fat": "fat-N: each delta is N kilobytes longer",
    "status": "status-N: this HTTP status, with an error of the dialect",
    "once": "once-N: this status the first time this model and text are requested, then an answer",
    "often": "often-N: status 500 for each N-th call of this model",
    "grudge": "status 500 for a text that begins with `bad`",
    "after": "after-N: with `Retry-After: N`",
    "reset": "the connection is reset before the first byte; with `mid`, in the middle",
    "hang": "no answer at all; with `mid`, silence in the middle",
    "cut": "the answer ends before it is complete",
    "error": "error-mid: an error inside the stream; with `first`, inside a whole answer too",
    "first": "with `cut`, `error`, `reset`, `hang`: after the opening, before the first delta",
    "at": "at-N: with `mid` or `cut`, after N deltas instead of half of them",
    "pings": "pings-MS: a stream that says nothing but pings; a whole answer never comes",
    "garbled": "an event in the middle of a stream is no JSON",
    "toolong": "400: the call is longer than the model's context",
    "policy": "400: the call is against the provider's rules",
    "leak": "with `status` or `error`: the error tells the key that came with the call",
    "quote": "with `status` or `error`: the error repeats the last user message",
    "wild": "a stream with a BOM, comments, CR LF, and data in two lines",
    "strange": "fields nobody knows, huge numbers, usage that is null, chunks without a choice",
    "trailers": "trailers after the stream's last chunk",
    "early": "`103 Early Hints` before the answer",
    "http10": "HTTP/1.0: the end of the connection is the end of the answer",
    "drip": "drip-MS: one byte of the answer each MS",
    "endless": "a stream that never ends",
    "line": "line-N: a line of N megabytes",
    "bomb": "bomb-N: N megabytes, compressed to few bytes",
    "lengths": "two lengths that differ",
    "short": "an answer longer than its `Content-Length`, on a connection that is kept",
    "linger": "the body stays open after the stream's end marker",
    "stale": "the connection is closed when its next request arrives",
    "redirect": "a redirect to /log",
    "gzip": "an answer that claims to be compressed",
    "html": "a page instead of JSON",
    "malformed": "JSON that is none",
    "huge": "huge-N: an answer of N megabytes",
    "json": "JSON, even to a call that wants a stream",
    "sse": "a stream, even to a call that wants JSON",
    "reason": "half of the tokens are reported as reasoning (OpenAI's dialect alone)",
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

    def __init__(self, connection: Any, path: str, params: dict) -> None:
        self.connection = connection
        self.params = params
        self.words = behaviour(params["model"])
        self.dialect: Any = OpenAI(params["model"])
        if path.endswith("/messages"):
            self.dialect = Anthropic(thinks="think" in self.words)
        elif path.endswith("/embeddings"):
            self.dialect = Embeddings(params, self.words)
        self.text = last_user_text(params["messages"]) if "messages" in params else "none"
        if "tool" in self.words:
            self.use_tool()
        if "schema" in self.words:
            schema = params["response_format"]["json_schema"]["schema"]
            self.text = json.dumps(example_of(schema))
        self.shape = Shape(self.words, self.dialect.ping)
        self.key = connection.key
        self.usage: dict[str, int] | None = None  # what it has reported last
        self.pause = 0.0
        self.deltas = [word + " " for word in self.text.split(" ")]
        self.deltas[-1] = self.deltas[-1][:-1]
        if "stream" in self.words:
            count, pause = [*self.words["stream"], 64, 20][:2]
            self.deltas, self.pause = numbered(count, self.words), pause / 1000
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
        """Call the first tool, and once it has answered, say what it answered."""
        last = self.params["messages"][-1]
        if last["role"] == "tool":
            self.text = last["content"]
        else:
            function = self.params["tools"][0]["function"]
            self.dialect = ToolCall(self.params["model"], function["name"])
            self.text = json.dumps(example_of(function["parameters"]))

    async def give(self) -> None:
        words, connection = self.words, self.connection
        early = not {"mid", "first"} & words.keys()
        if down := connection.records.down.get(self.params["model"]):
            words = self.words = behaviour(DOWN[down])
        if "delay" in words:
            await asyncio.sleep(self.number("delay", 500) / 1000)
        if "hang" in words and early:
            await asyncio.Event().wait()
        if "reset" in words and early:
            connection.reset()
            return
        status = self.dialect.status(self.number("status", 200))
        code = next((CODES[word] for word in CODES if word in words), None)
        if code:
            status = 400
        if "once" in words and connection.records.first_time(self.params["model"], self.text):
            status = self.number("once", 500)
        if (
            "often" in words
            and connection.records.count(self.params["model"]) % words["often"][0] == 0
        ):
            status = 500
        if "grudge" in words and self.text.startswith("bad"):
            status = 500
        connection.stale = "stale" in words
        headers = {"Retry-After": str(self.number("after", 1))} if "after" in words else {}
        if "redirect" in words:
            connection.reply(302, b"{}", {"Location": "/log"})
        elif status != 200:
            if "leak" in words:
                headers["X-Your-Key"] = self.key
            connection.reply(status, self.dialect.error(status, code, self.leaked()), headers)
        elif instead := next((INSTEAD[word] for word in INSTEAD if word in words), None):
            await instead(self)
        elif "html" in words:
            connection.reply(200, b"<p>Hello</p>", {"Content-Type": "text/html"})
        elif "malformed" in words:
            connection.reply(200, b'{"choices": [')
        elif "gzip" in words:
            connection.reply(200, b"\x1f\x8b", {"Content-Encoding": "gzip"})
        elif "huge" in words:
            await self.huge(self.number("huge", 64))
        elif "sse" in words or (self.params.get("stream") and "json" not in words):
            await self.stream()
        else:
            await self.whole()

    def leaked(self) -> str:
        """What an error says beside its usual words."""
        key = f" You said {self.key}." if "leak" in self.words else ""
        return key + (f" You asked: {self.text}" if "quote" in self.words else "")

    def broken_at(self) -> int:
        """After how many deltas an answer breaks off."""
        if "first" in self.words:
            return 0
        return min(self.number("at", len(self.deltas) // 2), len(self.deltas))

    async def huge(self, megabytes: int) -> None:
        body = b" " * (1 << 20)
        length = {"Content-Type": "application/json", "Content-Length": str(megabytes << 20)}
        await self.connection.write(self.connection.head(200, length))
        for _ in range(megabytes):
            await self.connection.write(body)

    async def whole(self) -> None:
        await asyncio.sleep(self.pause * len(self.deltas))
        if "pings" in self.words:
            await asyncio.Event().wait()
        body = self.dialect.whole("".join(self.deltas))
        if {"error", "first"} <= self.words.keys():
            body = self.dialect.error(500, extra=self.leaked())
        if not {"cut", "reset", "hang"} & self.words.keys():
            await self.shape.whole(self.connection, body)
            self.counted(len("".join(self.deltas).split()))
            return
        half = len(body) // 2
        self.connection.reply(200, body[:half], missing=len(body) - half)
        await self.break_off()

    async def stream(self) -> None:
        broken = {"cut", "reset", "hang", "error"} & self.words.keys()
        deltas = self.deltas[: self.broken_at()] if broken else self.deltas
        shape, write = self.shape, self.connection.write
        data = shape.head(self.connection) + shape.piece(self.dialect.opening())
        self.usage = self.dialect.usage_at_first
        while "pings" in self.words:
            await write(data)
            await asyncio.sleep(self.number("pings", 100) / 1000)
            data = shape.piece(self.dialect.ping)
        for number, delta in enumerate(deltas):
            if self.pause:
                await write(data)
                await asyncio.sleep(self.pause)
                data = b""
            data += shape.piece(self.dialect.delta(delta))
            if "garbled" in self.words and number == len(deltas) // 2:
                data += shape.piece(b'data: {"choices": [{"delta"\n\n')
        if broken:
            await write(data)
            await self.break_off()
            return
        data += shape.piece(self.dialect.ending(len(self.deltas)))
        if "linger" in self.words:
            await write(data)
            await asyncio.Event().wait()
        await write(data + shape.end)
        self.counted(len(self.deltas))
        if shape.closes:
            self.connection.transport.close()

    def counted(self, completion: int) -> None:
        """Note the usage of an answer that was sent whole, unless its connection is closed."""
        if not self.connection.transport.is_closing():
            self.usage = self.dialect.usage(completion)

    async def break_off(self) -> None:
        if "hang" in self.words:
            await asyncio.Event().wait()
        elif "reset" in self.words:
            self.connection.reset()
        elif "error" in self.words and self.params.get("stream"):
            event = chunk(self.dialect.error_event(self.leaked()))
            await self.connection.write(event + b"0\r\n\r\n")
        elif self.params.get("stream"):
            await self.connection.write(b"0\r\n\r\n")
        else:
            self.connection.transport.close()


# What a model says that is down: see upstream.py.
DOWN = {"hang": "hang", "reset": "reset", "refuse": "status-500"}
CODES = {"toolong": "context_length_exceeded", "policy": "content_policy_violation"}


class Dialect:
    ping = b": still here\n\n"
    usage_at_first: dict[str, int] | None = None  # what the opening of a stream reports

    def usage(self, completion: int) -> dict[str, int]:
        """What it reports for an answer of so many tokens, in OpenAI's form."""
        return usage(completion)

    def status(self, status: int) -> int:
        return status


class OpenAI(Dialect):
    def __init__(self, model: str) -> None:
        self.identity = {"id": "chatcmpl-upstream", "created": 1, "model": model}
        self.reasons = "reason" in behaviour(model)

    def usage(self, completion: int) -> dict:
        if not self.reasons:
            return usage(completion)
        details = {"reasoning_tokens": completion // 2}
        return {**usage(completion), "completion_tokens_details": details}

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
        return (
            self.choice({}, "stop") + self.chunk([], usage=self.usage(tokens)) + b"data: [DONE]\n\n"
        )

    def whole(self, text: str) -> bytes:
        message = {"role": "assistant", "content": text, "refusal": None}
        choice = {"index": 0, "message": message, "logprobs": None, "finish_reason": "stop"}
        tokens = self.usage(len(text.split()))
        return json.dumps({**self.identity, "choices": [choice], "usage": tokens}).encode()

    def error(self, status: int, code: str | None = None, extra: str = "") -> bytes:
        message = f"The upstream says {status}.{extra}"
        error = {"message": message, "type": "upstream", "param": None, "code": code}
        return json.dumps({"error": error}).encode()

    def error_event(self, extra: str = "") -> bytes:
        message = f"broken{extra}"
        return event({"error": {"message": message, "type": "server_error", "code": None}})


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

    def __init__(self, params: dict, words: dict[str, list[int]]) -> None:
        super().__init__(params["model"])
        self.params, self.words = params, words

    def status(self, status: int) -> int:
        """The status of the answer: `picky` upstreams refuse what they do not know."""
        return 400 if "picky" in self.words and "encoding_format" in self.params else status

    def whole(self, text: str) -> bytes:
        inputs = self.params["input"]
        if isinstance(inputs, str) or isinstance(inputs[0], int):
            inputs = [inputs]
        data = [
            {"object": "embedding", "index": i, "embedding": self.encoded(float(len(each)))}
            for i, each in enumerate(inputs)
        ]
        tokens = {"prompt_tokens": len(inputs), "total_tokens": len(inputs)}
        body = {"object": "list", "data": data, "model": self.params["model"], "usage": tokens}
        return json.dumps(body).encode()

    def usage(self, completion: int) -> dict[str, int]:
        inputs = self.params["input"]
        count = 1 if isinstance(inputs, str) or isinstance(inputs[0], int) else len(inputs)
        return {"prompt_tokens": count, "completion_tokens": 0, "total_tokens": count}

    def error(self, status: int, code: str | None = None, extra: str = "") -> bytes:
        if "picky" not in self.words:
            return super().error(status, code, extra)
        message = "encoding_format: Extra inputs are not permitted"
        return json.dumps({"error": {"message": message, "type": "invalid_request_error"}}).encode()

    def encoded(self, number: float) -> object:
        numbers = [number] * self.params.get("dimensions", 3)
        if self.params.get("encoding_format") != "base64" or "numbers" in self.words:
            return numbers
        return base64.b64encode(struct.pack(f"<{len(numbers)}f", *numbers)).decode()


class Anthropic(Dialect):
    ping = b'event: ping\ndata: {"type": "ping"}\n\n'
    usage_at_first = {"prompt_tokens": 3, "completion_tokens": 1, "total_tokens": 4}

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

    def error(self, status: int, code: str | None = None, extra: str = "") -> bytes:
        message = f"The upstream says {status}.{extra}"
        if code == CODES["toolong"]:
            message = f"prompt is too long: 2 tokens > 1 maximum.{extra}"  # it has no code for it
        kind = "api_error" if status >= 500 else "invalid_request_error"
        return json.dumps({"type": "error", "error": {"type": kind, "message": message}}).encode()

    def error_event(self, extra: str = "") -> bytes:
        error = {"type": "api_error", "message": f"broken{extra}"}
        return named({"type": "error", "error": error})


def numbered(count: int, words: dict[str, list[int]]) -> list[str]:
    """The deltas of `stream`; clients know the whole answer by the same words."""
    first = (words.get("from") or [0])[0]
    ending = "\N{WINKING FACE} " if "emoji" in words else " "
    return [f"t{first + i}{ending}" for i in range(count)]


def event(body: dict) -> bytes:
    return b"data: " + json.dumps(body, ensure_ascii=False).encode() + b"\n\n"


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
