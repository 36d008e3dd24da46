"""Faults of the provider, and of the way to it: rows U."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence

from tests.faults.arena import LONG, SHORT, Arena
from tests.faults.reconciler import Allowed
from tests.faults.rows import row

# How long the provider may be silent on these stacks.
SILENCE = {"UPSTREAM_FIRST_BYTE_SECONDS": "5", "UPSTREAM_BETWEEN_TOKENS_SECONDS": "5"}
# No breaker opens: each call meets the failure itself, and has its retries.
ENV = {**SILENCE, "BREAKER_FAILURES": "1000000"}
TRIED_AGAIN = Allowed(attempts=3, retry=True)
# A request on a kept connection that is closed before a byte comes back is sent again.
REUSED = Allowed(attempts=3)
PARTS = "delay-400-nonce-stream-10-20"
PLACES = (1, 2, 5, 8, 10)  # tokens after which answers break off


def both(words: str) -> list[str]:
    return [f"fake/{words}", f"claude/{words}"]


def broken(words: str) -> list[str]:
    """Models whose answers break off at various places."""
    return [model for place in PLACES for model in both(f"{PARTS}-{words}-at-{place}")]


# Name, what the provider does, models, errors that may come, how many of 60 may be answered
# (all, none or any), and what is allowed.
ROWS: Sequence[tuple[str, str, list[str], set[str], str, Allowed]] = (
    ("U1", "refuses connections", ["closed/any"], {"upstream_connect"}, "none", Allowed()),
    ("U3", "never answers (5 s)", both("hang"), {"upstream_timeout"}, "none", Allowed()),
    (
        "U4",
        "resets before its headers",
        both("delay-400-reset"),
        {"upstream_error", "upstream_connect"},
        "none",
        REUSED,
    ),
    (
        "U5",
        "resets in the middle",
        broken("reset-mid"),
        {"upstream_error", "upstream_truncated"},
        "none",
        Allowed(),
    ),
    (
        "U7",
        "falls silent in the middle (5 s)",
        broken("hang-mid"),
        {"upstream_timeout"},
        "none",
        Allowed(),
    ),
    (
        "U8",
        "says 429 with `Retry-After: 1`, always",
        both("delay-400-status-429-after-1"),
        {"rate_limit_exceeded"},
        "none",
        TRIED_AGAIN,
    ),
    (
        "U8-long",
        "says 429 with `Retry-After: 9999`",
        both("delay-400-status-429-after-9999"),
        {"rate_limit_exceeded"},
        "none",
        Allowed(retry=True),
    ),
    (
        "U9-once",
        "says 500, 502, 503 or 529 once",
        [f"fake/delay-400-once-{status}" for status in (500, 502, 503)]
        + ["claude/delay-400-once-529"],
        set(),
        "all",
        TRIED_AGAIN,
    ),
    (
        "U9",
        "says 500, 503 or 529 always",
        ["fake/delay-400-status-500", "fake/delay-400-status-503", "claude/delay-400-status-529"],
        {"upstream_failed", "upstream_error", "server_is_overloaded"},
        "none",
        TRIED_AGAIN,
    ),
    (
        "U10",
        "says 401 or 403: the operator's fault, not the caller's",
        [*both("delay-400-status-401"), *both("delay-400-status-403")],
        {"upstream_auth"},
        "none",
        Allowed(),
    ),
    (
        "U11",
        "answers with JSON that is none",
        both("delay-400-malformed"),
        {"upstream_bad_response"},
        "none",
        Allowed(),
    ),
    (
        "U12",
        "answers with a page",
        both("delay-400-html"),
        {"upstream_bad_response"},
        "none",
        Allowed(),
    ),
    (
        "U13",
        "sends JSON to streams and events to the others",
        [f"fake/{PARTS}-json", f"fake/{PARTS}-sse"],
        set(),
        "all",
        Allowed(),
    ),
    (
        "U14",
        "ends an answer before it is complete",
        broken("cut-mid"),
        {"upstream_truncated"},
        "none",
        Allowed(),
    ),
    (
        "U16",
        "sends an error inside a stream",
        [model for model in broken("error-mid") if model.startswith("fake")],
        {"upstream_failed", "upstream_error", "server_error"},
        "some",
        Allowed(),
    ),
    (
        "U18",
        "compresses its answer, or says so",
        both("delay-400-gzip"),
        {"upstream_bad_response"},
        "none",
        Allowed(),
    ),
    (
        "U19",
        "redirects to another address",
        both("delay-400-redirect"),
        {"upstream_bad_response", "upstream_error", "upstream_failed"},
        "none",
        Allowed(),
    ),
    ("U24", "holds a stream open after its end", [f"fake/{PARTS}-linger"], set(), "all", Allowed()),
)


def provider_row(models: list[str], codes: set[str], answered: str) -> Callable[[Arena], None]:
    def run(arena: Arena) -> None:
        calls = arena.load(models, over=0.1)
        arena.meet()
        arena.finish()
        arena.only(codes, calls)
        count = sum(each.answered for each in calls)
        arena.demand(answered != "all" or count == len(calls), f"{count} were answered")
        arena.demand(answered != "none" or count == 0, f"{count} were answered")
        arena.demand(all(each.status not in (401, 403) for each in calls), "a 401 was passed on")
        if "upstream_auth" in codes:
            loud = arena.logs().count("ERROR workers.call_log attempt")
            arena.demand(loud >= len(calls), f"{loud} lines in the log of {len(calls)} calls")

    return run


for _name, _what, _models, _codes, _answered, _allowed in ROWS:
    row(
        _name,
        f"the provider {_what}",
        env=ENV,
        allowed=_allowed,
        shared="provider",
    )(provider_row(_models, _codes, _answered))


@row("U6", "the provider is so slow that the deadline (3 s) passes", env=ENV, shared="provider")
def the_deadline_passes(arena: Arena) -> None:
    calls = arena.load(both("nonce-stream-300-100"), over=0.1, deadline=3.0)
    arena.meet()
    arena.finish()
    arena.only(["deadline_exceeded"], calls)
    arena.demand(not any(each.answered for each in calls), "an answer after the deadline")
    arena.demand(all(each.ended - each.began < arena.within(5.0) for each in calls), "too late")


@row(
    "U17", "the provider sends 40 MB to four callers, beside 56 others", env=ENV, shared="provider"
)
def an_answer_is_huge(arena: Arena) -> None:
    huge = arena.load(["fake/delay-400-huge-40"], count=4, over=0.1, deadline=30)
    calls = arena.load([*LONG, *SHORT], count=56, over=0.1)
    arena.meet()
    arena.finish()
    arena.only(["upstream_bad_response"], huge)
    arena.demand(all(each.refused for each in huge), "it was taken")
    arena.demand(all(each.answered for each in calls), "a call of another was lost")


# Not beside other rows: it leaves connections behind that are of no use to them.
@row("U21", "the provider closes kept connections as they are used", env=ENV)
def kept_connections_are_closed(arena: Arena) -> None:
    calls = arena.load(["fake/delay-400-stale"], over=0.1)
    arena.meet()
    arena.finish()
    calls += arena.load(["fake/delay-400-stale"], over=0.1)
    arena.finish()
    # The connections of a first retry may be stale as well: three attempts may not be enough.
    arena.only(["upstream_connect", "upstream_error"], calls)
    arena.demand(sum(each.answered for each in calls) >= 60, "too few were answered")


@row("U26", "a mix of all of these, 200 calls, some of whose clients leave", env=ENV,
     allowed=TRIED_AGAIN, shared="provider")  # fmt: skip
def everything_at_once(arena: Arena) -> None:
    models = [model for _, _, models, *_ in ROWS for model in models]
    arena.load([*models, *LONG, *SHORT], count=160, over=4.0)
    arena.load([*models, *LONG], count=40, over=4.0, leave=(0.1, 3.0))
    calls = arena.load([*LONG, *SHORT], count=60, over=4.0)
    arena.meet()
    arena.finish()
    arena.demand(all(each.answered for each in calls), "a healthy call was lost")


@row("U1-net", "connections to the provider reset and refused for 2 s", env=SILENCE, allowed=REUSED)
def the_provider_is_unreachable(arena: Arena) -> None:
    arena.load()
    arena.load(SHORT, count=60, over=4.0)
    arena.soon()
    arena.provider.refuse()
    arena.provider.reset()
    time.sleep(2.0)
    arena.provider.heal()
    arena.finish()
    arena.only(["upstream_connect", "upstream_error", "upstream_truncated"])


@row(
    "U3-net",
    "a black hole instead of the provider for 7 s",
    env=SILENCE,
    allowed=REUSED,
)
def the_provider_is_a_black_hole(arena: Arena) -> None:
    arena.load()
    arena.soon()
    arena.provider.blackhole()
    late = arena.load(SHORT, count=30, over=1.5)
    time.sleep(7.0)
    arena.provider.heal()
    arena.finish()
    arena.demand(any(each.code == "upstream_timeout" for each in late), "none was given up")
    arena.only(["upstream_timeout", "upstream_error", "upstream_truncated"])


@row("U5-net", "every connection to the provider reset, five times", env=SILENCE, allowed=REUSED)
def the_provider_is_reset(arena: Arena) -> None:
    arena.load()
    arena.load(SHORT, count=60, over=3.0)
    arena.soon(0.6, 0.8)
    for _ in range(5):
        arena.provider.reset()
        time.sleep(arena.rng.uniform(0.1, 0.6))
    arena.finish()
    arena.only(["upstream_error", "upstream_truncated", "upstream_connect"])


@row("U14-net", "each connection to the provider closed after 200 to 6,000 bytes", env=SILENCE,
     allowed=REUSED)  # fmt: skip
def answers_are_cut(arena: Arena) -> None:
    dice = arena.dice()
    arena.provider.cut_after(lambda: dice.randint(200, 6_000))
    calls = arena.load(over=0.3)
    calls += arena.load(SHORT, count=40, over=2.0)
    arena.meet()
    arena.finish()
    arena.provider.heal()
    arena.only(["upstream_truncated", "upstream_error", "upstream_bad_response"], calls)
    arena.demand(any(each.code for each in calls), "nothing was cut")


@row("U27", "one provider's name takes 5 s to be unknown, beside another provider",
     env={**SILENCE, "UPSTREAM_CONNECT_SECONDS": "3", "UPSTREAM_RETRIES": "0"},
     slow_names=True)  # fmt: skip
def a_name_does_not_resolve(arena: Arena) -> None:
    unknown = arena.load(["unknown/any"], count=120, over=4.0)
    time.sleep(0.3)
    others = arena.load(["near/0"], count=120, over=4.0)
    arena.meet()
    arena.finish()
    arena.only([], others)
    arena.only(["upstream_connect"], unknown)
    slowest = max(each.ended - each.began for each in others)
    arena.notes.append(f"the slowest call of the other provider took {slowest:.1f} s")
    diverted = [each for each in others if each.answerers != {f"near-{PARTS}"}]
    arena.demand(not diverted, f"{len(diverted)} calls of the other provider were diverted")
    arena.demand(slowest < arena.within(3), f"a call of the other provider took {slowest:.1f} s")
