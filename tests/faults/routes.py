"""The catalogue of the fault suite: models with fallbacks, and providers behind TLS.

What a model does stands in the name that its provider is asked by: see upstream_answers.WORDS.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

# An authority of the tests and three servers that it vouches for, all until 2126 but the second,
# which ended with 2025; the third is that of example.org. The service is told to trust it.
FOLDER = Path(__file__).with_name("certificates")
AUTHORITY = FOLDER / "authority.pem"
SECURE = ("good", "expired", "stranger")
CERTIFICATES = tuple(FOLDER / f"{name}.pem" for name in SECURE)

# Numbered from 1,000 on: what is spliced onto a part of another answer shows.
FALLBACKS = (
    "fake/delay-300-nonce-stream-8-30-from-1000",
    "claude/delay-300-nonce-stream-8-30-from-2000",
)
PARTS = "delay-400-nonce-stream-10-20"
PLACES = (1, 2, 5, 9)  # tokens after which a stream breaks off

EARLY = {
    "refuses": ["closed x"],
    "fails": ["fake delay-100-status-500", "claude delay-100-status-529"],
    "silent": ["fake hang", "claude hang"],
    "stalls": [f"fake {PARTS}-hang-first", f"claude {PARTS}-hang-first"],
    "cuts": [f"fake {PARTS}-cut-first", f"claude {PARTS}-cut-first"],
    "resets": [f"fake {PARTS}-reset-first", f"claude {PARTS}-reset-first"],
    "errs": [f"fake {PARTS}-error-first", f"claude {PARTS}-error-first"],
    "pings": [f"fake {PARTS}-pings-100", f"claude {PARTS}-pings-100"],
    "locked": ["fake delay-100-status-401", "fake delay-100-status-403", "claude status-401"],
    "slow-to-fail": ["fake delay-1500-status-500", "claude delay-1500-status-529"],
}
LATE = {
    f"{name}-later": [
        f"{provider} {PARTS}-{word}-at-{place}"
        for provider in ("fake", "claude")
        for place in PLACES
    ]
    for name, word in {
        "cuts": "cut-mid",
        "resets": "reset-mid",
        "stalls": "hang-mid",
        "errs": "error-mid",
    }.items()
}
FAILING = EARLY | LATE
PROVIDERS = {"fake": "fake", "claude": "fake-anthropic", "closed": "closed", "near": "near"}

ROW = """
[models."{name}"]
provider = "{provider}"
upstream = "{upstream}"
context_length = {context}
fallbacks = {fallbacks}
retries = {retries}
timeouts = {{ first_token = 2.0, first_byte = 2.0, between_tokens = 2.0 }}
"""
SECURE_ROW = """
[providers.{name}]
wire = "openai"
base_url = "https://127.0.0.1:{port}/v1"
[models."{name}/*"]
provider = "{name}"
"""
OPERATOR_ROWS = """
[models."any/*"]
provider = "openai"
[models."own/*"]
provider = "anthropic"
"""

# Providers by name: one that resolves, and one that does not (see slow_names.c).
NAMED_ROWS = """
[providers.near]
wire = "openai"
base_url = "{url}/v1"
[providers.unknown]
wire = "openai"
base_url = "http://provider.slow/v1"
[models."unknown/*"]
provider = "unknown"
"""

SMALL, LARGER, LARGEST = 1_000, 8_000, 100_000  # tokens of context
FLAKY = "flaky-delay-200-nonce-stream-8-30"  # what the provider knows it by: it can be down
# Long streams of which one in 20, or in 50, fails at once.
OFTEN = {
    "often/0": "delay-100-often-20-nonce-stream-24-100",
    "often/1": "delay-100-often-50-nonce-stream-59-100",
}
GRUDGE = "delay-200-grudge-nonce-stream-8-30"  # fails for the texts of one caller
LARGE = "large-delay-300-nonce-stream-8-30-from-3000"
TOO_LONG = "toolong-delay-400"


def models(kind: str) -> list[str]:
    """The models that fail in this way; each has one fallback."""
    return [f"{kind}/{number}" for number, _ in enumerate(FAILING[kind])]


def rows(ports: Sequence[int], provider_url: str) -> str:
    """The rows; `ports` are those of SECURE."""
    near = NAMED_ROWS.format(url=provider_url.replace("127.0.0.1", "localhost"))
    secure = (SECURE_ROW.format(name=n, port=p) for n, p in zip(SECURE, ports, strict=True))
    return "".join([OPERATOR_ROWS, near, *secure, *_failing(), *_lengths(), *_flaky()])


def _row(name: str, route: str, fallbacks: Sequence[str], context: int, retries: int = 0) -> str:
    provider, _, upstream = route.partition(" ")
    return ROW.format(
        name=name,
        provider=PROVIDERS[provider],
        upstream=upstream,
        fallbacks=list(fallbacks),
        context=context,
        retries=retries,
    )


def _failing() -> Iterator[str]:
    for kind, routes in FAILING.items():
        for number, route in enumerate(routes):
            yield _row(f"{kind}/{number}", route, [FALLBACKS[number % 2]], SMALL)


def _lengths() -> Iterator[str]:
    """Models that find every call too long, and larger ones."""
    yield _row("size/large", f"fake {LARGE}", [], LARGEST)
    yield _row("size/too-small-too", f"fake never-{PARTS}", [], SMALL)
    yield _row("size/larger", f"fake second-{TOO_LONG}", [], LARGER)
    for number, provider in enumerate(("fake", "claude")):
        route = f"{provider} {TOO_LONG}"
        yield _row(f"size/small-{number}", route, ["size/too-small-too", "size/large"], SMALL)
        yield _row(f"size/twice-{number}", route, ["size/larger", "size/large"], SMALL)
        route = f"{provider} policy-delay-400"
        yield _row(f"size/policy-{number}", route, ["size/large"], SMALL)


def _flaky() -> Iterator[str]:
    """Models that fail now and then: one can be down, and has the usual retries."""
    yield _row("flaky/0", f"fake {FLAKY}", FALLBACKS[:1], SMALL, retries=2)
    for name, upstream in OFTEN.items():
        yield _row(name, f"fake {upstream}", FALLBACKS[:1], SMALL)
    yield _row("near/0", f"near near-{PARTS}", FALLBACKS[:1], SMALL)
    yield _row("grudge/0", f"fake {GRUDGE}", FALLBACKS[:1], SMALL)
