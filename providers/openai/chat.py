"""Chat completions of OpenAI and of compatible upstreams."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import orjson

from gateway.chat import IDENTITY, ChatCall, Chunk
from gateway.errors import GatewayError, UpstreamBadResponse
from providers import lenient_json
from providers.base import ORDINARY, Endpoint, Request, WireOptions, ident_of
from providers.error_reports import reports_error
from providers.errors import rejection, rejection_inside
from providers.openai.finish_reasons import finish_reason
from providers.openai.request import request_body
from providers.openai.shapes import shape_choice, shape_message, shape_usage
from providers.openai.signatures import block_of
from providers.openai.tool_calls import ToolCalls, whole_calls

# Fields that are not copied: identity, padding, and those that are checked first.
_OWN = IDENTITY | {"choices", "usage", "obfuscation", "error"}


class OpenAIWire:
    """The dialect of OpenAI and of compatible upstreams.

    `options` name, among others, the fields of messages beyond OpenAI's that the upstream takes:
    see gateway.chat.EXTENSIONS. The others are left out of requests.
    """

    streams_only = False

    def __init__(
        self,
        base_url: str,
        api_key: str = "",
        headers: Mapping[str, str] | None = None,
        options: WireOptions = ORDINARY,
    ) -> None:
        self._endpoint = Endpoint.build(base_url, "/chat/completions", api_key, headers)
        self._options = options
        self.stream_above = options.stream_above

    def request(self, call: ChatCall) -> Request:
        """Return the call as this upstream takes it."""
        return self._endpoint.request(request_body(call, self._options))

    def response(self, body: Mapping[str, Any]) -> Chunk:
        """Return the response, completed where the upstream left something out.

        Raises UpstreamError.
        """
        if reports_error(body):
            raise rejection_inside(body, self._endpoint.secrets)
        choices = body.get("choices")
        if not isinstance(choices, list) or not choices:
            raise UpstreamBadResponse()
        secrets = self._endpoint.secrets
        return _chunk(body, [_whole(body, each, i, secrets) for i, each in enumerate(choices)])

    def decoder(self, call: ChatCall | None = None) -> OpenAIDecoder:
        """Return a new decoder for one stream."""
        return OpenAIDecoder(self._endpoint.secrets)

    def error(self, status: int, body: bytes, headers: Mapping[str, str]) -> GatewayError:
        """Return the error for an HTTP response whose status is not 200."""
        return rejection(status, body, headers, self._endpoint.secrets)


class OpenAIDecoder:
    """Decodes a stream: every choice gets one role and at most one finish reason."""

    reads_text = False

    def __init__(self, secrets: Iterable[str] = ()) -> None:
        self.finished = False
        self.ended = False
        self.ident = ""
        self._secrets = tuple(secrets)
        self._choices: dict[int, _Choice] = {}
        self._open = 0  # choices begun that have no finish reason yet

    def feed(self, event: str, data: str) -> Iterable[Chunk]:
        """Return the chunks of one event, usually one.

        Raises the UpstreamError of an event that reports an error, and UpstreamBadResponse for one
        that is broken: the response would lack it.
        """
        if self.ended:
            return ()
        if data.startswith("[DONE]"):
            return self._done()
        try:
            body = orjson.loads(data)
        except orjson.JSONDecodeError:
            return self._odd(event, data)
        return self._chunks(event, body)

    def _odd(self, event: str, data: str) -> Iterable[Chunk]:
        """Return the chunks of an event that is no strict JSON."""
        try:
            return self._chunks(event, lenient_json.loads(data))
        except ValueError:
            pass
        if event == "error":
            raise rejection_inside({"message": data}, self._secrets)
        if data.startswith("data:"):  # said twice, by a proxy
            return self.feed(event, data.removeprefix("data:").lstrip())
        if "\n" in data:  # events without the blank line between them
            return [chunk for line in data.split("\n") for chunk in self.feed(event, line)]
        lenient_json.event(data)  # raises for a broken object
        return self._done() if data.strip().upper().startswith("[DONE]") else ()

    def _chunks(self, event: str, body: Any) -> Iterable[Chunk]:
        if isinstance(body, list) and len(body) == 1:
            body = body[0]  # as Google sends errors
        if event == "error" or (isinstance(body, dict) and reports_error(body)):
            raise rejection_inside(body, self._secrets)
        if not isinstance(body, dict):
            return ()  # a keep-alive
        choices = body.get("choices") or []
        if not isinstance(choices, list):
            raise UpstreamBadResponse()
        deltas = []
        for position, choice in enumerate(choices):
            if delta := self._delta(body, choice, position):
                deltas.append(delta)
        chunk = _chunk(body, deltas)
        return (chunk,) if deltas or len(chunk) > 1 else ()

    def _delta(self, body: Chunk, choice: Any, position: int) -> Chunk | None:
        if not isinstance(choice, dict):
            raise UpstreamBadResponse()
        index = _index(choice, position)
        state = self._choices.get(index)
        if state is not None and state.takes_text and _is_text(choice):
            return {**choice, "index": index}
        reason = _reason(choice, self._secrets)
        delta = _message_of(choice, "delta", "message" if state is None else "")
        shape_message(delta)
        shape_choice(choice)
        _move_usage(body, choice)
        if state is None:
            self.ident = ident_of(body)
            seed = f"{body.get('id')} {body.get('created')} {index}"
            state = self._choices[index] = _Choice(seed)
            self._open += 1
            self.finished = False
            delta = {"role": "assistant", **delta}
        elif state.finished:
            # OpenRouter finishes twice: keep only what the second chunk adds.
            reason = None
            if not any(delta.values()):
                return None
        state.shape(delta, final=reason is not None or state.finished)
        if reason:
            reason = _checked(choice, reason, len(state.calls), state.function_call)
            state.finished = True
            self._open -= 1
            self.finished = not self._open
        return {**choice, "index": index, "delta": delta, "finish_reason": reason}

    def _done(self) -> Iterable[Chunk]:
        self.ended = True
        # The marker does not finish a response without a choice, or without a finish reason: an
        # upstream that leaves out the reason may have left out content.
        self.finished = bool(self._choices) and not self._open
        return ()


class _Choice:
    """The state of one choice of a stream."""

    __slots__ = ("calls", "details", "finished", "function_call")

    def __init__(self, seed: str) -> None:
        self.finished = False
        self.function_call = False  # the older kind of tool call
        self.calls = ToolCalls(seed)
        self.details: list[Any] = []  # OpenRouter's, not yet in a block

    @property
    def takes_text(self) -> bool:
        """Whether text may follow as it is."""
        return not (self.finished or self.details)

    def shape(self, delta: Chunk, final: bool) -> None:
        """Bring the tool calls and the reasoning details of a delta into form, in place."""
        elements = delta.pop("tool_calls", None) or ()
        if (elements or final) and (calls := self.calls.add(elements, final)):
            delta["tool_calls"] = calls
        self.function_call = self.function_call or bool(delta.get("function_call"))
        self.details += delta.get("reasoning_details") or ()
        if self.details and (final or delta.get("content") or delta.get("tool_calls")):
            delta["thinking_blocks"] = [*(delta.get("thinking_blocks") or ()), self._block()]

    def _block(self) -> Chunk:
        block, self.details = block_of(self.details), []
        return block


def _is_text(choice: Chunk) -> bool:
    """Return whether a choice of a chunk is of the usual form: text, and nothing to bring in form.

    Nearly all are.
    """
    delta = choice.get("delta")
    return (
        type(delta) is dict
        and len(delta) == 1
        and type(delta.get("content")) is str
        and choice.keys() <= {"index", "delta", "finish_reason", "logprobs"}
        and choice.get("finish_reason", 0) is None
        and choice.get("logprobs") is None
    )


def _message_of(choice: Chunk, *names: str) -> Chunk:
    """Take the message or delta out of a choice; raises UpstreamBadResponse if it is no object."""
    fields = {name: choice.pop(name, None) for name in ("delta", "message", "text")}
    message = next((fields[name] for name in names if name and fields[name]), None)
    if message is None and fields["delta"] is None:
        # Without a delta, each chunk may hold a message, or the text of an older API.
        text = fields["text"]
        message = fields["message"] or ({"content": text} if isinstance(text, str) else None)
    if not isinstance(message, dict | None):
        raise UpstreamBadResponse()
    message = message or {}
    message.pop("role", None)
    if "reasoning" in message:
        _name_reasoning(message)
    return message


def _chunk(body: Mapping[str, Any], choices: list[Chunk]) -> Chunk:
    chunk: Chunk = {"choices": choices}
    for key, value in body.items():
        if key not in _OWN and value is not None:
            chunk[key] = value
    usage = body.get("usage")
    if usage and (checked := _usage(usage)):
        chunk["usage"] = checked
    return chunk


def _usage(value: Any) -> Chunk | None:
    """Return the usage, with thinking among the completion tokens; None if it is none."""
    if not isinstance(value, dict):
        return None
    usage: Chunk = value
    prompt, completion = usage.get("prompt_tokens"), usage.get("completion_tokens")
    if type(prompt) is not int or type(completion) is not int:
        return None
    total = usage.get("total_tokens")
    shape_usage(usage)
    if type(total) is not int or total < prompt + completion:
        return {**usage, "total_tokens": prompt + completion}
    beside = total - prompt - completion
    details = usage.get("completion_tokens_details") or {}
    reasoning = details.get("reasoning_tokens") or usage.get("reasoning_tokens") or 0
    if beside and reasoning in (0, beside):
        # xAI counts thinking beside the completion, Gemini in the total only.
        details = {**details, "reasoning_tokens": beside}
        usage = {
            **usage,
            "completion_tokens": completion + beside,
            "completion_tokens_details": details,
        }
    return usage


def _move_usage(body: Chunk, choice: Chunk) -> None:
    """Move usage out of a choice, where Moonshot has it."""
    usage = choice.pop("usage", None)
    if usage and not body.get("usage"):
        body["usage"] = usage


def _whole(body: Any, choice: Any, position: int, secrets: Iterable[str]) -> Chunk:
    if not isinstance(choice, dict):
        raise UpstreamBadResponse()
    reason = _reason(choice, secrets)
    if not any(choice.get(name) for name in ("message", "delta")) and "text" not in choice:
        raise UpstreamBadResponse()
    message = {"content": None, "refusal": None, **_message_of(choice, "message", "delta")}
    message["role"] = "assistant"
    shape_choice(choice)
    _move_usage(body, choice)
    shape_message(message)
    index = _index(choice, position)
    if elements := message.pop("tool_calls", None):
        seed = f"{body.get('id')} {body.get('created')} {index}"
        if calls := whole_calls(elements, seed):
            message["tool_calls"] = calls
    if details := message.get("reasoning_details"):
        blocks = message.get("thinking_blocks") or ()
        message["thinking_blocks"] = [*blocks, block_of(details)]
    count, older = len(message.get("tool_calls") or ()), bool(message.get("function_call"))
    reason = _checked(choice, reason or "stop", count, older)
    return {"logprobs": None, **choice, "index": index, "message": message, "finish_reason": reason}


def _name_reasoning(message: Chunk) -> None:
    """Rename `reasoning`, as OpenRouter, Groq and vLLM call it, to `reasoning_content`."""
    text = message["reasoning"]
    if text is None or isinstance(text, str):
        del message["reasoning"]
        if text and not message.get("reasoning_content"):
            message["reasoning_content"] = text


def _index(choice: Chunk, position: int) -> int:
    index = choice.get("index")
    return index if type(index) is int else position


def _reason(choice: Chunk, secrets: Iterable[str]) -> str | None:
    """Return OpenAI's reason why a choice ended; None if it goes on. Raises UpstreamError.

    The upstream's own word for it, if it is another, becomes `native_finish_reason`.
    """
    if choice.get("error"):
        raise rejection_inside(choice["error"], secrets)
    word = choice.pop("finish_reason", None)
    reason = finish_reason(word)
    if reason == "error":
        raise rejection_inside({"message": f"The response ended with '{word}'."}, secrets)
    if reason is not None and word != reason:
        choice.setdefault("native_finish_reason", word)
    return reason


def _checked(choice: Chunk, reason: str, calls: int, function_call: bool) -> str:
    """Return the finish reason that fits the tool calls: clients run tools by it."""
    if calls and reason in ("stop", "function_call"):
        choice.pop("native_finish_reason", None)  # it would say the opposite
        return "tool_calls"
    if reason in ("tool_calls", "function_call") and not calls:
        if function_call:
            return "function_call"
        choice.setdefault("native_finish_reason", reason)
        return "stop"
    return "function_call" if function_call and reason == "stop" else reason
