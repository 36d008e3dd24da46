"""A provider that fails, and another model that can answer: rows F."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence

from tests.faults import routes
from tests.faults.arena import Arena
from tests.faults.client import Seen
from tests.faults.reconciler import Allowed
from tests.faults.rows import row
from tests.support.upstream_answers import behaviour

# So many failures in a row that no breaker opens: each call meets the failure itself.
ENV = {
    "FALLBACK_FIRST_TOKEN_SECONDS": "2",
    "UPSTREAM_FIRST_BYTE_SECONDS": "5",
    "UPSTREAM_BETWEEN_TOKENS_SECONDS": "5",
    "BREAKER_FAILURES": "1000000",
}
TWO_MODELS = Allowed(models=2)

# Name, how the first model fails before its first token.
BEFORE: Sequence[tuple[str, str, str]] = (
    ("F-refuses", "refuses", "refuses connections"),
    ("F-fails", "fails", "answers 500 or 529"),
    ("F-silent", "silent", "is silent from the first byte on (2 s)"),
    ("F-stalls", "stalls", "opens its answer and says nothing (2 s)"),
    ("F-pings", "pings", "sends nothing but pings (2 s)"),
    ("F-cuts", "cuts", "ends an answer that has not begun"),
    ("F-resets", "resets", "resets an answer that has not begun"),
    ("F-errs", "errs", "sends an error as the first event"),
)
# Name, how it fails after some tokens, and what callers of streams are told.
AFTER: Sequence[tuple[str, str, str, set[str]]] = (
    ("F-cuts-late", "cuts-later", "ends its answer", {"upstream_truncated"}),
    ("F-resets-late", "resets-later", "resets", {"upstream_error", "upstream_truncated"}),
    ("F-stalls-late", "stalls-later", "falls silent (2 s)", {"upstream_timeout"}),
    ("F-errs-late", "errs-later", "sends an error", {"upstream_failed", "server_error"}),
)


def by_fallback(each: Seen) -> bool:
    """Whether a fallback gave the whole answer, and is named."""
    names = {name.partition("/")[2] for name in routes.FALLBACKS}
    return each.answered and each.answerers <= names


def before_the_first_token(kind: str) -> Callable[[Arena], None]:
    def run(arena: Arena) -> None:
        calls = arena.load(routes.models(kind), over=0.2)
        arena.meet()
        arena.finish()
        arena.only([], calls)
        others = [each.nonce for each in calls if not by_fallback(each)]
        arena.demand(not others, f"{len(others)} calls were not answered by the fallback")

    return run


def after_tokens(kind: str, codes: set[str]) -> Callable[[Arena], None]:
    def run(arena: Arena) -> None:
        calls = arena.load(routes.models(kind), over=0.2)
        arena.meet()
        arena.finish()
        streams = [each for each in calls if each.stream]
        arena.only(codes, streams)
        for each in streams:
            tokens = each.text.count("t")  # the token that was on its way may be lost
            places = behaviour(min(each.answerers, default="")).get("at", [0])
            arena.demand(each.code, f"{each.nonce}: a stream without an error")
            arena.demand(tokens <= places[0], f"{each.nonce}: {tokens} tokens after {places}")
        # What was not begun falls over whole; an error inside is one of streams alone.
        arena.only([], [each for each in calls if not each.stream])

    return run


for _name, _kind, _what in BEFORE:
    row(
        _name,
        f"a model with a fallback {_what}: the fallback answers whole",
        env=ENV,
        allowed=TWO_MODELS,
        shared="routing",
    )(before_the_first_token(_kind))
for _name, _kind, _what, _codes in AFTER:
    row(
        _name,
        f"it {_what} after 1 to 9 tokens: an error, and nothing spliced on",
        env=ENV,
        allowed=TWO_MODELS,
        shared="routing",
    )(after_tokens(_kind, _codes))


@row("F-locked", "it refuses the operator's key (401, 403): the fallback answers, the log is loud",
     env=ENV, allowed=TWO_MODELS, shared="routing")  # fmt: skip
def the_key_is_refused(arena: Arena) -> None:
    loud = arena.logs().count("ERROR workers.call_log attempt")
    before_the_first_token("locked")(arena)
    loud = arena.logs().count("ERROR workers.call_log attempt") - loud
    arena.demand(loud == len(arena.here()), f"{loud} lines of {len(arena.here())} in the log")


@row("F-long", "it finds the call too long: a larger model is asked, a smaller one is not",
     env=ENV, allowed=TWO_MODELS, shared="routing")  # fmt: skip
def the_call_is_too_long(arena: Arena) -> None:
    calls = arena.load(["size/small-0", "size/small-1"], over=0.2)
    arena.meet()
    arena.finish()
    arena.only([], calls)
    arena.demand(all(each.answerers == {routes.LARGE} for each in calls), "by another model")


@row("F-long-twice", "the larger model finds it too long as well: one attempt, no more",
     env=ENV, allowed=TWO_MODELS, shared="routing")  # fmt: skip
def the_call_is_too_long_for_both(arena: Arena) -> None:
    calls = arena.load(["size/twice-0", "size/twice-1"], over=0.2)
    arena.meet()
    arena.finish()
    arena.only(["context_length_exceeded"], calls)
    arena.demand(all(each.status == 400 for each in calls), "another status than 400")
    models = {call["model"] for call in arena.upstream.log()}
    arena.demand(f"second-{routes.TOO_LONG}" in models, "the larger model was not asked")
    arena.demand(routes.LARGE not in models, "a second larger model was asked")


@row("F-policy", "it refuses the content: told to the caller, nobody else is asked",
     env=ENV, shared="routing")  # fmt: skip
def the_content_is_refused(arena: Arena) -> None:
    calls = arena.load(["size/policy-0", "size/policy-1"], over=0.2)
    arena.meet()
    arena.finish()
    # Anthropic has no code for it.
    arena.only(["content_policy_violation", "invalid_request_error"], calls)
    arena.demand(all(each.status == 400 for each in calls), "another status than 400")


@row("F-garbled", "an event in the middle of a stream is broken: an error, no hole in the answer",
     env=ENV, shared="routing")  # fmt: skip
def an_event_is_garbled(arena: Arena) -> None:
    parts = "delay-400-nonce-stream-10-20-garbled"
    calls = arena.load([f"fake/{parts}", f"claude/{parts}"], over=0.2)
    arena.meet()
    arena.finish()
    arena.only(["upstream_bad_response", "api_error"], calls)
    streams = [each for each in calls if each.stream]
    arena.demand(not any(each.answered for each in streams), "an answer has a hole")


@row("F-R8", "it fails while Redis is a black hole for 3 s: the fallback's answers arrive",
     env=ENV, allowed=TWO_MODELS)  # fmt: skip
def it_fails_without_redis(arena: Arena) -> None:
    calls = arena.load(routes.models("slow-to-fail"), over=0.3)
    arena.until_running(55)
    arena.soon(0.0, 0.3)
    for proxy in (arena.web_redis, arena.worker_redis):
        proxy.blackhole()
    time.sleep(3.0)
    for proxy in (arena.web_redis, arena.worker_redis):
        proxy.heal()
    arena.recovered()
    arena.finish()
    arena.only(["queue_unavailable"], calls)
    arena.demand(sum(map(by_fallback, calls)) >= 50, "a fallback's answer was lost")
