"""The console's blueprint, with all of its pages."""

from api.console import (
    batches,
    calls,
    keys,
    live,
    models,
    owners,
    playground,
    queue,
    sign_in,
    usage,
)
from api.console.page import console

PAGES = (batches, calls, keys, live, models, owners, playground, queue, sign_in, usage)

__all__ = ["PAGES", "console"]
