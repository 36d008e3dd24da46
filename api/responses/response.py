"""The response object of OpenAI's Responses API, without its output.

Source: OpenAI's API reference, "The response object".
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

# Chat's name -> that of Responses.
OWN_NAMES = {
    "max_completion_tokens": "max_output_tokens",
    "messages": "input",
    "reasoning_effort": "reasoning.effort",
    "response_format": "text.format",
    "verbosity": "text.verbosity",
}

# Chat's finish reason -> why a response is incomplete; all others complete it.
INCOMPLETE = {"length": "max_output_tokens", "content_filter": "content_filter"}

# Fields of the request that the response repeats, with their defaults.
REPEATED: dict[str, Any] = {
    "instructions": None,
    "max_output_tokens": None,
    "metadata": {},
    "parallel_tool_calls": True,
    "prompt_cache_key": None,
    "safety_identifier": None,
    "service_tier": None,
    "temperature": None,
    "tool_choice": "auto",
    "top_logprobs": 0,
    "top_p": None,
    "user": None,
}
TOOL_FIELDS: dict[str, dict[str, Any]] = {
    "function": {"description": None, "parameters": None, "strict": None},
}

Data = Mapping[str, Any]


def begun(request: Data, response_id: str, model: str, created: int) -> dict[str, Any]:
    """A response in progress, without any output.

    `request` is the checked request as the caller wrote it, `created` a Unix time in seconds.
    """
    values = {name: request.get(name) for name in REPEATED}
    return {
        "id": response_id,
        "object": "response",
        "created_at": created,
        "status": "in_progress",
        "background": bool(request.get("background")),
        "completed_at": None,
        "error": None,
        "incomplete_details": None,
        "max_tool_calls": None,
        "model": model,
        "output": [],
        "previous_response_id": request.get("previous_response_id"),
        "reasoning": _reasoning(request.get("reasoning") or {}),
        "store": bool(request.get("store")),
        "text": _text(request.get("text") or {}),
        "tools": [TOOL_FIELDS.get(tool["type"], {}) | tool for tool in request.get("tools") or ()],
        "truncation": "disabled",
        "usage": None,
        **{name: REPEATED[name] if values[name] is None else values[name] for name in REPEATED},
    }


def ended(reason: str | None) -> dict[str, Any]:
    """Status and incomplete_details of a response, from the finish reason of the chat choice."""
    why = INCOMPLETE.get(reason or "")
    if why is None:
        return {"status": "completed", "incomplete_details": None}
    return {"status": "incomplete", "incomplete_details": {"reason": why}}


def usage(chat_usage: Data | None) -> dict[str, Any] | None:
    """The usage of a response, from that of chat; None if the provider reports none."""
    if not chat_usage:
        return None
    prompt = chat_usage.get("prompt_tokens_details") or {}
    completion = chat_usage.get("completion_tokens_details") or {}
    return {
        "input_tokens": chat_usage["prompt_tokens"],
        "input_tokens_details": {
            "cached_tokens": prompt.get("cached_tokens") or 0,
            "cache_write_tokens": prompt.get("cache_write_tokens") or 0,
        },
        "output_tokens": chat_usage["completion_tokens"],
        "output_tokens_details": {"reasoning_tokens": completion.get("reasoning_tokens") or 0},
        "total_tokens": chat_usage["total_tokens"],
    }


def _reasoning(request: Data) -> dict[str, Any]:
    return {"effort": request.get("effort"), "summary": request.get("summary")}


def _text(request: Data) -> dict[str, Any]:
    text = {"format": request.get("format") or {"type": "text"}}
    if request.get("verbosity") is not None:
        text["verbosity"] = request["verbosity"]
    return text
