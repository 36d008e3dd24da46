"""The fake upstream where nginx is missing: `python -m bench.python_upstream PORT`."""

from __future__ import annotations

import asyncio
import re
import sys
import time

ANSWER = (
    b'{"id":"chatcmpl-bench","object":"chat.completion","created":1760000000,'
    b'"model":"gpt-4o-mini","choices":[{"index":0,"message":{"role":"assistant",'
    b'"content":"The capital of France is Paris."},"logprobs":null,"finish_reason":"stop"}],'
    b'"usage":{"prompt_tokens":14,"completion_tokens":7,"total_tokens":21}}'
)
MODELS = b'{"object":"list","data":[{"id":"gpt-4o-mini","object":"model","owned_by":"bench"}]}'
FRAME = (
    'data: {"id":"chatcmpl-bench","object":"chat.completion.chunk","created":1760000000,'
    '"model":"gpt-4o-mini","choices":[%s]%s}\n\n'
)
CHOICE = '{"index":0,"delta":{%s},"logprobs":null,"finish_reason":%s}'
USAGE = ',"usage":{"prompt_tokens":14,"completion_tokens":64,"total_tokens":78}'
LENGTH = re.compile(rb"content-length: *(\d+)", re.IGNORECASE)

calls = 0


async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Answer the requests of one connection until it closes."""
    try:
        while True:
            head = await reader.readuntil(b"\r\n\r\n")
            length = LENGTH.search(head)
            body = await reader.readexactly(int(length[1])) if length else b""
            await _answer(head, body, writer)
    except (asyncio.IncompleteReadError, ConnectionError):
        pass
    finally:
        writer.close()


async def _answer(head: bytes, body: bytes, writer: asyncio.StreamWriter) -> None:
    global calls
    if head.startswith(b"GET"):
        writer.write(_whole(MODELS if b"/models" in head else str(calls).encode()))
        return
    calls += 1
    if re.search(rb'"stream" *: *true', body):
        await _stream(body, writer)
        return
    wait = _number(rb"wait=(\d+)", body, 0)
    if wait:
        await asyncio.sleep(wait / 1000)
    writer.write(_whole(ANSWER))


async def _stream(body: bytes, writer: asyncio.StreamWriter) -> None:
    words, every = _number(rb"words=(\d+)", body, 64), _number(rb"every=(\d+)", body, 20) / 1000
    writer.write(
        b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream; charset=utf-8\r\n"
        b"Transfer-Encoding: chunked\r\n\r\n"
    )
    for word in range(words):
        if word and every:
            await asyncio.sleep(every)
        role = "" if word else '"role":"assistant",'
        text = f'{role}"content":"w{word}@{time.monotonic_ns() // 1000} "'
        writer.write(_chunk(FRAME % (CHOICE % (text, "null"), "")))
    rest = FRAME % (CHOICE % ("", '"stop"'), "")
    if re.search(rb'"include_usage" *: *true', body):
        rest += FRAME % ("", USAGE)
    writer.write(_chunk(rest + "data: [DONE]\n\n") + b"0\r\n\r\n")


def _chunk(text: str) -> bytes:
    data = text.encode()
    return b"%x\r\n%b\r\n" % (len(data), data)


def _whole(data: bytes) -> bytes:
    head = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n"
    return head % len(data) + data


def _number(pattern: bytes, body: bytes, default: int) -> int:
    match = re.search(pattern, body)
    return int(match[1]) if match else default


async def main(port: int) -> None:
    server = await asyncio.start_server(serve, "127.0.0.1", port, backlog=4096)
    await server.serve_forever()


if __name__ == "__main__":
    asyncio.run(main(int(sys.argv[1])))
