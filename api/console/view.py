"""The console's blueprint, with all of its pages."""

from api.console import calls, keys, models, owners, playground, queue, sign_in, usage
from api.console.page import console

__all__ = [
    "calls",
    "console",
    "keys",
    "models",
    "owners",
    "playground",
    "queue",
    "sign_in",
    "usage",
]
