"""/health, where this process cannot serve any more."""

from __future__ import annotations

HEALTH = "/inference/v1/health"


def test_a_process_without_descriptors_is_not_healthy(client, no_descriptors) -> None:
    assert client.get(HEALTH).status_code == 200
    no_descriptors()
    response = client.get(HEALTH)
    assert (response.status_code, response.json["status"]) == (503, "unavailable")


def test_a_process_whose_broker_has_ended_is_not_healthy(client, broker, monkeypatch) -> None:
    monkeypatch.setattr(broker, "working", lambda: False)
    assert client.get(HEALTH).status_code == 503
