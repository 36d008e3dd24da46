"""workers/provider_check.py: what a provider says to a free call."""

from __future__ import annotations

import pytest

from gateway.catalogue.file import ProviderRow
from gateway.settings import Settings
from tests.support.raw_upstream import serving
from workers.provider_check import check
from workers.providers import http_session

KEY = "sk-canary-0123456789"


def result(url: str, **row: str) -> dict[str, object]:
    settings = Settings(variables={"KEY": KEY})
    provider = ProviderRow("acme", row.pop("wire", "openai"), url, key_variable="KEY", **row)  # type: ignore[arg-type]
    [result] = check(provider, settings, http_session(settings))
    assert KEY not in str(result)
    return result


@pytest.mark.parametrize("wire", ["openai", "anthropic"])
@pytest.mark.parametrize(
    ("status", "ok", "text"),
    [
        ("200 OK", True, "takes the key"),
        ("401 Unauthorized", False, "refuses the key (401)"),
        ("403 Forbidden", False, "refuses the key (403)"),
        ("404 Not Found", None, "answers, and has no list of models to try the key with (404)"),
        ("500 Oops", None, "answers 500"),
    ],
)
def test_a_status_says_whether_the_provider_takes_the_key(
    wire: str, status: str, ok: bool | None, text: str
) -> None:
    with serving(f"HTTP/1.1 {status}\r\nContent-Length: 0\r\n\r\n".encode()) as url:
        found = result(url, wire=wire)
    assert found == {"provider": "acme", "key": 1, "ok": ok, "text": text}


def test_a_provider_that_cannot_be_reached_is_named() -> None:
    assert result("http://127.0.0.1:1") == {
        "provider": "acme",
        "key": 1,
        "ok": False,
        "text": "no answer (ConnectionError)",
    }


def test_credentials_of_google_that_are_no_file_are_named_by_their_kind_alone() -> None:
    found = result("http://127.0.0.1:1", auth="google")
    assert found["ok"] is False
    assert str(found["text"]).startswith("cannot be called (")
