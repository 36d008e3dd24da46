"""A wrong base URL: the 404 names the address that was meant."""

from __future__ import annotations

import pytest

BASE = "/inference/v1"
POSTED = ["/chat/completions", "/messages", "/responses", "/embeddings"]
READ = ["/models", "/models/openai/gpt-4o", "/health", "/health/ready", "/docs", "/openapi.json"]
WRONG = [
    "",
    "/v1",
    "/inference",
    "/api/v1",
    f"{BASE}/v1",
    f"{BASE}{BASE}",
    "/inference/inference/v1",
    f"{BASE}/chat/completions",
    f"{BASE}/",  # werkzeug would redirect to the host of the Host header
]


@pytest.mark.parametrize("path", POSTED + READ)
@pytest.mark.parametrize("wrong", WRONG)
def test_a_wrong_base_url_is_a_404_that_names_the_right_address(client, wrong, path):
    method = "POST" if path in POSTED else "GET"
    response = client.open(wrong + path, method=method)
    error = response.get_json()["error"]
    assert response.status_code == 404
    assert error["type"] in ("invalid_request_error", "not_found_error")  # the latter: Anthropic's
    assert error["message"] == (
        f"Unknown request URL: {method} {wrong}{path}. Did you mean {BASE}{path}? "
        "Check the base URL of your client."
    )


def test_a_slash_at_the_end_is_no_part_of_an_address(client):
    error = client.post(f"{BASE}/chat/completions/").get_json()["error"]
    assert f"Did you mean {BASE}/chat/completions?" in error["message"]


@pytest.mark.parametrize("path", ["/nothing", "/v1", "/v1/completions", "/%ff%00", "/a" * 4_000])
def test_an_address_like_no_other_is_named_alone(client, path):
    error = client.post(path).get_json()["error"]
    assert "Did you mean" not in error["message"]
    assert error["message"].startswith("Unknown request URL: POST /")
    assert len(error["message"]) < 300
