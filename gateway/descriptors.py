"""File descriptors: the limit of this process, and whether any are left."""

from __future__ import annotations

import errno
import os
import resource

UNBOUNDED = 65_536  # the limit that is set where the system has none
RESERVE = 64  # for Redis, logs, files and the event loop


def raise_limit() -> int:
    """Raise the soft limit (often 1,024 or 256) to the hard one, and return what it is then."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    highest = hard if hard != resource.RLIM_INFINITY else max(soft, UNBOUNDED)
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (highest, hard))
    except (OSError, ValueError):  # macOS allows less than its hard limit
        return soft
    return highest


def limit() -> int:
    """The number of descriptors that this process may have open."""
    return resource.getrlimit(resource.RLIMIT_NOFILE)[0]


def spare(redis_connections: int) -> int:
    """The number of descriptors that are left for clients or providers."""
    return max(limit() - RESERVE - redis_connections, 1)


def exhausted() -> bool:
    """Whether this process (or the system) has no descriptor left."""
    try:
        os.close(os.open(os.devnull, os.O_RDONLY))
    except OSError as error:
        return error.errno in (errno.EMFILE, errno.ENFILE)
    return False
