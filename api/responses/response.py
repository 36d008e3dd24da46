"""The response object of OpenAI's Responses API, but for its output, and errors in its terms.

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

# What is repeated as the caller said it, and what it is where nothing was said.
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
    "custom": {},
}

Data = Mapping[str, Any]


def begun(asked: Data, response_id: str, model: str, created: int) -> dict[str, Any]:
    """A response that is in progress: nothing of its output is there yet.

    `asked` is the checked request as the caller wrote it, `created` a Unix time in seconds.
    """
    said = {name: asked.get(name) for name in REPEATED}
    return {
        "id": response_id,
        "object": "response",
        "created_at": created,
        "status": "in_progress",
        "background": False,
        "completed_at": None,
        "error": None,
        "incomplete_details": None,
        "max_tool_calls": None,
        "model": model,
        "output": [],
        "previous_response_id": None,
        "reasoning": _reasoning(asked.get("reasoning") or {}),
        "store": False,
        "text": _text(asked.get("text") or {}),
        "tools": [{**TOOL_FIELDS[tool["type"]], **tool} for tool in asked.get("tools") or ()],
        "truncation": "disabled",
        "usage": None,
        **{name: REPEATED[name] if said[name] is None else said[name] for name in REPEATED},
    }


def ended(reason: str | None) -> dict[str, Any]:
    """Status and incomplete_details of a response whose chat choice finished for this reason."""
    why = INCOMPLETE.get(reason or "")
    if why is None:
        return {"status": "completed", "incomplete_details": None}
    return {"status": "incomplete", "incomplete_details": {"reason": why}}


def usage(counted: Data | None) -> dict[str, Any] | None:
    """Chat's usage as that of a response; None where the provider counted nothing."""
    if not counted:
        return None
    read = counted.get("prompt_tokens_details") or {}
    written = counted.get("completion_tokens_details") or {}
    return {
        "input_tokens": counted["prompt_tokens"],
        "input_tokens_details": {
            "cached_tokens": read.get("cached_tokens") or 0,
            "cache_write_tokens": read.get("cache_write_tokens") or 0,
        },
        "output_tokens": counted["completion_tokens"],
        "output_tokens_details": {"reasoning_tokens": written.get("reasoning_tokens") or 0},
        "total_tokens": counted["total_tokens"],
    }


def own_name(name: str) -> str:
    """A chat parameter by the name that it has in a Responses request."""
    return OWN_NAMES.get(name, name)


def _reasoning(asked: Data) -> dict[str, Any]:
    return {"effort": asked.get("effort"), "summary": asked.get("summary")}


def _text(asked: Data) -> dict[str, Any]:
    text = {"format": asked.get("format") or {"type": "text"}}
    if asked.get("verbosity") is not None:
        text["verbosity"] = asked["verbosity"]
    return text
