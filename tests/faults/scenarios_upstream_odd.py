"""Answers that are odd, endless, dishonest or not to be trusted: more rows U."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from tests.faults.arena import Arena
from tests.faults.rows import row
from tests.faults.scenarios_upstream import ENV, PARTS, TRIED_AGAIN, both

MEGABYTE = 1 << 20
GROWTH = 64 * MEGABYTE  # most that a worker may take for a provider that never stops
BAD = {"upstream_bad_response"}


def odd(models: Sequence[str], codes: set[str], sound: bool) -> Callable[[Arena], None]:
    """Some calls to these models among sound ones that share their connections; two rounds."""

    def run(arena: Arena) -> None:
        others = []
        for _ in range(2):
            calls = arena.load(models, count=40, over=0.2)
            others += arena.load([f"fake/{PARTS}", f"claude/{PARTS}"], count=20, over=0.2)
            arena.meet()
            arena.finish()
            arena.only(codes, calls)
            count = sum(each.answered for each in calls)
            arena.demand(not sound or count == len(calls), f"only {count} were answered")
            arena.demand(sound or count == 0, f"{count} were answered")
        arena.demand(all(each.answered for each in others), "a sound call was lost")

    return run


# Name, what the provider does, models, errors that may come, whether all are answered.
ROWS: Sequence[tuple[str, str, list[str], set[str], bool]] = (
    ("U18-bomb", "sends 20 MB packed into 20 kB", both("delay-400-bomb-20"), BAD, False),
    ("U18-lengths", "names two lengths", both("delay-400-lengths"), BAD, False),
    (
        "U18-short",
        "says more than the length that it names, and keeps the connection",
        ["fake/delay-400-short"],
        BAD,
        False,
    ),
    (
        "U18-early",
        "sends `103 Early Hints` first",
        [f"fake/{PARTS}-early", f"claude/{PARTS}-early"],
        set(),
        True,
    ),
    (
        "U18-trailers",
        "ends its streams with trailers",
        [f"fake/{PARTS}-trailers", f"claude/{PARTS}-trailers"],
        set(),
        True,
    ),
    (
        "U22",
        "sends unknown fields, huge numbers, no usage and chunks without a choice",
        [f"fake/{PARTS}-strange"],
        set(),
        True,
    ),
    (
        "U25",
        "speaks HTTP/1.0: the end of the connection is the end of the answer",
        [f"fake/{PARTS}-http10", f"claude/{PARTS}-http10"],
        set(),
        True,
    ),
)
for _name, _what, _models, _codes, _sound in ROWS:
    row(_name, f"the provider {_what}", env=ENV, shared="odd")(odd(_models, _codes, _sound))


@row("U2", "a provider whose certificate has expired, or is another's, beside a good one", env=ENV,
     shared="odd")  # fmt: skip
def certificates(arena: Arena) -> None:
    bad = arena.load([f"expired/{PARTS}", f"stranger/{PARTS}"], count=30, over=0.3)
    good = arena.load([f"good/{PARTS}"], count=60, over=0.3)
    arena.meet()
    arena.finish()
    arena.only(["upstream_tls"], bad)
    arena.demand(all(each.code and each.status == 502 for each in bad), "it was not refused")
    arena.demand(all(each.answered for each in good), "a good certificate was refused")
    contents = {call["body"]["messages"][-1]["content"] for call in arena.upstream.log()}
    arena.demand(contents.isdisjoint(each.nonce for each in bad), "the call was sent all the same")


@row("U6-drip", "one byte a second: the deadline (3 s) rules", env=ENV, shared="odd")
def a_byte_a_second(arena: Arena) -> None:
    calls = arena.load(both("drip-1000"), over=0.2, deadline=3.0)
    arena.meet()
    arena.finish()
    arena.only(["deadline_exceeded"], calls)
    arena.demand(all(each.ended - each.began < arena.within(5.0) for each in calls), "too late")


@row("U15", "streams with BOM, comments, CR LF, data in two lines and emoji, cut anywhere by the "
     "network", env=ENV)  # fmt: skip
def streams_are_cut_anywhere(arena: Arena) -> None:
    dice = arena.dice()
    arena.provider.split_by(lambda: dice.randint(1, 60))
    parts = "delay-400-nonce-stream-10-20-wild-emoji"
    calls = arena.load([f"fake/{parts}", f"claude/{parts}"], over=0.2, streams=True, count=40)
    calls += arena.load([f"fake/{PARTS}-emoji", f"claude/{parts}"], over=0.2, count=40)
    arena.meet()
    arena.finish()
    arena.provider.heal()
    arena.only([], calls)
    arena.demand(all(each.answered for each in calls), "an answer was lost")


def without_end(
    models: Sequence[str], codes: set[str], count: int = 4, streams: bool | None = None
) -> Callable[[Arena], None]:
    """Some callers of a provider that says too much, beside others; the worker's memory."""

    def run(arena: Arena) -> None:
        worker = arena.workers[0]
        calls = arena.load(count=56, over=1.0)
        arena.meet()
        before = arena.footprints()[worker].memory
        huge = arena.load(models, count=count, over=0.1, deadline=30, streams=streams)
        arena.finish()
        arena.only(codes, huge)
        arena.demand(all(each.refused for each in huge), "it was taken")
        arena.demand(all(each.answered for each in calls), "a call of another was lost")
        grown = arena.footprints()[worker].peak - before
        arena.demand(grown < GROWTH, f"the worker took {grown / MEGABYTE:.0f} MB more")

    return run


row("U17-1gb", "the provider sends 1 GB to four callers, beside 56 others", env=ENV)(
    without_end(["fake/huge-1024"], BAD)
)
row("U17-line", "the provider sends a line of 10 MB, and of 100 MB", env=ENV)(
    without_end([*both("line-10"), *both("line-100")], BAD)
)
# Each holds some 20 MB on its way: what is unsent is bounded, and written in batches.
row("U17-endless", "two streams that never end", env=ENV, memory=128)(
    without_end(both("endless-sse"), {*BAD, "slow_reader"}, count=2, streams=True)
)
# One: up to the cap, 34 MB, a whole answer has to be kept.
row("U17-whole", "an endless answer for a caller who wants it unstreamed", env=ENV, memory=128)(
    without_end(both("endless-sse"), BAD, count=1, streams=False)
)


@row("U20", "the provider tells the key in its errors, in bodies, headers and events", env=ENV,
     allowed=TRIED_AGAIN, shared="odd")  # fmt: skip
def keys_are_told(arena: Arena) -> None:
    kinds = [
        *(f"delay-400-status-{status}-leak" for status in (400, 401, 429, 500)),
        f"{PARTS}-error-first-leak",
        f"{PARTS}-error-mid-leak",
    ]
    calls = arena.load([f"{who}/{words}" for who in ("any", "own") for words in kinds], over=0.2)
    arena.meet()
    arena.finish()
    # That callers and logs are told no key is demanded of every row.
    arena.demand(any(each.code for each in calls), "no error came")
