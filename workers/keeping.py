"""Keeps the response of a call for identical ones: see gateway/account/cache.py."""

from __future__ import annotations

from gateway.account.cache import ENTRY_BYTES, Entry
from gateway.queue import commands
from gateway.queue.protocol import CallSpec, Outcome
from workers.claims import Claimed
from workers.outbox import Outbox, Sender

# As orjson writes it; in a text, the quotes would be escaped.
FILTERED = b'"finish_reason":"content_filter"'


class KeepingSender(Sender):
    """A sender that can keep the response, of which it copies the chunks it sends.

    `most_bytes` is the most of all responses that are kept.
    """

    __slots__ = ("_capped", "_copy", "_most_bytes", "_size", "_spec")

    def __init__(self, outbox: Outbox, claimed: Claimed, spec: CallSpec, most_bytes: int) -> None:
        super().__init__(outbox, claimed.call_id, claimed.claim, claimed.web)
        self._spec, self._most_bytes = spec, most_bytes
        self._capped = bool(claimed.admission.get("cap"))
        self._copy: list[bytes] = []
        self._size = 0

    def send(self, lines: bytes) -> None:
        """Send chunks, as lines of JSON; wait while too much of this call is unsent."""
        self._size += len(lines) + 1
        if self._size <= ENTRY_BYTES:
            self._copy.append(lines)
        else:
            self._copy.clear()
        super().send(lines)

    def keep(self, outcome: Outcome, nano: int = 0) -> None:
        """Keep the response, which cost `nano`, if it is complete and what the caller wanted.

        Not if a fallback has answered, if a budget has capped it, or if a provider has filtered it:
        the next call may do better.
        """
        substituted = outcome.route != self._spec.targets[0].route
        if outcome.error is not None or substituted or self._capped:
            return
        response = b"\n".join(self._copy) if self._spec.stream else outcome.answer
        if not response or len(response) > ENTRY_BYTES or FILTERED in response:
            return
        value = Entry(response, nano, outcome.dropped).encode()
        name, seconds = self._spec.cache["name"], self._spec.cache["seconds"]
        self._outbox.put(commands.store_command(name, value, seconds, self._most_bytes))
