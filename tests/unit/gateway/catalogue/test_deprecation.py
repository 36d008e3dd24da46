"""gateway/catalogue/deprecation.py: what is said of a model that ends soon, on chosen days."""

from __future__ import annotations

from datetime import date, timedelta

import pytest

from gateway.catalogue.deprecation import NOTICE, gone, headers, notice, substitution, warning
from gateway.catalogue.file import ModelRow
from gateway.errors import ModelNotFound

SHUTDOWN = date(2027, 1, 14)
ROW = ModelRow("acme/old", "acme", shutdown_date=SHUTDOWN, successor="acme/new")
LONELY = ModelRow("acme/old", "acme", shutdown_date=SHUTDOWN)
LASTING = ModelRow("acme/old", "acme", successor="acme/new")
DAY = timedelta(days=1)


def test_notice_is_given_from_sixty_days_before_the_end():
    assert timedelta(days=60) == NOTICE
    assert notice("acme/old", ROW, SHUTDOWN - NOTICE - DAY) is None
    assert notice("acme/old", ROW, SHUTDOWN - NOTICE) == (
        "acme/old will be shut down by its provider on 2027-01-14. Use acme/new instead."
    )


@pytest.mark.parametrize("now", [SHUTDOWN, SHUTDOWN + DAY, SHUTDOWN + timedelta(days=5_000)])
def test_notice_goes_on_after_the_end(now):
    assert notice("acme/old", ROW, now) == (
        "acme/old was to be shut down by its provider on 2027-01-14. Use acme/new instead."
    )


def test_the_headers_hold_the_day_of_the_first_warning_and_that_of_the_end():
    assert headers(SHUTDOWN) == {
        "Deprecation": "@1794700800",
        "Sunset": "Thu, 14 Jan 2027 00:00:00 GMT",
    }


def test_the_headers_of_any_day_that_a_file_can_name_are_made():
    assert headers(date.min)["Sunset"] == "Mon, 01 Jan 0001 00:00:00 GMT"


def test_a_model_without_a_successor_names_none():
    assert notice("acme/old", LONELY, SHUTDOWN - DAY) == (
        "acme/old will be shut down by its provider on 2027-01-14."
    )
    error = ModelNotFound("No such model.")
    assert gone(error, LONELY) is error


def test_a_model_without_an_end_gives_no_notice():
    assert notice("acme/old", LASTING, date.max) is None


def test_a_refusal_names_the_successor_and_keeps_the_rest():
    error = gone(ModelNotFound("No such model.", param="model", code="gone"), ROW)
    assert (
        error.message
        == "No such model. Use the model 'acme/new' instead (shut down on 2027-01-14)."
    )
    assert (error.status, error.param, error.code) == (404, "model", "gone")
    assert gone(ModelNotFound("No."), LASTING).message == "No. Use the model 'acme/new' instead."


def test_a_warning_is_a_miscellaneous_persistent_one():
    text = substitution("acme/old", "acme/new")
    assert warning(text) == (
        '299 - "acme/old has been shut down by its provider: acme/new answered in its place."'
    )


@pytest.mark.parametrize("odd", ['"', "\\", "é", "\n", "\r", "\x00", "\x7f", "\u2028"])
def test_nothing_in_a_warning_can_end_its_quotes_or_its_line(odd):
    assert warning(f"a{odd}b") == '299 - "a?b"'
