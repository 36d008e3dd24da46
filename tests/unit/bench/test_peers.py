"""bench: the recipes of other gateways."""

from __future__ import annotations

import pytest

from bench import peers
from bench.peers import litellm, portkey
from bench.registry import TARGETS


@pytest.mark.parametrize("name", peers.PEERS)
def test_every_recipe_has_what_a_recipe_has(name):
    recipe = peers.PEERS[name]

    assert recipe.TITLE and recipe.VERSION and recipe.PROCESSES >= 1
    assert callable(recipe.install) and callable(recipe.start)
    assert TARGETS[name].peer
    assert recipe.__doc__


def test_a_compromised_release_is_never_installed(tmp_path, monkeypatch):
    assert litellm.VERSION not in litellm.COMPROMISED
    for version in litellm.COMPROMISED:
        monkeypatch.setattr(litellm, "VERSION", version)
        with pytest.raises(OSError, match="compromised"):
            litellm.install(tmp_path)


def test_portkeys_streams_need_the_older_web_server():
    assert portkey.PACKAGE["overrides"] == {"@hono/node-server": "1.13.8"}
    assert "127.0.0.1" in portkey.LOOPBACK


def test_installed_is_the_very_version(tmp_path, monkeypatch):
    monkeypatch.setattr(peers, "HOME", tmp_path)
    monkeypatch.setattr(litellm, "install", lambda home: (home / "half").touch())
    assert not peers.installed("litellm")

    assert peers.install("litellm") == ""

    assert peers.installed("litellm")
    (tmp_path / "litellm" / "version").write_text("0")
    assert not peers.installed("litellm")


def test_what_went_wrong_is_told_and_nothing_counts_as_installed(tmp_path, monkeypatch):
    def fails(home):
        raise OSError("no npm")

    monkeypatch.setattr(peers, "HOME", tmp_path)
    monkeypatch.setattr(portkey, "install", fails)

    assert peers.install("portkey") == "no npm"
    assert not peers.installed("portkey")
    assert peers.unknown(["portkey", "nobody"]) == ["nobody"]
