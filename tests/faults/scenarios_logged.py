"""Calls that outlive their connection, while the processes that serve them are killed. Rows I."""

from __future__ import annotations

import re
import time
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from itertools import cycle

import requests
from urllib3.exceptions import HTTPError

from gateway.queue import keys
from tests.faults.arena import AGAIN, IN_FLIGHT, SILENT, Arena
from tests.faults.client import Seen
from tests.faults.reconciler import Allowed, nonce_of
from tests.faults.rows import row
from tests.faults.scenarios_account import account
from tests.support.stack import until

STREAMS = 60
NAMES, TWINS = 24, 4  # of each Idempotency-Key
STREAMED = ("fake/nonce-stream-35-100", "claude/nonce-stream-60-60")  # these take 3.5 s
SECONDS = 60.0  # until a request is answered, faults included


@dataclass(frozen=True)
class Request:
    """A chat request that can be sent again."""

    nonce: str
    model: str
    stream: bool
    headers: dict[str, str]


@dataclass(frozen=True)
class Reply:
    """What came of a request. `cut`: the connection ended before it."""

    request: Request
    status: int = 0
    call_id: str = ""
    content: bytes = b""  # without comments
    cut: bool = True
    replayed: bool = False
    should_retry: str = ""

    @property
    def whole(self) -> bool:
        """Whether it is the whole response to its request."""
        seen = self.seen()
        return not self.cut and seen.answered and seen.text == seen.wanted

    def seen(self) -> Seen:
        """The call as a client saw it."""
        request, content = self.request, self.content
        seen = Seen(request.nonce, request.model, request.stream, status=self.status)
        seen.began = seen.ended = time.time()
        seen.call_id, seen.should_retry = self.call_id, self.should_retry
        seen.answerers = {each.decode() for each in re.findall(rb'"model": ?"([^"]+)"', content)}
        seen.text = b"".join(re.findall(rb'"content": ?"([^"]*)"', content)).decode()
        seen.reasons = len(re.findall(rb'"finish_reason": ?"', content))
        seen.done = content.endswith(b"data: [DONE]")
        if error := re.search(rb'"code": ?"(\w+)"', content):
            seen.code = error[1].decode()
        return seen


def read(request: Request, response: requests.Response) -> Reply:
    """Read a response until its connection ends."""
    content, cut = b"", False
    try:
        for piece in response.raw.stream(4096):
            content += piece
    except HTTPError:
        cut = True
    return Reply(
        request,
        response.status_code,
        response.headers.get("X-Generation-Id", ""),
        re.sub(rb"^:.*\n\n", b"", content, flags=re.M).strip(),
        cut,
        "Idempotent-Replayed" in response.headers,
        response.headers.get("x-should-retry", ""),
    )


def send(arena: Arena, request: Request, url: str, wait: float = 0.0) -> Reply:
    """Send a request after so many seconds, and read what comes."""
    time.sleep(wait)
    body = {
        "model": request.model,
        "stream": request.stream,
        "messages": [{"role": "user", "content": request.nonce}],
    }
    try:
        response = requests.post(
            f"{url}/chat/completions",
            json=body,
            headers=arena.headers(**request.headers),
            stream=True,
            timeout=arena.within(SECONDS),
        )
    except requests.RequestException:
        return Reply(request)
    return read(request, response)


def new_requests(
    arena: Arena, count: int, models: Sequence[str], *streams: bool, **headers: str
) -> list[Request]:
    """Different requests for these models, which are streams as `streams` says in turn."""
    nonces = [f"i{number}x{arena.rng.getrandbits(48):012x}" for number in range(count)]
    return [
        Request(nonce, arena.rng.choice(models), stream, headers)
        for nonce, stream in zip(nonces, cycle(streams), strict=False)
    ]


def send_twins(
    arena: Arena, threads: ThreadPoolExecutor, originals: Iterable[Request], urls: Sequence[str]
) -> list[Future[Reply]]:
    """Send TWINS of each request in half a second, to these addresses in turn."""
    return [
        threads.submit(send, arena, twin, url, arena.rng.uniform(0, 0.5))
        for request in originals
        for twin in [with_key(request)]
        for _, url in zip(range(TWINS), cycle(urls), strict=False)
    ]


def with_key(request: Request) -> Request:
    """The same request with an Idempotency-Key."""
    headers = {**request.headers, "Idempotency-Key": request.nonce}
    return Request(request.nonce, request.model, request.stream, headers)


def until_sent(arena: Arena, jobs: Sequence[Future[Reply]]) -> None:
    """Until the calls of the twins run, and all twins have been sent."""
    arena.until_running(NAMES)
    time.sleep(0.5)
    arena.met = sum(not job.done() for job in jobs)
    arena.demand(arena.met >= IN_FLIGHT, f"only {arena.met} requests in flight")


def twins_are_one(arena: Arena, replies: Sequence[Reply], records: int) -> None:
    """Demand that twins have the same response of one call, which has one record.

    `records` is how many records the account had before.
    """
    arena.seen += [each.seen() for each in replies]
    contents: dict[str, set[tuple[int, str, bytes]]] = defaultdict(set)
    for each in replies:
        content = re.sub(rb'"request_id": ?"[^"]*"', b"", each.content)  # in errors: its own
        contents[each.request.nonce].add((each.status, each.call_id, content))
    several = sum(len(each) > 1 for each in contents.values())
    arena.demand(not several, f"twins of {several} requests had different responses")
    until(
        lambda: not arena.redis.zcard(keys.RQ_STARTED) and not arena.redis.xlen(keys.RECORDS),
        arena.within(SECONDS),
        "a ledger that has all records",
    )
    new = len(account(arena)) - records
    arena.demand(new == len(contents), f"{new} records of {len(contents)} calls")


@row("I1", "kill -9 of the web process under 60 resumable streams, which are read on from another",
     env={"STREAM_REPLAY_SECONDS": "60"})  # fmt: skip
def streams_are_read_on(arena: Arena) -> None:
    arena.steady()
    originals = new_requests(arena, STREAMS, STREAMED, True, **{"X-Resumable": "true"})
    with ThreadPoolExecutor(STREAMS) as threads:
        jobs = [threads.submit(send, arena, each, arena.url) for each in originals]
        arena.until_running(STREAMS)
        arena.soon(0.3, 1.5)
        arena.met = sum(not job.done() for job in jobs)
        arena.kill(arena.web)
        cut = [job.result() for job in jobs]
        arena.new_port()
        joined = list(threads.map(lambda each: read_on(arena, each, each.content), cut))
        again = list(threads.map(lambda each: read_on(arena, each, b""), cut))
    arena.demand(all(each.cut for each in cut), "a stream had ended before the fault")
    for whole, parts in zip(again, joined, strict=True):
        nonce = whole.request.nonce
        arena.demand(whole.whole, f"{nonce}: {whole.status} {whole.content[-200:]!r}")
        arena.demand(parts.content == whole.content, f"{nonce}: read on with other bytes")
    arena.seen += [each.seen() for each in joined]
    events = sum(each.content.count(b"\n\n") for each in cut)
    arena.notes.append(f"{STREAMS} streams, cut after {events} events, read on byte by byte")


def read_on(arena: Arena, cut: Reply, before: bytes) -> Reply:
    """A stream that was cut: what came `before`, and what its log has after that."""
    before = before[: before.rfind(b"\n\n") + 2]  # the last event may be cut
    ids = re.findall(rb"^id: (\S+)$", before, re.M)
    headers = {"Last-Event-ID": ids[-1].decode()} if ids else {}
    rest = read(
        cut.request,
        requests.get(
            f"{arena.url}/generations/{cut.call_id}/stream",
            headers=arena.headers(**headers),
            stream=True,
            timeout=arena.within(SECONDS),
        ),
    )
    content = before + rest.content if ids else rest.content
    return Reply(cut.request, rest.status, cut.call_id, content, rest.cut)


@row("I2", "kill -9 of one of two web processes under 96 twins of 24 Idempotency-Keys, which "
     "come back to the other")  # fmt: skip
def twins_come_back(arena: Arena) -> None:
    arena.steady()
    victim, old = arena.web, arena.url
    arena.new_port()
    records = len(account(arena))
    originals = new_requests(arena, NAMES, STREAMED, True, False)
    with ThreadPoolExecutor(NAMES * TWINS) as threads:
        jobs = send_twins(arena, threads, originals, (old, arena.url))
        until_sent(arena, jobs)
        arena.soon(0.0, 1.0)
        arena.kill(victim)
        replies = [job.result() for job in jobs]
        cut = [each for each in replies if each.cut]
        back = list(threads.map(lambda each: send(arena, each.request, arena.url), cut))
    arena.demand(len(cut) == len(replies) // 2, f"{len(cut)} requests lost their connection")
    replies = [*back, *(each for each in replies if not each.cut)]
    failed = [each for each in replies if not each.whole]
    arena.demand(not failed, f"{len(failed)} responses are not whole")
    arena.demand(all(each.replayed for each in back), "a request that came back made a call")
    twins_are_one(arena, replies, records)
    arena.notes.append(f"{len(replies)} requests were {NAMES} calls; {len(cut)} came back")


@row("I3", "kill -9 of one of two workers under 96 twins of 24 Idempotency-Keys; calls of half of "
     "them may run once more", workers=2, allowed=Allowed(attempts=2))  # fmt: skip
def twins_lose_their_worker(arena: Arena) -> None:
    arena.steady()
    records = len(account(arena))
    once = new_requests(arena, NAMES // 2, STREAMED, True, False)
    twice = new_requests(arena, NAMES // 2, SILENT, True, False, **AGAIN)
    originals = [*once, *twice]
    with ThreadPoolExecutor(NAMES * TWINS) as threads:
        jobs = send_twins(arena, threads, originals, (arena.url,))
        until_sent(arena, jobs)
        arena.soon(0.0, 1.0)
        arena.kill(arena.workers[0])
        replies = [job.result() for job in jobs]
        late = list(threads.map(lambda each: send(arena, with_key(each), arena.url), originals))
    replies += late
    repeatable = {each.nonce for each in twice}
    failed = [each for each in replies if not each.whole]
    stuck = [each for each in failed if each.request.nonce in repeatable]
    arena.demand(not stuck, "a call did not run again")
    others = [each for each in failed if b'"worker_lost"' not in each.content]
    arena.demand(not others, f"{len(others)} responses with another error than worker_lost")
    misled = [each for each in failed if each.status != 200 and each.should_retry != "false"]
    arena.demand(not misled, f"{len(misled)} requests were told to try again")
    arena.demand(all(each.replayed for each in late), "a late twin made a call")
    twins_are_one(arena, replies, records)
    counts = Counter(nonce_of(call) for call in arena.upstream.log())
    again = {nonce for nonce, count in counts.items() if count == 2}
    arena.demand(max(counts.values()) == 2, "a call ran a third time, or none ran again")
    arena.demand(again <= repeatable, f"ran again: {len(again - repeatable)}")
    lost = {each.request.nonce for each in failed}
    arena.notes.append(
        f"{len(replies)} requests were {len(counts)} calls, of which {len(lost)} are worker_lost "
        f"and {len(again)} ran again"
    )
