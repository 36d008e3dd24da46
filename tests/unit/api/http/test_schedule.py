"""X-Not-Before, X-Deadline and timeouts: when a call starts, and until when it must have ended."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from werkzeug.datastructures import Headers

from api.http.schedule import MOST_DELAY_SECONDS, schedule
from gateway.errors import DeadlineExceeded, InvalidRequest

NOW = 1_796_083_200.0  # 2026-12-01T00:00:00Z


def times(
    stream: bool = False, waits: bool = True, longest: float = 600, **headers: str
) -> tuple[float, float]:
    named = Headers([(name.replace("_", "-"), value) for name, value in headers.items()])
    return schedule(named, longest, stream, NOW, waits)


@pytest.mark.parametrize(
    "text",
    [
        "60",
        " 60.0 ",
        "2026-12-01T00:01:00Z",
        "2026-12-01t00:01:00.000z",
        "2026-12-01T01:01:00+01:00",
        "Tue, 01 Dec 2026 00:01:00 GMT",
        "Tuesday, 01-Dec-26 00:01:00 GMT",
    ],
)
def test_a_time_may_be_seconds_or_rfc_3339_or_an_http_date(text: str) -> None:
    assert times(x_not_before=text) == (60, 660)
    assert times(x_deadline=text) == (0, 60)


@pytest.mark.parametrize(
    "text", ["", "soon", "-5", "1e9", "nan", "2026-12-01", "2026-12-01T00:01:00", "٣", "9" * 10]
)
@pytest.mark.parametrize("name", ["x_not_before", "x_deadline"])
def test_other_values_are_refused_by_name(name: str, text: str) -> None:
    with pytest.raises(InvalidRequest) as caught:
        times(**{name: text})
    assert (caught.value.status, caught.value.code) == (400, "invalid_value")
    assert caught.value.param == name.replace("_", "-").title()


@given(st.text(max_size=40))
def test_any_text_is_a_time_or_refused(text: str) -> None:
    try:
        delay, budget = times(x_not_before=text.replace("\n", " ").replace("\r", " "))
    except InvalidRequest:
        return
    assert 0 <= delay < budget


def test_a_start_in_the_past_is_now() -> None:
    assert times(x_not_before="2026-11-30T23:00:00Z") == (0, 600)


def test_the_deadline_counts_from_the_start() -> None:
    assert times(x_not_before="5", X_Request_Timeout="10") == (5, 15)


def test_a_waiting_client_lets_the_call_start_within_its_deadline() -> None:
    assert times(x_not_before="600")[0] == 600
    with pytest.raises(InvalidRequest, match="within 600 s"):
        times(x_not_before="601")
    assert times(x_not_before="601", waits=False)[0] == 601
    with pytest.raises(InvalidRequest, match="within 86400 s"):
        times(x_not_before=str(MOST_DELAY_SECONDS + 1), waits=False)


def test_x_deadline_lowers_the_service_s_deadline_and_never_extends_it() -> None:
    assert times(x_deadline="20", x_not_before="10") == (10, 20)
    assert times(x_deadline="900") == (0, 600)


def test_a_deadline_that_has_passed_is_a_504() -> None:
    with pytest.raises(DeadlineExceeded, match="was not sent"):
        times(x_deadline="2026-11-30T23:59:59Z")


def test_a_deadline_before_the_start_is_refused() -> None:
    with pytest.raises(InvalidRequest, match="later than X-Not-Before"):
        times(x_deadline="5", x_not_before="10")


def test_the_client_s_read_timeout_counts_for_unstreamed_calls_only() -> None:
    assert times(x_stainless_read_timeout="30") == (0, 30)
    assert times(x_stainless_read_timeout="30", stream=True) == (0, 600)
    assert times(X_Request_Timeout="30", stream=True) == (0, 30)
    assert times(X_Request_Timeout="inf") == (0, 600)
