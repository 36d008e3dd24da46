"""Names and TTLs of all Redis keys; the scripts get them as arguments.

A prefix keeps two services on one Redis apart. RQ 3 makes the names that begin with `rq:`, and
takes no prefix: there the queue's name has it. Names of jobs and workers are unique by themselves.

A TTL is counted by Redis' clock from the last write to the key, and is in seconds unless the name
says otherwise.
"""

from __future__ import annotations

# Names have no prefix here: `use_prefix` adds it. In names that RQ derives from the queue's name,
# the queue's name has the prefix.
PREFIX = ""
QUEUE = "infer"
RQ_QUEUE = f"rq:queue:{QUEUE}"
RQ_STARTED = f"rq:wip:{QUEUE}"
RQ_FINISHED = f"rq:finished:{QUEUE}"
RQ_FAILED = f"rq:failed:{QUEUE}"
RQ_CANCELED = f"rq:canceled:{QUEUE}"
RQ_DEFERRED = f"rq:deferred:{QUEUE}"
RQ_WORKERS = f"rq:workers:{QUEUE}"
BELL = "gw:bell"  # a list; workers wait for its elements
QUEUED_BYTES = "gw:queued:bytes"  # of the bodies waiting in the queue
MEMORY = "gw:memory"  # exists while Redis is known to have much memory free: see lua/submit.lua
BREAKERS = "gw:breakers"  # routes that have failed: see lua/breaker.lua
OWNER = "gw:owner"  # whose names these are: see owner.py. No TTL
WAITING = "gw:queue"  # queued calls, by the virtual time at which they should start
FAIR = "gw:fair"  # virtual time of the queue, and of each key whose calls are in it
PARKED = "gw:parked"  # a hash: keys that have parked calls, and their owners
SCHEDULED = "gw:scheduled"  # calls that are to start later, by when, in milliseconds
PAUSED = "gw:paused"  # a hash: pauses (see `paused_calls`), since when and by whom. No TTL
PAUSED_NAMES = "gw:paused:names"  # a set: pauses that hold calls
RECORDS = "gw:records"  # a stream: records of ended calls that are not in the ledger yet
CACHED = "gw:cached"  # kept responses, by the time at which they expire: see lua/store.lua
CACHED_BYTES = "gw:cached:bytes"  # of them
AUDIT = "gw:audit"  # a stream of the changes of keys and owners. No TTL
RECORDS_REFUSED = "gw:records:refused"  # a stream: what the ledger could not take. No TTL
LEDGER_WRITER = "gw:ledger:writer"  # the name of the process that writes the ledger
LEDGER_RESTORED = "gw:ledger:restored"  # set once Redis has the keys and counters of the database
WEBHOOKS = "gw:webhooks"  # keys with events to deliver, by the ms at which one is due. No TTL
WEBHOOK_SENDER = "gw:webhooks:sender"  # the name of the process that delivers them
LEDGER_CALLS = "gw:ledger:calls"  # without a database: the records that the ledger keeps, by time
BATCHES_ACTIVE = "gw:batches:active"  # batches that have not ended, by when they were created
BATCH_RUNNER = "gw:batches:runner"  # the name of the process that runs batches
METRICS = "gw:metrics"  # a hash of all counters: see gateway/metrics/counts.py. No TTL
METRICS_CURSOR = "gw:metrics:cursor"  # id of the last entry of RECORDS that is in them. No TTL
METRICS_PROCESSES = "gw:metrics:processes"  # a hash: what each process last reported, as JSON
FILES_EXPIRING = "gw:files:expiring"  # files whose content is kept, by when it is to be deleted
RQ_ENDED = (RQ_FINISHED, RQ_FAILED, RQ_CANCELED)  # registries of jobs that have ended

_NAMES = {name: value for name, value in globals().items() if name.isupper()}
RQ_QUEUES = "rq:queues"
RQ_SUSPENDED = "rq:suspended"


def use_prefix(prefix: str) -> None:
    """Put `prefix` before the names of this process. Call it once, before any name is used."""
    queue = _NAMES["QUEUE"]
    for name, value in _NAMES.items():
        if isinstance(value, str):
            is_rq = value.startswith("rq:")
            globals()[name] = value.replace(queue, prefix + queue) if is_rq else prefix + value
    globals()["RQ_ENDED"] = (RQ_FINISHED, RQ_FAILED, RQ_CANCELED)


LEASE_MS = 10_000  # longer than a paused virtual machine or a starved process stands still
INBOX_SECONDS = 120
# What an inbox holds before it is full; workers hold back from half of it. Nothing that was not
# read is trimmed.
INBOX_EVENTS = 20_000
INBOX_BYTES = 32_000_000
OUTCOME_SECONDS = 120
CANCEL_SECONDS = 60
CLAIM_SECONDS = 120
LEDGER_RECORDS = 10_000  # without a database: most records that the ledger keeps
# Without a database: how long the sums of buckets of that width are kept; 0 is for ever.
USAGE_SECONDS = {60: 86_400, 3_600: 31 * 86_400, 86_400: 400 * 86_400, 0: 0}
AUDIT_ENTRIES = 10_000  # about as many of the last changes are kept
BREAKER_SECONDS = 120  # since the last failure of any route
JOB_SECONDS = 10  # a job that has ended
SHARED_SECONDS = 86_400  # bell, since it began, and counter, since the last submit
IDEMPOTENT_SECONDS = 86_400  # since the first request with an Idempotency-Key
REFUSED_SECONDS = 60  # the log of a call that the queue refused
DELETION_SECONDS = 60  # of an owner; longer than to look at all keys takes
LOGGED_OUTCOME_SECONDS = 10  # the outcome of a logged call, which is in its log as well
CACHED_SECONDS = 86_400  # what counts the responses that are kept; none lives longer
RECENT_SLOT_SECONDS = 5  # of the figures of the last minute
RECENT_SECONDS = 90  # these figures
FLUSH_SECONDS = 240  # the number of a process' last flush of metrics
REPORT_SECONDS = 120  # what processes report, since the last report of any
WEBHOOK_SECONDS = 90_000  # an event: longer than its delivery is tried
GRACE_SECONDS = 60  # a body, and what a call reserves, past the call's deadline
BATCH_SECONDS = 7 * 86_400  # what is noted of a running batch; it expires after a day
FILES_SECONDS = 31 * 86_400  # a list of files; a file itself has its own expiry
UNSETTLED_SECONDS = 86_400  # a job, past the deadline: its record is still to be written
CONSOLE_SESSION_SECONDS = 12 * 3_600  # since its last request
CONSOLE_LINK_SECONDS = 86_400
SIGN_IN_SECONDS = 300  # for which failed attempts to sign in are counted


def job(call_id: str) -> str:
    """RQ's record of a call: status, worker, claim, deadline."""
    return f"rq:job:{call_id}"


def rq_worker(name: str) -> str:
    """RQ's record of a worker."""
    return f"rq:worker:{name}"


def key(public_id: str) -> str:
    """The record of an API key. It does not expire."""
    return f"{PREFIX}gw:key:{public_id}"


def owner_record(owner_id: str) -> str:
    """The record of an owner of API keys. It does not expire."""
    return f"{PREFIX}gw:owners:{owner_id}"


def owner_deletion(owner_id: str) -> str:
    """Exists while an owner is being deleted: no key gets this owner then."""
    return f"{PREFIX}gw:deletion:{owner_id}"


def owner_scope(owner_id: str) -> str:
    """The scope that counts for all keys of an owner; that of one key is its public id."""
    return f"owner:{owner_id}"


def spend(scope: str) -> str:
    """What a scope has used: in all, and in the current day, week and month. It does not expire."""
    return f"{PREFIX}gw:spend:{scope}"


def held(scope: str) -> str:
    """What calls of a scope have reserved, by call and in total."""
    return f"{PREFIX}gw:held:{scope}"


def flight(scope: str) -> str:
    """The calls of a scope that are queued or running, by their expiry in milliseconds."""
    return f"{PREFIX}gw:flight:{scope}"


def parked(scope: str) -> str:
    """The calls of a scope that wait because too many of it are in flight."""
    return f"{PREFIX}gw:parked:{scope}"


def scheduled(scope: str) -> str:
    """The calls of a scope that are to start later, by when, in milliseconds."""
    return f"{PREFIX}gw:scheduled:{scope}"


def paused_calls(pause: str) -> str:
    """The calls that a pause holds, in the order in which they would have started.

    A pause is `key:` and a public id, `model:` and a model's id, or `provider:` and its name.
    """
    return f"{PREFIX}gw:paused:calls:{pause}"


def turns(owner_id: str) -> str:
    """The keys of an owner that have parked calls, by whose turn it is."""
    return f"{PREFIX}gw:turns:{owner_id}"


def rate(scope: str) -> str:
    """The state of a scope's limits per minute: see lua/submit.lua."""
    return f"{PREFIX}gw:rate:{scope}"


def call(call_id: str) -> str:
    """The CallSpec and the body of a call: until it is claimed, or ends if it may run again."""
    return f"{PREFIX}gw:call:{call_id}"


def outcome(call_id: str) -> str:
    """The final response or error of a call, until delivered."""
    return f"{PREFIX}gw:outcome:{call_id}"


def partial_outcome(call_id: str, claim_id: str) -> str:
    """A large outcome while the worker with this claim writes it, piece by piece."""
    return f"{PREFIX}gw:outcome:partial:{call_id}:{claim_id}"


def cached(name: str) -> str:
    """A response that is kept; `name` is an HMAC of its request."""
    return f"{PREFIX}gw:cached:response:{name}"


def first_call(name: str) -> str:
    """The call that runs for all calls with this request, until its deadline."""
    return f"{PREFIX}gw:cached:first:{name}"


def cancel(target: str) -> str:
    """For a call: it was given up before it was known. For a worker: the calls it should stop."""
    return f"{PREFIX}gw:cancel:{target}"


def claim(claim_id: str) -> str:
    """Marks a claim that was sent again, so that the first one, if it is late, takes no calls."""
    return f"{PREFIX}gw:claim:{claim_id}"


def inbox(address: str) -> str:
    """The stream at an address: the inbox of a web process, or the log of a call."""
    if is_log(address):
        return log(address.rpartition(":")[2])
    return f"{PREFIX}gw:inbox:{address}"


def log_address(call_id: str, seconds: int) -> str:
    """Where a logged call sends its events: its log, which is kept so long after its end."""
    return f"log:{seconds}:{call_id}"


def is_log(address: str) -> bool:
    """Whether an address is that of a log, and not the name of a web process."""
    return address.startswith("log:")


def log_seconds(address: str) -> int:
    """How long the log at this address is kept after the end of its call."""
    return int(address.split(":")[1])


def log(call_id: str) -> str:
    """The stream of all events of a logged call. Its TTL is in its address."""
    return f"{PREFIX}gw:log:{call_id}"


def idempotent(public_id: str, name: str) -> str:
    """The call that was made with an Idempotency-Key, and a fingerprint of its request.

    `name` is an HMAC of that key.
    """
    return f"{PREFIX}gw:idem:{public_id}:{name}"


def logged_request(call_id: str) -> str:
    """What is needed to render the events of a logged call. It expires after its log."""
    return f"{PREFIX}gw:log:{call_id}:request"


def logs(public_id: str) -> str:
    """The logged calls of a key, by when their logs expire. It expires with the last."""
    return f"{PREFIX}gw:logs:{public_id}"


def log_sizes(public_id: str) -> str:
    """The bytes of each log of a key, and their total: see lua/remember.lua."""
    return f"{PREFIX}gw:logs:{public_id}:bytes"


def growing_logs(public_id: str) -> str:
    """The logged calls of a key that had not ended when their logs were last measured."""
    return f"{PREFIX}gw:logs:{public_id}:growing"


def lease(process: str) -> str:
    """Exists while the process lives.

    Its value is how many calls the process takes at once (a web process: 0), a blank, and Redis'
    id of the connection that renews the lease.
    """
    return f"{PREFIX}gw:lease:{process}"


def webhooks(public_id: str) -> str:
    """The ids of the events for an API key, by the time in ms at which each is due.

    It lives for WEBHOOK_SECONDS.
    """
    return f"{PREFIX}gw:webhooks:key:{public_id}"


def webhook(event_id: str) -> str:
    """The body of an event, until it is delivered, for WEBHOOK_SECONDS at most."""
    return f"{PREFIX}gw:webhooks:event:{event_id}"


def ledger_record(call_id: str) -> str:
    """Without a database: the record of a call. It expires after `RECORD_DAYS`."""
    return f"{PREFIX}gw:ledger:call:{call_id}"


def ledger_usage(width: int | str, start: int | str) -> str:
    """Without a database: sums of usage over a bucket. Its TTL is in USAGE_SECONDS."""
    return f"{PREFIX}gw:ledger:usage:{width}:{start}"


def batch(batch_id: str) -> str:
    """What is known of a batch. It expires 30 days after its creation."""
    return f"{PREFIX}gw:batch:{batch_id}"


def batches(api: str, public_id: str) -> str:
    """The batches of a key ("": of all keys) that came through one API, by their creation."""
    return f"{PREFIX}gw:batches:of:{api}:{public_id}"


def batch_lines(batch_id: str) -> str:
    """A bit for each line of a running batch that has ended."""
    return f"{PREFIX}gw:batch:lines:{batch_id}"


def batch_parts(batch_id: str) -> str:
    """The objects that hold the results of a running batch."""
    return f"{PREFIX}gw:batch:parts:{batch_id}"


def recent(slot: int) -> str:
    """Figures of a few seconds; `slot` is their number since 1970."""
    return f"{PREFIX}gw:metrics:recent:{slot}"


def flush(process: str) -> str:
    """The number of the last flush of a process that is in METRICS."""
    return f"{PREFIX}gw:metrics:flush:{process}"


def file(file_id: str) -> str:
    """The record of a file. It expires with the file."""
    return f"{PREFIX}gw:file:{file_id}"


def files(public_id: str) -> str:
    """The files of a key ("": of all keys), by when they were created."""
    return f"{PREFIX}gw:files:of:{public_id}"


def file_sizes(public_id: str) -> str:
    """The bytes of each file of a key whose content is kept, and of each that is arriving."""
    return f"{PREFIX}gw:files:sizes:{public_id}"


def console_session(session_id: str) -> str:
    """Exists while somebody is signed in to the console."""
    return f"{PREFIX}gw:console:session:{session_id}"


def console_sessions(public_id: str) -> str:
    """The latest sessions of a key, by when they began."""
    return f"{PREFIX}gw:console:sessions:{public_id}"


def console_link(digest: str) -> str:
    """The key that a one-time link signs in; `digest` is the SHA-256 of its token."""
    return f"{PREFIX}gw:console:link:{digest}"


def console_sign_ins(address: str) -> str:
    """The number of failed attempts to sign in to the console from an address."""
    return f"{PREFIX}gw:console:sign-ins:{address}"


def script_names() -> dict[str, str]:
    """Return the names (and a TTL) that lua/account.lua uses; to some of them it adds an id."""
    return {
        "BELL": BELL,
        "CALL": call(""),
        "DEFERRED": RQ_DEFERRED,
        "FAIR": FAIR,
        "FLIGHT": flight(""),
        "HELD": held(""),
        "JOB": job(""),
        "KEY": key(""),
        "LOG": log(""),
        "MEMORY": MEMORY,
        "OWNER": owner_record(""),
        "PARKED": PARKED,
        "PARKED_CALLS": parked(""),
        "PAUSED": PAUSED,
        "PAUSED_CALLS": paused_calls(""),
        "PAUSED_NAMES": PAUSED_NAMES,
        "QUEUED_BYTES": QUEUED_BYTES,
        "RATE": rate(""),
        "RECORDS": RECORDS,
        "RQ_CANCELED": RQ_CANCELED,
        "RQ_QUEUE": RQ_QUEUE,
        "SCHEDULED": SCHEDULED,
        "SCHEDULED_CALLS": scheduled(""),
        "SHARED_SECONDS": str(SHARED_SECONDS),
        "SPEND": spend(""),
        "TURNS": turns(""),
        "WAITING": WAITING,
    }
