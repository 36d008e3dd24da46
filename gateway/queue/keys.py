"""Names and lives of every Redis key. RQ's own names are those that RQ 3 would make."""

from __future__ import annotations

QUEUE = "infer"

RQ_QUEUES = "rq:queues"
RQ_QUEUE = f"rq:queue:{QUEUE}"
RQ_STARTED = f"rq:wip:{QUEUE}"
RQ_FINISHED = f"rq:finished:{QUEUE}"
RQ_FAILED = f"rq:failed:{QUEUE}"
RQ_CANCELED = f"rq:canceled:{QUEUE}"
RQ_REGISTRIES = (RQ_STARTED, RQ_FINISHED, RQ_FAILED, RQ_CANCELED)
RQ_WORKERS = f"rq:workers:{QUEUE}"

BELL = "gw:bell"
QUEUED_BYTES = "gw:queued:bytes"  # of the bodies waiting in the queue
BREAKERS = "gw:breakers"  # routes that have failed: see lua/breaker.lua

LEASE_MS = 3_000
INBOX_SECONDS = 120
INBOX_EVENTS = 20_000  # a backstop: readers trim what they have read
OUTCOME_SECONDS = 120
CANCEL_SECONDS = 60
CLAIM_SECONDS = 120
BREAKER_SECONDS = 120  # without a failure of any route
JOB_SECONDS = 10  # life of an ended job
SHARED_SECONDS = 86_400  # bell and counter, since the last submit; longer than any call
GRACE_SECONDS = 60  # life of a job and its body past the deadline


def job(call_id: str) -> str:
    return f"rq:job:{call_id}"


def rq_worker(name: str) -> str:
    return f"rq:worker:{name}"


def key(public_id: str) -> str:
    """One API key's record."""
    return f"gw:key:{public_id}"


def call(call_id: str) -> str:
    """Plan and request body, until claimed."""
    return f"gw:call:{call_id}"


def outcome(call_id: str) -> str:
    """The call's final answer or error, until delivered."""
    return f"gw:outcome:{call_id}"


def cancel(target: str) -> str:
    """Of a call: it was given up before it was known. Of a worker: the calls it should stop."""
    return f"gw:cancel:{target}"


def claim(claim_id: str) -> str:
    """Marks a claim asked for a second time, so that its first asking, late, takes nothing."""
    return f"gw:claim:{claim_id}"


def inbox(web: str) -> str:
    """The stream of events for one web process."""
    return f"gw:inbox:{web}"


def lease(process: str) -> str:
    """Exists while the process lives; holds how many calls it takes at once (a web process: 0)."""
    return f"gw:lease:{process}"
