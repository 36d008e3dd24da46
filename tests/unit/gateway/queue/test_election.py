"""Of several processes, one does a task, and another goes on when it is gone."""

from gateway.queue.election import TTL_MS, Election

LEASE = "gw:test:lease"


def test_one_of_two_candidates_wins_and_keeps_the_lease(redis):
    first, second = (Election(redis, LEASE, name) for name in ("first", "second"))
    assert first.won() and not second.won()
    assert first.won() and not second.won()
    assert 0 < redis.pttl(LEASE) <= TTL_MS


def test_another_candidate_wins_when_the_first_resigns(redis):
    first, second = (Election(redis, LEASE, name) for name in ("first", "second"))
    assert first.won()
    first.resign()
    assert second.won() and not first.won()


def test_a_candidate_does_not_give_up_the_lease_of_another(redis):
    first, second = (Election(redis, LEASE, name) for name in ("first", "second"))
    assert first.won()
    second.resign()
    assert redis.get(LEASE) == b"first"


def test_another_candidate_wins_when_the_lease_is_lost(redis):
    first, second = (Election(redis, LEASE, name) for name in ("first", "second"))
    assert first.won()
    redis.delete(LEASE)  # it expires
    assert second.won()
