"""`python -m workers`: start one worker process."""

from gevent import monkey

monkey.patch_all()

import logging  # noqa: E402
import sys  # noqa: E402
from collections.abc import Sequence  # noqa: E402
from dataclasses import replace  # noqa: E402
from functools import partial  # noqa: E402

import gevent  # noqa: E402
from redis import Redis  # noqa: E402
from redis.exceptions import RedisError  # noqa: E402

from gateway import descriptors, memory  # noqa: E402
from gateway.account import pricing  # noqa: E402
from gateway.account.ledger import check_tables, open_ledger  # noqa: E402
from gateway.catalogue.catalogue import Catalogue  # noqa: E402
from gateway.logs import configure  # noqa: E402
from gateway.metrics.labels import ModelLabels  # noqa: E402
from gateway.metrics.records import RecordCounter  # noqa: E402
from gateway.metrics.reporter import Reporter  # noqa: E402
from gateway.queue import clients, commands, keys, owner  # noqa: E402
from gateway.settings import ConfigurationError, Settings  # noqa: E402
from gateway.tracing import open_tracing  # noqa: E402
from providers.http.budget import Budget  # noqa: E402
from workers.attempts import Limits  # noqa: E402
from workers.breaker import Breakers  # noqa: E402
from workers.ledger_writer import LedgerWriter  # noqa: E402
from workers.providers import connect, keep_tidy, make_transport, share_of  # noqa: E402
from workers.runner import CallRunner  # noqa: E402
from workers.webhooks import WebhookSender  # noqa: E402
from workers.worker import CallWorker  # noqa: E402

log = logging.getLogger("workers")


def main() -> int:
    """Exit code: 0 after a drain, 2 for a configuration that cannot work."""
    try:
        settings = Settings.from_env()
        catalogue = Catalogue.load(settings)
        budget = Budget()
        transport = make_transport(settings, budget)
        providers = connect(catalogue, settings, transport)
        tracing = open_tracing(settings)
        configure(settings)
    except ConfigurationError as error:
        sys.stderr.write(f"configuration: {error}\n")
        return 2
    keys.use_prefix(settings.redis_prefix)
    descriptors.raise_limit()
    # A call takes a connection, and some stay open after it: a worker without descriptors would
    # claim calls, have providers answer them, and could not send the answers on.
    room = descriptors.spare(settings.redis_connections) * 3 // 4
    if settings.worker_concurrency > room:
        log.warning(
            "%d calls at once instead of %d: at most %d file descriptors",
            room,
            settings.worker_concurrency,
            descriptors.limit(),
        )
        settings = replace(settings, worker_concurrency=room)
    limits = Limits(
        settings.upstream_retries, settings.timeouts, settings.fallback_first_token_timeout
    )
    breakers = Breakers(settings.breaker_failures, settings.breaker_cooldown)
    runner = CallRunner(providers, limits, catalogue, breakers, budget, tracing)
    try:
        worker = _start(settings, runner, breakers)
        ledger = open_ledger(settings, worker.connection)
        check_tables(ledger)
    except ConfigurationError as error:
        sys.stderr.write(f"configuration: {error}\n")
        return 2
    budget.delivered = partial(_delivered, worker.connection)
    budget.limit = settings.response_bytes or share_of(worker.connection)
    counter = RecordCounter(worker.connection, ModelLabels(catalogue), settings.metrics_by_key)
    writer = LedgerWriter(worker.connection, ledger, worker.name, counter)
    writer.start()
    reporter = Reporter(
        worker.connection, worker.name, "worker", worker.stalls, lambda: len(worker.running)
    )
    reporter.start()
    sender = WebhookSender(worker.connection, settings, worker.name)
    sender.start()
    gevent.spawn(keep_tidy, transport)
    pricing.table()  # now: a worker may have no file descriptor later
    memory.settle()
    worker.work()
    sender.stop()
    writer.stop()
    reporter.close()
    if tracing is not None:
        tracing.close()
    return 0


def _start(settings: Settings, runner: CallRunner, breakers: Breakers) -> CallWorker:
    """A worker, as soon as Redis answers: RQ asks it for the connection's address.

    Raises ConfigurationError if another service uses the same names in Redis.
    """
    redis = clients.commands(settings, 1)
    while True:
        try:
            owner.take(redis, settings.key_pepper, settings.key_pepper_old)
            redis.connection_pool.disconnect()
            return CallWorker(settings, runner, breakers)
        except RedisError as error:
            log.warning("waiting for Redis (%s)", type(error).__name__)
            gevent.sleep(1)


def _delivered(redis: Redis, call_ids: Sequence[str]) -> list[bool]:
    try:
        return commands.delivered(redis, call_ids)
    except RedisError:
        return [False] * len(call_ids)


if __name__ == "__main__":
    sys.exit(main())
