"""What a long soak breaks now and then. Each ends by itself, and harms no measured process."""

from __future__ import annotations

import signal
import time
from collections.abc import Callable

from redis import Redis

from tests.soak.service import SampledStack
from tests.support.stack import until

Fault = Callable[[SampledStack], None]


def second_worker_stopped(stack: SampledStack) -> None:
    _replace(stack, lambda worker: worker.terminate())


def second_worker_killed(stack: SampledStack) -> None:
    _replace(stack, lambda worker: worker.kill())


def redis_connections_killed(stack: SampledStack) -> None:
    with Redis.from_url(stack.server.url, protocol=2, single_connection_client=True) as admin:
        for _ in range(5):
            admin.execute_command("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes")
            time.sleep(0.3)


def redis_stands_still(stack: SampledStack) -> None:
    assert stack.server.process is not None
    stack.server.process.send_signal(signal.SIGSTOP)
    time.sleep(2.5)
    stack.server.process.send_signal(signal.SIGCONT)


def redis_restarts(stack: SampledStack) -> None:
    stack.server.stop()
    time.sleep(1.0)
    stack.server.start()


def provider_goes_and_comes(stack: SampledStack) -> None:
    stack.upstream.stop()
    time.sleep(3.0)
    stack.restart_upstream()


def provider_stands_still(stack: SampledStack) -> None:
    stack.upstream.process.send_signal(signal.SIGSTOP)
    time.sleep(5.0)
    stack.upstream.process.send_signal(signal.SIGCONT)


FAULTS: tuple[Fault, ...] = (
    second_worker_stopped,
    second_worker_killed,
    redis_connections_killed,
    redis_stands_still,
    redis_restarts,
    provider_goes_and_comes,
    provider_stands_still,
)


def _replace(stack: SampledStack, end: Callable[..., None]) -> None:
    _, second = stack.workers
    end(second)
    second.wait()
    stack.workers.remove(second)
    stack.start_worker()
    stack.until_ready()


def until_well(stack: SampledStack) -> None:
    """Return once a call is answered again."""
    until(lambda: _answered(stack), what="an answer after the fault")


def _answered(stack: SampledStack) -> bool:
    try:
        return stack.ask("fake/echo").ok
    except OSError:
        return False
