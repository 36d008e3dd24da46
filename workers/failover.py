"""Which model is asked next when one has failed, and what the caller is told when none is left.

The rules, by what the failure says:

* The model is gone: the next target, a successor among them.
* The call is too long for the model: the next one known to take more, which gets one attempt.
* The provider, or the way to it, failed, also by refusing the operator's key: the next target.
* The call itself is wrong, or breaks the provider's rules for content: none. Another model may
  well answer it, but it is the caller's to know.
* A fallback refuses what the caller asked of another model: the next target, and were there none,
  the caller is told how that other model failed. Rules for content are told whoever's they are.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from gateway import memory
from gateway.catalogue import deprecation
from gateway.catalogue.file import ModelRow
from gateway.errors import (
    GatewayError,
    InvalidRequest,
    ModelNotFound,
    ProviderNotConfigured,
    UpstreamError,
    UpstreamOverloaded,
    UpstreamRejected,
)
from gateway.queue.protocol import Target

TOO_LONG = "context_length_exceeded"
# OpenAI's words for what breaks its rules, and Azure's.
RULES = frozenset({"content_policy_violation", "content_filter", "invalid_prompt"})
SKIPPED = "circuit_open"  # in a call's record: the route was not asked


@dataclass(slots=True)
class Failover:
    """A call's way through its targets. `failures` are the attempts that came to nothing."""

    targets: tuple[Target, ...]
    find: Callable[[str], ModelRow]
    at: int = 0
    last_chance: bool = False  # a larger model is asked, and nobody after it
    refusal: GatewayError | None = None
    failures: list[dict[str, str]] = field(default_factory=list)
    _may_have_left: bool = False

    @property
    def target(self) -> Target:
        """Who is asked now."""
        return self.targets[self.at]

    def alone(self) -> bool:
        """Whether nobody could answer in this target's place, should it fail."""
        return self.last_chance or self._next_fallback() is None

    def note(self, error: GatewayError) -> None:
        """Record that an attempt at this target failed."""
        self._record(error.code or type(error).__name__)
        if error.should_retry is False and not isinstance(error, ProviderNotConfigured):
            self._may_have_left = True

    def skip(self) -> None:
        """Go to the next target without asking this one; there must be one (see `alone`)."""
        self._record(SKIPPED)
        self.refusal = UpstreamOverloaded(should_retry=True)  # should nobody else take this call
        self.at = self._next_fallback() or self.at

    def move_on(self, error: GatewayError, began: bool) -> None:
        """Go to the target that is to be asked after this failure.

        Raises what the caller is told where there is none; `began` says that the caller has a part
        of this target's answer.
        """
        told = self._told(error, began)
        following = None if began or self.last_chance else self._following(error)
        memory.release(error)
        if following is None:
            if self._may_have_left and told.should_retry is not False:
                told.should_retry = False  # a client's own retries would multiply the calls
            raise told
        self.refusal, self.at = told, following

    def _told(self, error: GatewayError, began: bool) -> GatewayError:
        """What this failure would mean to the caller, who asked for the first target."""
        row = self._row(self.target) if isinstance(error, ModelNotFound) else None
        if row is not None and isinstance(error, ModelNotFound):
            error = deprecation.gone(error, row)
        if began or self.refusal is None:
            return error
        return self.refusal if self.last_chance or self._unfit(error) else error

    def _following(self, error: GatewayError) -> int | None:
        if self._unfit(error):
            return self._next_fallback()
        if isinstance(error, ModelNotFound):
            return self.at + 1 if self.at + 1 < len(self.targets) else None
        if isinstance(error, UpstreamRejected):
            return self._next_larger() if error.code == TOO_LONG else None
        if isinstance(error, UpstreamError | ProviderNotConfigured):
            return self._next_fallback()
        return None

    def _unfit(self, error: GatewayError) -> bool:
        """Whether a fallback cannot do what was asked of another: the rest perhaps can."""
        if self.at == 0 or self.target.only_if_gone or error.code in RULES:
            return False
        return isinstance(error, InvalidRequest | UpstreamRejected)

    def _row(self, target: Target) -> ModelRow | None:
        """None where the web process knows more models than this worker, as in a deploy."""
        try:
            return self.find(target.model)
        except ModelNotFound:
            return None

    def _context(self, target: Target) -> int:
        row = self._row(target)
        return (row.context if row else None) or 0

    def _next_fallback(self) -> int | None:
        for at in range(self.at + 1, len(self.targets)):
            if not self.targets[at].only_if_gone:
                return at
        return None

    def _next_larger(self) -> int | None:
        size = self._context(self.target)
        for at in range(self.at + 1, len(self.targets)):
            target = self.targets[at]
            if not target.only_if_gone and self._context(target) > size:
                self.last_chance = True
                return at
        return None

    def _record(self, code: str) -> None:
        self.failures.append({"route": self.target.route, "code": code})
