"""workers/failover.py: who is asked after which failure, and what the caller is told at the end."""

from __future__ import annotations

import pytest

from gateway import errors
from gateway.catalogue.file import ModelRow
from gateway.catalogue.target import Target
from gateway.errors import (
    GatewayError,
    InvalidRequest,
    ModelNotFound,
    ProviderNotConfigured,
    UpstreamAuth,
    UpstreamError,
    UpstreamFailed,
    UpstreamRejected,
    UpstreamThrottled,
    UpstreamTimeout,
    UpstreamUnreachable,
)
from workers.failover import Failover

CONTEXTS = {"a": 8_000, "heir": 8_000, "b": None, "c": 4_000, "d": 32_000, "e": 128_000}
TOO_LONG = "context_length_exceeded"


def target(name: str, only_if_gone: bool) -> Target:
    row = ModelRow(name, "acme", context_length=CONTEXTS[name])
    return Target(name, "acme", name, only_if_gone, row)


def failover(names: str = "a b c", gone: str = "") -> Failover:
    return Failover(tuple(target(name, name in gone.split()) for name in names.split()))


def too_long() -> UpstreamRejected:
    return UpstreamRejected("Too long.", code=TOO_LONG)


def after(chain: Failover, *failures: GatewayError) -> list[str]:
    """The models asked after each of these failures."""
    called = []
    for failure in failures:
        chain.note(failure)
        chain.move_on(failure, began=False)
        called.append(chain.target.model)
    return called


OF_THE_PROVIDER = [
    kind for kind in errors.kinds(UpstreamError) if not issubclass(kind, UpstreamRejected)
]
FINAL = [
    kind
    for kind in errors.kinds()
    if kind not in (*OF_THE_PROVIDER, ProviderNotConfigured, ModelNotFound)
]


@pytest.mark.parametrize("kind", [*OF_THE_PROVIDER, ProviderNotConfigured, ModelNotFound])
def test_after_a_failure_of_the_provider_the_next_is_asked(kind: type[GatewayError]) -> None:
    assert after(failover(), kind(), kind()) == ["b", "c"]


@pytest.mark.parametrize("kind", FINAL)
def test_after_any_other_failure_nobody_is(kind: type[GatewayError]) -> None:
    error = kind()
    with pytest.raises(kind) as raised:
        after(failover(), error)
    assert raised.value is error


@pytest.mark.parametrize("code", ["content_policy_violation", "invalid_prompt", None])
def test_a_provider_s_rules_for_content_are_not_got_around(code: str | None) -> None:
    error = UpstreamRejected("Not that.", code=code)
    with pytest.raises(UpstreamRejected) as raised:
        after(failover(), error)
    assert raised.value.message == "Not that."


@pytest.mark.parametrize("kind", OF_THE_PROVIDER)
def test_an_answer_that_has_begun_is_not_begun_again(kind: type[GatewayError]) -> None:
    chain, error = failover(), kind()
    with pytest.raises(kind) as raised:
        chain.move_on(error, began=True)
    assert raised.value is error
    assert chain.target.model == "a"


def test_the_last_failure_is_told() -> None:
    last = UpstreamTimeout()
    with pytest.raises(UpstreamTimeout) as raised:
        after(failover(), UpstreamFailed(), UpstreamFailed(), last)
    assert raised.value is last


def test_a_refused_key_is_no_reason_not_to_ask_another() -> None:
    assert after(failover(), UpstreamAuth()) == ["b"]


def test_a_successor_is_asked_only_where_the_model_is_gone() -> None:
    assert after(failover("a heir b", gone="heir"), ModelNotFound()) == ["heir"]
    assert after(failover("a heir b", gone="heir"), UpstreamFailed()) == ["b"]
    assert after(failover("a heir b", gone="heir"), ModelNotFound(), UpstreamFailed()) == [
        "heir",
        "b",
    ]


def test_a_call_that_is_too_long_goes_to_the_next_model_that_takes_more() -> None:
    assert after(failover("a b c d e"), too_long()) == ["d"]


@pytest.mark.parametrize("failure", [UpstreamFailed, too_long, ModelNotFound, UpstreamRejected])
def test_that_model_is_asked_once_and_the_caller_told_of_the_length(failure) -> None:
    first, chain = too_long(), failover("a d e")
    with pytest.raises(UpstreamRejected) as raised:
        after(chain, first, failure())
    assert raised.value is first
    assert chain.alone()


def test_a_call_that_is_too_long_for_all_is_refused() -> None:
    with pytest.raises(UpstreamRejected):
        after(failover("d a c"), too_long())


def test_a_model_of_unknown_length_is_asked_once_where_none_is_known_to_take_more() -> None:
    chain, first = failover("d c b a"), too_long()
    assert after(chain, first) == ["b"]
    with pytest.raises(UpstreamRejected) as raised:
        after(chain, too_long())
    assert raised.value is first


def test_a_fallback_that_cannot_do_what_was_asked_is_passed_over() -> None:
    chain = failover("a b c d")
    first = UpstreamFailed()
    assert after(chain, first, InvalidRequest(), InvalidRequest()) == ["b", "c", "d"]
    with pytest.raises(UpstreamFailed) as raised:
        after(chain, InvalidRequest())
    assert raised.value is first


def test_a_model_that_was_passed_over_for_one_that_cannot_may_be_asked_again_later() -> None:
    chain = failover("a b")
    chain.skip()
    with pytest.raises(GatewayError) as raised:
        after(chain, InvalidRequest())
    assert (raised.value.status, raised.value.should_retry) == (503, True)


def test_who_is_passed_over_is_in_the_record() -> None:
    chain = failover("a heir b", gone="heir")
    chain.skip()
    assert chain.target.model == "b"
    (skipped,) = chain.bill.attempts
    assert (skipped["provider_name"], skipped["model"]) == ("acme", "a")
    assert (skipped["code"], skipped["latency_ms"]) == ("circuit_open", 0)


def test_failed_attempts_are_in_the_record() -> None:
    chain = failover()
    after(chain, UpstreamUnreachable())
    chain.note(UpstreamRejected(), 1.5)
    fields = ("model", "status", "code", "latency_ms")
    assert [tuple(each[name] for name in fields) for each in chain.bill.attempts] == [
        ("a", 502, "upstream_connect", 0),
        ("b", 400, "upstream_rejected", 1_500),
    ]


@pytest.mark.parametrize(
    ("names", "gone", "alone"),
    [("a", "", True), ("a b", "", False), ("a heir", "heir", True), ("a heir b", "heir", False)],
)
def test_who_has_no_fallback_is_alone(names: str, gone: str, alone: bool) -> None:
    assert failover(names, gone).alone() == alone


@pytest.mark.parametrize(
    ("first", "should_retry"),
    [
        (UpstreamTimeout, False),
        (UpstreamFailed, False),
        (UpstreamUnreachable, True),
        (ProviderNotConfigured, True),
    ],
)
def test_a_client_is_not_to_try_again_once_any_call_may_have_left(
    first: type[GatewayError], should_retry: bool
) -> None:
    with pytest.raises(UpstreamUnreachable) as raised:
        after(failover("a b"), first(), UpstreamUnreachable())
    assert raised.value.should_retry is should_retry


def test_a_limit_that_comes_after_a_silence_is_not_to_be_tried_again() -> None:
    with pytest.raises(UpstreamThrottled) as raised:
        after(failover("a b"), UpstreamTimeout(), UpstreamThrottled())
    assert raised.value.should_retry is False
