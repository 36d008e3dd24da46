"""Which target is called after a failure, and which error the caller gets when none is left.

The rules, by the failure:

* The model is gone: the next target, successors included.
* The prompt is too long for the model: the next target that is known to take more, or else the
  next whose context length is unknown, once.
* The provider failed or could not be reached, or refused the operator's key: the next target.
* The request itself is wrong, or violates the provider's content policy: none. Another model might
  answer, but the caller should know.
* A fallback refuses what the caller sent to another model: the next target. If none is left, the
  caller gets that other model's error. Violations of a content policy are always reported.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from gateway import memory
from gateway.catalogue import deprecation
from gateway.catalogue.target import Target
from gateway.errors import (
    GatewayError,
    InvalidRequest,
    ModelNotFound,
    ProviderNotConfigured,
    UpstreamError,
    UpstreamOverloaded,
    UpstreamRejected,
)
from workers.bill import Bill

TOO_LONG = "context_length_exceeded"
# OpenAI's codes, and Azure's.
CONTENT_POLICY_CODES = frozenset({"content_policy_violation", "content_filter", "invalid_prompt"})
SKIPPED = "circuit_open"  # code of an attempt that was not made, in a call's record


@dataclass(slots=True)
class Failover:
    """A call's way through its targets; failed and skipped attempts are noted in `bill`."""

    targets: tuple[Target, ...]
    bill: Bill = field(default_factory=Bill)
    position: int = 0
    last_chance: bool = False  # a larger model is called, and no other after it
    error: GatewayError | None = None  # the caller's, should no other target do better
    may_have_left: bool = False  # may any failed attempt have reached its provider?

    @property
    def target(self) -> Target:
        """The target that is called now."""
        return self.targets[self.position]

    def alone(self) -> bool:
        """Whether no other target could be called if this one failed."""
        return self.last_chance or self._next_fallback() is None

    def note(self, error: GatewayError, seconds: float = 0.0) -> None:
        """Note a failed attempt at this target, which took so many seconds."""
        self.bill.note(self.target, error, seconds)
        if error.should_retry is False and not isinstance(error, ProviderNotConfigured):
            self.may_have_left = True

    def skip(self) -> None:
        """Go to the next target without calling this one; there must be one (see `alone`)."""
        self.error = UpstreamOverloaded(should_retry=True)  # should no other take this call
        self.bill.note(self.target, UpstreamOverloaded(code=SKIPPED), 0.0)
        self.position = self._next_fallback() or self.position

    def move_on(self, error: GatewayError, began: bool) -> None:
        """Go to the target that is to be called after this failure.

        `began` says that the caller has a chunk of this target's response. Raises the caller's
        error where no target is left.
        """
        unfit = self._unfit(error)
        reported = error
        if isinstance(error, ModelNotFound):
            reported = deprecation.gone(error, self.target.row)
        if self.error is not None and not began and (self.last_chance or unfit):
            reported = self.error
        following = None if began or self.last_chance else self._following(error, unfit)
        memory.release(error)
        if following is None:
            if self.may_have_left and reported.should_retry is not False:
                reported.should_retry = False  # a client's own retries would multiply the calls
            raise reported
        self.error, self.position = reported, following

    def _following(self, error: GatewayError, unfit: bool) -> int | None:
        if unfit:
            return self._next_fallback()
        if isinstance(error, ModelNotFound):
            return self.position + 1 if self.position + 1 < len(self.targets) else None
        if isinstance(error, UpstreamRejected):
            return self._next_larger() if error.code == TOO_LONG else None
        if isinstance(error, UpstreamError | ProviderNotConfigured):
            return self._next_fallback()
        return None

    def _unfit(self, error: GatewayError) -> bool:
        """Whether a fallback cannot do what was asked of another model: others perhaps can."""
        if self.position == 0 or self.target.only_if_gone or error.code in CONTENT_POLICY_CODES:
            return False
        return isinstance(error, InvalidRequest | UpstreamRejected)

    def _next_fallback(self) -> int | None:
        for position in range(self.position + 1, len(self.targets)):
            if not self.targets[position].only_if_gone:
                return position
        return None

    def _next_larger(self) -> int | None:
        """The next target that is known to take more, or else the next that may."""
        size = self.target.row.context_length or 0
        following = range(self.position + 1, len(self.targets))
        lengths = {
            position: self.targets[position].row.context_length
            for position in following
            if not self.targets[position].only_if_gone
        }
        larger = [position for position, length in lengths.items() if (length or 0) > size]
        unknown = [position for position, length in lengths.items() if length is None]
        position = next(iter(larger + unknown), None)
        self.last_chance = position is not None
        return position
