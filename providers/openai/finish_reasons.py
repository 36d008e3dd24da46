"""Why responses of OpenAI-compatible upstreams end, in OpenAI's words."""

from __future__ import annotations

import re
from typing import Any

FINISH_REASONS = ("stop", "length", "tool_calls", "content_filter", "function_call")
UNFINISHED = frozenset({"", "null", "none"})  # as words

# Patterns of other words -> OpenAI's reason, or "error" where the response is incomplete. The first
# that matches counts; words that match none mean "stop" ("eos", "end_turn", "COMPLETE").
WORDS: tuple[tuple[str, re.Pattern[str]], ...] = tuple(
    (reason, re.compile(pattern, re.IGNORECASE))
    for reason, pattern in (
        (
            "error",
            "error|fail|abort|cancel|malformed|overload|time_?out|interrupt|unavailable|exception"
            "|network|disconnect|incomplete|insufficient|unexpected|preempt|missing|too_many|crash"
            "|evict|killed|unload|shut_?down",
        ),
        (
            "content_filter",
            "filter|safety|block|prohibit|policy|moderat|sensitiv|recitation|refus|guardrail|spii"
            "|flagged|copyright|harm|toxic",
        ),
        ("length", "length|max|limit|exceed|context|window|budget|repetition|truncat"),
        ("tool_calls", "tool|function"),
    )
)


def finish_reason(word: Any) -> str | None:
    """Return OpenAI's word for an upstream's finish reason; "error" if the response is incomplete.

    None if the response goes on.
    """
    if word in FINISH_REASONS:
        return str(word)
    if isinstance(word, dict):
        word = word.get("type")
    if not isinstance(word, str) or word.strip().lower() in UNFINISHED:
        return None
    return next((reason for reason, pattern in WORDS if pattern.search(word)), "stop")
