"""One client that takes all it gets shuts nobody out, with real processes."""

from __future__ import annotations

from contextlib import ExitStack

import pytest

from tests.support.stack import Stack

pytestmark = pytest.mark.slow


@pytest.fixture
def small(tmp_path_factory: pytest.TempPathFactory):
    with Stack(tmp_path_factory.mktemp("small"), env={"WEB_MAX_IN_FLIGHT": "16"}) as running:
        yield running


def test_a_client_with_many_streams_leaves_places_for_others(small: Stack) -> None:
    with ExitStack() as open_streams:
        streams = [small.open_stream("fake/stream-2-0-hang-mid") for _ in range(20)]
        for stream in streams:
            open_streams.enter_context(stream)
        assert [stream.status_code for stream in streams] == [200] * 14 + [503] * 6
        assert streams[-1].json()["error"]["code"] == "server_is_overloaded"
        assert int(streams[-1].headers["Retry-After"]) >= 1
        other = {"Authorization": f"Bearer {small.keys.create('other')}"}
        assert [small.ask("fake/echo", headers=other).status_code for _ in range(5)] == [200] * 5
