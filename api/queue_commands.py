"""The operator's commands for the queue and the workers: `flask queue ...`, `flask workers ...`."""

from __future__ import annotations

import time

import click

from api.commands import RedisGroup
from api.queue import acts
from api.services import services
from gateway.account.record_store import COMMAND
from gateway.queue import steering

queue = RedisGroup("queue", help="Look at the calls that wait, and steer them.")
workers = RedisGroup("workers", help="Look at the workers, and drain them.")

KIND = click.argument("kind", type=click.Choice(steering.PAUSES))
NAME = click.argument("name")


@queue.command("list")
@click.option("--reason", type=click.Choice(steering.REASONS), help="Only calls that wait for it.")
@click.option("--key", help="Only calls of the key with this public id.")
@click.option("--model", help="Only calls for this model.")
@click.option("--limit", default=50, show_default=True, help="How many are listed.")
def list_calls(reason: str | None, key: str | None, model: str | None, limit: int) -> None:
    """List the calls that wait: position, reason, id, key, model, priority, how long."""
    redis, now = services().broker.redis, time.time()
    name = model and acts.pause_name("model", model).partition(":")[2]
    page, more = steering.waiting(redis, reason=reason, key=key, model=name, limit=limit)
    for call in page:
        why = call.pause and f"paused {call.pause}" or call.reason
        if call.starts_ms is not None:
            why = f"in {max(call.starts_ms / 1000 - now, 0):.0f} s"
        place = call.position or "-"
        waits = max(now - call.since_ms / 1000, 0)
        click.echo(
            f"{place:>5}  {why:<12}  {call.id}  {call.key}  {call.model}  {call.priority}  "
            f"{waits:.0f} s"
        )
    if more:
        click.echo(f"Only the first {limit} are shown.")
    for pause in steering.pauses(redis):
        click.echo(f"{pause.name} is paused by {pause.by}; calls held: {pause.held}")
    counts = steering.counts(redis)
    click.echo("  ".join(f"{word} {count}" for word, count in counts.items()))


@queue.command("move")
@click.argument("call_id")
def move(call_id: str) -> None:
    """Move the waiting call with this CALL_ID to the front."""
    acts.move(call_id, COMMAND)
    click.echo(f"moved {call_id}")


@queue.command("cancel")
@click.argument("call_id")
def cancel(call_id: str) -> None:
    """Cancel the call with this CALL_ID, which waits or runs."""
    acts.cancel(call_id, COMMAND)
    click.echo(f"cancelled {call_id}")


@queue.command("pause")
@KIND
@NAME
def pause(kind: str, name: str) -> None:
    """Let the calls of a key (by its public id), a model or a provider wait."""
    click.echo(f"paused {acts.pause(kind, name, COMMAND).name}")


@queue.command("resume")
@KIND
@NAME
def resume(kind: str, name: str) -> None:
    """End the pause of a key, a model or a provider."""
    if not acts.resume(kind, name, COMMAND):
        raise click.ClickException(f"{acts.pause_name(kind, name)} is not paused")
    click.echo(f"resumed {acts.pause_name(kind, name)}")


@workers.command("list")
def list_workers() -> None:
    """List the workers that live: name, calls, version, host, state."""
    for worker in steering.workers(services().broker.redis):
        state = "taking calls"
        if worker.draining:
            state = "drained" if worker.drains and not worker.running else "draining"
        click.echo(
            f"{worker.name}  {worker.running} of {worker.slots} calls  {worker.release}  "
            f"{worker.host}:{worker.pid}  {state}"
        )


@workers.command("drain")
@NAME
def drain(name: str) -> None:
    """Let the worker called NAME take no more calls; those that it runs go on."""
    acts.drain(name, COMMAND)
    click.echo(f"draining {name}")


@workers.command("undrain")
@NAME
def undrain(name: str) -> None:
    """Let a drained worker called NAME take calls again."""
    acts.drain(name, COMMAND, draining=False)
    click.echo(f"taking calls again: {name}")
