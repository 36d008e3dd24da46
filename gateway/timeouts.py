"""The timeouts of a call to a provider, by the same names in settings, catalogue and workers."""

from __future__ import annotations

from dataclasses import dataclass, fields


@dataclass(frozen=True, slots=True)
class Timeouts:
    """How long a call waits, in seconds; 0 means that nothing is set.

    `connect` bounds the wait for a connection, `first_byte` the wait for the response to begin,
    `first_token` the wait for the first token of a stream, `between_tokens` a silence within the
    response, and `total` the life of the call, its time in the queue included.
    """

    connect: float = 0.0
    first_byte: float = 0.0
    first_token: float = 0.0
    between_tokens: float = 0.0
    total: float = 0.0


NAMES = tuple(field.name for field in fields(Timeouts))
