"""The table of all metrics. docs/metrics.md is compared with it.

Names and labels that begin with `gen_ai_` or `http_` are those of OpenTelemetry's conventions, as
Prometheus spells them; they are in development there, and may change here with them.

Every label has values from a closed set: see `labels.py`.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass

# Units in Redis, where all numbers are integers: so many make a second, or a USD.
MS, US, NANO = 1_000, 1_000_000, 1_000_000_000

# Seconds. OpenTelemetry's boundaries of each kind of histogram.
OPERATION_BUCKETS = tuple(0.01 * 2**n for n in range(14))  # 0.01 to 81.92
FIRST_TOKEN_BUCKETS = (
    *(0.001, 0.005, 0.01, 0.02, 0.04, 0.06, 0.08, 0.1),
    *(0.25, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0),
)
TOKEN_BUCKETS = (0.01, 0.025, 0.05, 0.075, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5, 0.75, 1.0, 2.5)
HTTP_BUCKETS = (
    *(0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.25, 0.5, 0.75),
    *(1.0, 2.5, 5.0, 7.5, 10.0),
)
REDIS_BUCKETS = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0)

GEN_AI = ("gen_ai_operation_name", "gen_ai_provider_name", "gen_ai_request_model")
MODEL = ("provider", "model")


@dataclass(frozen=True, eq=False)
class Family:
    """One metric. `units` in Redis make 1 of it. `buckets` are the upper bounds of a histogram."""

    name: str
    kind: str  # counter, gauge or histogram
    help: str
    labels: tuple[str, ...] = ()
    units: int = 1
    buckets: tuple[float, ...] = ()

    @functools.cached_property
    def bounds(self) -> tuple[float, ...]:
        """The upper bounds of the buckets in the units of Redis."""
        return tuple(round(bound * self.units) for bound in self.buckets)


def _histogram(
    name: str, help: str, labels: tuple[str, ...], buckets: tuple[float, ...], units: int = MS
) -> Family:
    return Family(name, "histogram", help, labels, units, buckets)


# Counted from the records of ended calls.
CALLS = Family(
    "inference_calls_total",
    "counter",
    "Calls that ended.",
    ("operation", *MODEL, "status", "error_type"),
)
TOKENS = Family(
    "inference_tokens_total",
    "counter",
    "Tokens of ended calls. The types add up to the tokens that limits count.",
    (*MODEL, "type"),
)
TOKEN_DETAILS = Family(
    "inference_token_details_total",
    "counter",
    "Tokens that are a part of those in inference_tokens_total.",
    (*MODEL, "type"),
)
COST = Family(
    "inference_cost_usd_total", "counter", "Cost of ended calls in USD.", MODEL, units=NANO
)
SAVED = Family(
    "inference_saved_usd_total",
    "counter",
    "What calls would have cost that a kept response answered, in USD.",
    MODEL,
    units=NANO,
)
CORRECTIONS = Family(
    "inference_cost_corrections_usd",
    "gauge",
    "Sum of the corrections of costs in USD. The ledger's cost is the sum of both.",
    units=NANO,
)
CACHE_HITS = Family(
    "inference_cache_hits_total", "counter", "Calls that a kept response answered.", MODEL
)
ESTIMATED = Family(
    "inference_estimated_calls_total",
    "counter",
    "Calls whose tokens are an estimate, because their provider did not count them.",
    MODEL,
)
SERVER_DURATION = _histogram(
    "gen_ai_server_request_duration_seconds",
    "Time from the arrival of a call to its end.",
    (*GEN_AI, "error_type"),
    OPERATION_BUCKETS,
)
FIRST_TOKEN = _histogram(
    "gen_ai_server_time_to_first_token_seconds",
    "Time from the arrival of a streamed call to its first token.",
    GEN_AI,
    FIRST_TOKEN_BUCKETS,
)
PER_TOKEN = _histogram(
    "gen_ai_server_time_per_output_token_seconds",
    "Time for each token after the first one of a stream that was completed.",
    GEN_AI,
    TOKEN_BUCKETS,
    units=US,
)
QUEUE_WAIT = _histogram(
    "inference_queue_wait_seconds",
    "Time that a call waited for a worker.",
    ("priority",),
    OPERATION_BUCKETS,
)
OVERHEAD = _histogram(
    "inference_overhead_seconds",
    "Duration of a call without the attempts at providers: queue, pauses and own work.",
    ("operation",),
    FIRST_TOKEN_BUCKETS,
)
CLIENT_DURATION = _histogram(
    "gen_ai_client_operation_duration_seconds",
    "Duration of an attempt at a provider.",
    (*GEN_AI, "error_type"),
    OPERATION_BUCKETS,
)
FIRST_CHUNK = _histogram(
    "gen_ai_client_operation_time_to_first_chunk_seconds",
    "Time from the beginning of the last attempt of a stream to its first token.",
    GEN_AI,
    FIRST_TOKEN_BUCKETS,
)
RETRIES = Family(
    "inference_retries_total", "counter", "Attempts that repeat one at the same model.", MODEL
)
FALLBACKS = Family(
    "inference_fallbacks_total",
    "counter",
    "Changes of a call from this model to the next one that may answer.",
    MODEL,
)
BREAKER_SKIPS = Family(
    "inference_breaker_skips_total",
    "counter",
    "Calls that skipped this model because its circuit breaker was open.",
    MODEL,
)
KEY_CALLS = Family(
    "inference_key_calls_total",
    "counter",
    "Calls that ended, by API key. Only with METRICS_BY_KEY.",
    ("key", "status"),
)
KEY_TOKENS = Family(
    "inference_key_tokens_total",
    "counter",
    "Tokens of ended calls, by API key. Only with METRICS_BY_KEY.",
    ("key", "type"),
)
KEY_COST = Family(
    "inference_key_cost_usd_total",
    "counter",
    "Cost of ended calls in USD, by API key. Only with METRICS_BY_KEY.",
    ("key",),
    units=NANO,
)

# Counted by the processes.
HTTP_DURATION = _histogram(
    "http_server_request_duration_seconds",
    "Time from the head of a request to the end of its response.",
    ("http_request_method", "http_route", "http_response_status_code"),
    HTTP_BUCKETS,
    units=US,
)
REDIS_ROUND_TRIP = _histogram(
    "inference_redis_round_trip_seconds",
    "Round trips to Redis; each process measures one every few seconds.",
    ("process",),
    REDIS_BUCKETS,
    units=US,
)
STALLS = Family(
    "inference_stalled_seconds_total",
    "counter",
    "Time in which the event loops of processes stood still.",
    ("process",),
    units=MS,
)

COUNTED = (
    *(CALLS, TOKENS, TOKEN_DETAILS, COST, SAVED, CORRECTIONS, CACHE_HITS, ESTIMATED),
    *(SERVER_DURATION, FIRST_TOKEN, PER_TOKEN, QUEUE_WAIT, OVERHEAD),
    *(CLIENT_DURATION, FIRST_CHUNK, RETRIES, FALLBACKS, BREAKER_SKIPS),
    *(KEY_CALLS, KEY_TOKENS, KEY_COST),
    *(HTTP_DURATION, REDIS_ROUND_TRIP, STALLS),
)

# Read from Redis when they are asked for.
QUEUE_CALLS = Family(
    "inference_queue_calls",
    "gauge",
    "Calls that wait for a worker (queued), for room among the calls in flight of their key or "
    "owner (parked), for the end of a pause (paused) or for their start (scheduled), or that run "
    "(running).",
    ("state",),
)
QUEUE_OLDEST = Family(
    "inference_queue_oldest_seconds", "gauge", "How long the oldest queued call has waited."
)
QUEUE_BYTES = Family("inference_queue_bytes", "gauge", "Size of the bodies of waiting calls.")
PROCESSES = Family("inference_processes", "gauge", "Processes that live.", ("process",))
SLOTS = Family("inference_slots", "gauge", "Calls that all living workers run at once.")
IN_FLIGHT = Family(
    "inference_process_calls",
    "gauge",
    "Calls that the processes hold: a web process until they are answered, a worker while they "
    "run.",
    ("process",),
)
PROCESS_MEMORY = Family(
    "inference_process_memory_bytes", "gauge", "Resident memory of the processes.", ("process",)
)
INBOX_LAG = Family(
    "inference_inbox_lag_seconds",
    "gauge",
    "How long the oldest event has waited that a web process has not read: the most of all.",
)
LEDGER_BACKLOG = Family(
    "inference_ledger_backlog_records", "gauge", "Records that wait to be written to the ledger."
)
LEDGER_LAG = Family(
    "inference_ledger_lag_seconds", "gauge", "How long the oldest of these records has waited."
)
LEDGER_REFUSED = Family(
    "inference_ledger_refused_records", "gauge", "Records that the ledger could not take."
)
WEBHOOK_KEYS = Family(
    "inference_webhook_keys", "gauge", "API keys with events that wait to be delivered."
)
WEBHOOK_LAG = Family(
    "inference_webhook_lag_seconds",
    "gauge",
    "How long ago the next delivery was due. Negative: it is not due yet.",
)
BREAKER_OPEN = Family(
    "inference_breaker_open",
    "gauge",
    "1 while the circuit breaker of a model is open. A model that does not fail has no series.",
    MODEL,
)
CACHE_BYTES = Family("inference_cache_bytes", "gauge", "Size of the kept responses.")
BATCHES = Family("inference_batches", "gauge", "Batches that have not ended.")
BATCH_AGE = Family(
    "inference_batch_oldest_seconds", "gauge", "How long ago the oldest of them was created."
)
BUDGET = Family(
    "inference_budget",
    "gauge",
    "Budget of an API key, or of an owner (owner:ID), without what was added to it for a while. "
    "Only with METRICS_BY_KEY.",
    ("scope", "unit"),
)
BUDGET_LEFT = Family(
    "inference_budget_left",
    "gauge",
    "What is left of such a budget in its current window, less what running calls have reserved.",
    ("scope", "unit"),
)
REDIS_MEMORY = Family("inference_redis_memory_bytes", "gauge", "Memory that Redis uses.")
REDIS_MEMORY_MAX = Family(
    "inference_redis_memory_max_bytes", "gauge", "The maxmemory of Redis; 0 without one."
)
REDIS_CLIENTS = Family("inference_redis_clients", "gauge", "Connections that Redis has.")
BUILD = Family("inference_build_info", "gauge", "1; the label is the version.", ("version",))

GAUGES = (
    *(QUEUE_CALLS, QUEUE_OLDEST, QUEUE_BYTES, PROCESSES, SLOTS, IN_FLIGHT, PROCESS_MEMORY),
    *(INBOX_LAG, LEDGER_BACKLOG, LEDGER_LAG, LEDGER_REFUSED, BREAKER_OPEN, CACHE_BYTES),
    *(WEBHOOK_KEYS, WEBHOOK_LAG, BATCHES, BATCH_AGE, BUDGET, BUDGET_LEFT),
    *(REDIS_MEMORY, REDIS_MEMORY_MAX, REDIS_CLIENTS, BUILD),
)

ALL = (*COUNTED, *GAUGES)
