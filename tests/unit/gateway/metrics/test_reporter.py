"""How what a process counts gets to Redis, whatever fails on the way."""

import pytest
from redis.exceptions import ConnectionError

from gateway.metrics.families import HTTP_DURATION
from gateway.metrics.reporter import Report, Reporter
from gateway.queue import keys
from gateway.stalls import Stalls

LABELS = ("GET", "/metrics", "200")


class LosesReplies:
    """A client of which the next scripts run, but their replies are lost."""

    def __init__(self, redis):
        self._redis = redis
        self.lost = 0

    def __getattr__(self, name):
        return getattr(self._redis, name)

    def execute_command(self, *command):
        reply = self._redis.execute_command(*command)
        if command[0] == "EVALSHA" and self.lost:
            self.lost -= 1
            raise ConnectionError("lost")
        return reply


def make(redis, name="web-1", inbox=None):
    return Reporter(redis, name, "web", Stalls(), lambda: 3, inbox)


def requests(samples):
    name = "http_server_request_duration_seconds_count"
    return sum(value for (each, _), value in samples.items() if each == name)


def value(samples, name, **labels):
    return samples[name, frozenset(labels.items())]


def test_the_counts_of_all_processes_add_up(redis, scrape):
    for name in ("web-1", "web-2"):
        reporter = make(redis, name)
        for _ in range(2):
            reporter.counts.observe(HTTP_DURATION, LABELS, 1_500)
            reporter.flush()
    samples = scrape()
    assert requests(samples) == 4
    assert value(samples, "inference_processes", process="web") == 2
    assert value(samples, "inference_process_calls", process="web") == 6
    assert value(samples, "inference_process_memory_bytes", process="web") > 1e6
    assert value(samples, "inference_redis_round_trip_seconds_count", process="web") == 4


def test_a_flush_counts_once_although_its_reply_was_lost(redis, scrape):
    client = LosesReplies(redis)
    reporter = make(client)
    reporter.flush()  # loads the scripts
    reporter.counts.observe(HTTP_DURATION, LABELS, 1_500)
    client.lost = 2
    for _ in range(2):
        with pytest.raises(ConnectionError):
            reporter.flush()
        reporter.counts.observe(HTTP_DURATION, LABELS, 1_500)
    reporter.flush()
    assert requests(scrape()) == 3


def test_nothing_is_lost_while_redis_is_away(redis, redis_url, scrape):
    away = type(redis).from_url("redis://127.0.0.1:9")
    reporter = make(away)
    reporter.counts.observe(HTTP_DURATION, LABELS, 1_500)
    with pytest.raises(ConnectionError):
        reporter.flush()
    back = make(redis, "web-1")
    back.counts = reporter.counts
    back.flush()
    assert requests(scrape()) == 1


def test_a_process_that_ends_counts_what_it_has_and_is_no_longer_there(redis, scrape):
    reporter = make(redis)
    reporter.start()
    reporter.flush()
    reporter.counts.observe(HTTP_DURATION, LABELS, 1_500)
    reporter.close()
    samples = scrape()
    assert requests(samples) == 1
    assert value(samples, "inference_processes", process="web") == 0


def test_the_age_of_the_next_event_that_was_not_read_is_reported(redis, scrape):
    seconds, _ = redis.time()
    first = redis.xadd(keys.inbox("web-1"), {"e": b"1"}, id=f"{(seconds - 60) * 1000}-0")
    reporter = make(redis, inbox=lambda: first)
    reporter.flush()
    assert value(scrape(), "inference_inbox_lag_seconds") == 0
    redis.xadd(keys.inbox("web-1"), {"e": b"2"}, id=f"{(seconds - 5) * 1000}-0")
    reporter.flush()
    assert 5 <= value(scrape(), "inference_inbox_lag_seconds") < 10


def test_a_process_that_reports_no_more_is_not_counted(redis, scrape):
    make(redis).flush()
    seconds, _ = redis.time()
    redis.hset(keys.METRICS_PROCESSES, "web-1", Report("web", seconds - 20.0).encode())
    assert value(scrape(), "inference_processes", process="web") == 0
